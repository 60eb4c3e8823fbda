"""Further normalization, parametrizations of weights, the dropout family, convolutional blocks, quantizers."""

from dlkit import nn
from rows.row import Row, normal

BATCH = normal(4, 16)
IMAGES = normal(2, 8, 8, 4)

ROWS: list[Row] = [
    Row(nn.InstanceNorm(4), IMAGES),
    Row(nn.InstanceNorm(4, affine=True, dims=1), normal(2, 9, 4), {"scale": (4,), "shift": (4,)}),
    Row(nn.LocalResponseNorm(5, alpha=0.5), BATCH),
    Row(nn.UnitNorm(), BATCH),
]
