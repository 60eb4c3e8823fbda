"""Transposed and separable convolution, adaptive pooling, resizing, shuffles, patches, padding."""

from dlkit import nn
from rows.row import Row, normal

IMAGES = normal(2, 8, 8, 4)

ROWS: list[Row] = [
    Row(nn.ConvTranspose(4, 6, 4, stride=2), IMAGES, {"b": (6,), "w": (4, 4, 6, 4)}),
    Row(
        nn.ConvTranspose(4, 6, (3,), stride=2, padding=1, output_padding=1, groups=2, bias=False),
        normal(2, 9, 4),
        {"w": (3, 3, 4)},
    ),
    Row(nn.DepthwiseConv(4, 3, multiplier=2, stride=2), IMAGES, {"b": (8,), "w": (3, 3, 1, 8)}),
    Row(
        nn.SeparableConv(4, 6, 3),
        IMAGES,
        {"depthwise/w": (3, 3, 1, 4), "pointwise/b": (6,), "pointwise/w": (1, 1, 4, 6)},
    ),
]
