"""Affine maps, convolution, pooling, normalization, activations, combinators."""

import numpy as np

from dlkit import nn
from rows.row import Row, normal

BATCH = normal(4, 16)
IMAGES = normal(2, 8, 8, 4)

ACTIVATIONS = [
    *(nn.Celu(), nn.Elu(), nn.Gelu(), nn.Gelu(approximate=True), nn.LogSigmoid(), nn.Mish(), nn.Selu(), nn.Sigmoid()),
    *(nn.Silu(), nn.Softplus(), nn.Softsign(), nn.Squareplus(), nn.Swish(), nn.Tanh(), nn.TanhShrink()),
    *(nn.HardShrink(), nn.HardSigmoid(), nn.HardSwish(), nn.HardTanh(), nn.LeakyRelu(0.1), nn.Relu(), nn.Relu6()),
    *(nn.SoftShrink(), nn.Threshold(0.1, 0.2), nn.Crelu(), nn.Geglu(), nn.Glu(), nn.Reglu(), nn.Swiglu()),
    nn.LogSoftmax(),
]
NORMALIZED = [nn.Softmax(), nn.Softmin(), nn.Sparsemax()]  # outputs of about 1 / 16

ROWS = [
    Row(nn.Linear(16, 8), BATCH, {"b": (8,), "w": (16, 8)}),
    Row(nn.Linear(16, 8, bias=False), normal(2, 3, 16), {"w": (16, 8)}),
    Row(nn.Conv(4, 6, 3), IMAGES, {"b": (6,), "w": (3, 3, 4, 6)}),
    Row(nn.Conv(4, 6, (3,), stride=2, padding=1, groups=2), normal(2, 9, 4), {"b": (6,), "w": (3, 2, 6)}),
    Row(nn.Conv(2, 4, (3, 1, 2), padding="VALID"), normal(2, 4, 3, 4, 2), {"b": (4,), "w": (3, 1, 2, 2, 4)}),
    Row(nn.MaxPool(2), IMAGES),
    Row(nn.AvgPool(3, stride=2, padding=1), IMAGES),
    Row(nn.GlobalAvgPool(), IMAGES),
    Row(nn.GlobalMaxPool(), IMAGES),
    Row(nn.Flatten(), IMAGES),
    Row(nn.Embedding(11, 16), np.arange(12, dtype=np.int32).reshape(4, 3) % 11, {"table": (11, 16)}),
    Row(
        nn.BatchNorm(16),
        normal(32, 16),
        {"scale": (16,), "shift": (16,)},
        {"mean": (16,), "var": (16,)},
    ),
    Row(nn.LayerNorm(16), BATCH, {"scale": (16,), "shift": (16,)}),
    Row(nn.RMSNorm(16), BATCH, {"scale": (16,)}),
    Row(nn.GroupNorm(2, 4), IMAGES, {"scale": (4,), "shift": (4,)}),
    Row(nn.Dropout(0.4), BATCH),
    *[Row(layer, BATCH) for layer in ACTIVATIONS],
    *[Row(layer, BATCH, options={"scale": (0.02, 10.0)}) for layer in NORMALIZED],
    Row(nn.GatedLinear(16, 8), BATCH, {"b": (16,), "w": (16, 16)}),
    Row(nn.Identity(), BATCH),
    Row(nn.Reshape((4, 4)), BATCH),
    Row(nn.Permute((2, 0, 1)), IMAGES),
    Row(nn.Rescale(1 / 255), np.arange(64, dtype=np.uint8).reshape(4, 16), options={"scale": (0.01, 1.0)}),
    Row(nn.PRelu(), BATCH, {"slope": (1,)}),
    Row(nn.Maxout(16, 8, pieces=3), BATCH, {"b": (24,), "w": (16, 24)}),
    Row(
        nn.Chain(nn.Linear(16, 16), nn.BatchNorm(16), nn.Relu(), nn.Dropout(0.2), head=nn.Linear(16, 4)),
        normal(32, 16),
        {
            "batch_norm1/scale": (16,),
            "batch_norm1/shift": (16,),
            "head/b": (4,),
            "head/w": (16, 4),
            "linear1/b": (16,),
            "linear1/w": (16, 16),
        },
        {"batch_norm1/mean": (16,), "batch_norm1/var": (16,)},
        {"unused": ("linear1/b",)},  # the norm subtracts it again
    ),
    Row(
        nn.Residual(nn.Chain(nn.LayerNorm(16), nn.Linear(16, 16))),
        BATCH,
        {
            "body/layer_norm1/scale": (16,),
            "body/layer_norm1/shift": (16,),
            "body/linear1/b": (16,),
            "body/linear1/w": (16, 16),
        },
    ),
    Row(
        nn.Stack(nn.Residual(nn.Chain(nn.Linear(16, 16), nn.Dropout(0.3))), 3, remat="full"),
        BATCH,
        {"body/linear1/b": (3, 16), "body/linear1/w": (3, 16, 16)},
    ),
]
