"""Layers: frozen dataclasses of hyperparameters with `init` and one pure step, `apply`."""

from dlkit import functional
from dlkit.nn import initializers
from dlkit.nn.activations import (
    Celu,
    Elu,
    Gelu,
    LogSigmoid,
    Mish,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Squareplus,
    Swish,
    Tanh,
    TanhShrink,
)
from dlkit.nn.batch_norm import BatchNorm
from dlkit.nn.combinators import Chain, Residual, Stack, is_pure
from dlkit.nn.conv import Conv
from dlkit.nn.dropout import Dropout
from dlkit.nn.embedding import Embedding
from dlkit.nn.gates import Crelu, Geglu, Glu, LogSoftmax, Reglu, Softmax, Softmin, Sparsemax, Swiglu
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.learned import GatedLinear, Maxout, PRelu
from dlkit.nn.linear import Linear
from dlkit.nn.mode import EVAL, Mode, fold_name, training
from dlkit.nn.norms import GroupNorm, LayerNorm, RMSNorm
from dlkit.nn.piecewise import (
    HardShrink,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Relu,
    Relu6,
    SoftShrink,
    Threshold,
)
from dlkit.nn.pooling import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from dlkit.nn.presets import init_preset
from dlkit.nn.shapes import Flatten, Identity, Rescale, Reshape

__all__ = [
    "EVAL",
    "AvgPool",
    "BatchNorm",
    "Celu",
    "Chain",
    "Conv",
    "Crelu",
    "Dropout",
    "Elu",
    "Embedding",
    "Flatten",
    "GatedLinear",
    "Geglu",
    "Gelu",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Glu",
    "GroupNorm",
    "HardShrink",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MaxPool",
    "Maxout",
    "Mish",
    "Mode",
    "PRelu",
    "Pure",
    "RMSNorm",
    "Reglu",
    "Relu",
    "Relu6",
    "Rescale",
    "Reshape",
    "Residual",
    "Selu",
    "Sigmoid",
    "Silu",
    "SoftShrink",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softsign",
    "Sparsemax",
    "Squareplus",
    "Stack",
    "Swiglu",
    "Swish",
    "Tanh",
    "TanhShrink",
    "Threshold",
    "child_state",
    "fold_name",
    "functional",
    "init_preset",
    "initializers",
    "is_pure",
    "training",
]
