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
from dlkit.nn.additive_attention import AdditiveAttention
from dlkit.nn.attention import MultiHeadAttention
from dlkit.nn.batch_norm import BatchNorm
from dlkit.nn.bidirectional import Bidirectional, DeepRNN
from dlkit.nn.cache import KeyValues, KVCache
from dlkit.nn.combinators import Chain, Residual, Stack, is_pure
from dlkit.nn.conditional import ConditionalNorm, Film
from dlkit.nn.conv import Conv
from dlkit.nn.conv_blocks import BasicBlock, Bottleneck, ConvNeXtBlock, InvertedResidual
from dlkit.nn.conv_lstm import ConvLSTM
from dlkit.nn.conv_transpose import ConvTranspose
from dlkit.nn.dropout import Dropout
from dlkit.nn.dropout_family import (
    AlphaDropout,
    DropBlock,
    DropConnect,
    FeatureAlphaDropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout,
)
from dlkit.nn.einsum import Einsum, Highway
from dlkit.nn.embedding import Embedding
from dlkit.nn.excite import LayerScale, SqueezeExcite
from dlkit.nn.feed_forward import FeedForward, GatedFeedForward
from dlkit.nn.fold_norm import fold_batch_norm
from dlkit.nn.gates import Crelu, Geglu, Glu, LogSoftmax, Reglu, Softmax, Softmin, Sparsemax, Swiglu
from dlkit.nn.graph import OnNodes
from dlkit.nn.graph_attention import GATConv, GATv2Conv
from dlkit.nn.graph_conv import GCNConv, GINConv, GINEConv, SAGEConv
from dlkit.nn.graph_pool import GraphNorm, GraphPool
from dlkit.nn.gru import GRU
from dlkit.nn.instance_norm import InstanceNorm
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.learned import GatedLinear, Maxout, PRelu
from dlkit.nn.linear import Linear
from dlkit.nn.linear_recurrence import LRU
from dlkit.nn.local_response import LocalResponseNorm, UnitNorm
from dlkit.nn.lora import LORA, LoRALinear, add_lora, lora, merge_lora, unmerge_lora
from dlkit.nn.lstm import LSTM
from dlkit.nn.masked_conv import MaskedConv
from dlkit.nn.message_passing import GraphNetwork, MessagePassing
from dlkit.nn.mode import EVAL, Mode, fold_name, training
from dlkit.nn.moe import MoE, moe_loss
from dlkit.nn.norms import GroupNorm, LayerNorm, RMSNorm
from dlkit.nn.ntm import NTM
from dlkit.nn.padding import Crop, Pad
from dlkit.nn.parametrize import WeightNorm, WeightStandardized
from dlkit.nn.patches import PatchEmbed
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
from dlkit.nn.positions import Alibi, LearnedPositions, RelativeBias, Rope, SinusoidalPositions
from dlkit.nn.presets import init_preset
from dlkit.nn.quantizer import Quantized, VectorQuantizer, VectorQuantizerEMA
from dlkit.nn.recurrent import RNN
from dlkit.nn.resize import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    ChannelShuffle,
    PixelShuffle,
    PixelUnshuffle,
    Upsample,
)
from dlkit.nn.rewrite import map_layers
from dlkit.nn.separable import DepthwiseConv, SeparableConv
from dlkit.nn.shapes import Flatten, Identity, Rescale, Reshape
from dlkit.nn.spectral_norm import SpectralNorm
from dlkit.nn.standardize import Standardize
from dlkit.nn.stochastic_depth import DropPath
from dlkit.nn.transformer import TransformerBlock, transformer_block

__all__ = [
    "EVAL",
    "GRU",
    "LORA",
    "LRU",
    "LSTM",
    "NTM",
    "RNN",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AdditiveAttention",
    "Alibi",
    "AlphaDropout",
    "AvgPool",
    "BasicBlock",
    "BatchNorm",
    "Bidirectional",
    "Bottleneck",
    "Celu",
    "Chain",
    "ChannelShuffle",
    "ConditionalNorm",
    "Conv",
    "ConvLSTM",
    "ConvNeXtBlock",
    "ConvTranspose",
    "Crelu",
    "Crop",
    "DeepRNN",
    "DepthwiseConv",
    "DropBlock",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Einsum",
    "Elu",
    "Embedding",
    "FeatureAlphaDropout",
    "FeedForward",
    "Film",
    "Flatten",
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "GatedFeedForward",
    "GatedLinear",
    "GaussianDropout",
    "GaussianNoise",
    "Geglu",
    "Gelu",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Glu",
    "GraphNetwork",
    "GraphNorm",
    "GraphPool",
    "GroupNorm",
    "HardShrink",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Highway",
    "Identity",
    "InstanceNorm",
    "InvertedResidual",
    "KVCache",
    "KeyValues",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "LeakyRelu",
    "LearnedPositions",
    "Linear",
    "LoRALinear",
    "LocalResponseNorm",
    "LogSigmoid",
    "LogSoftmax",
    "MaskedConv",
    "MaxPool",
    "Maxout",
    "MessagePassing",
    "Mish",
    "MoE",
    "Mode",
    "MultiHeadAttention",
    "OnNodes",
    "PRelu",
    "Pad",
    "PatchEmbed",
    "PixelShuffle",
    "PixelUnshuffle",
    "Pure",
    "Quantized",
    "RMSNorm",
    "Reglu",
    "RelativeBias",
    "Relu",
    "Relu6",
    "Rescale",
    "Reshape",
    "Residual",
    "Rope",
    "SAGEConv",
    "Selu",
    "SeparableConv",
    "Sigmoid",
    "Silu",
    "SinusoidalPositions",
    "SoftShrink",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softsign",
    "Sparsemax",
    "SpatialDropout",
    "SpectralNorm",
    "Squareplus",
    "SqueezeExcite",
    "Stack",
    "Standardize",
    "Swiglu",
    "Swish",
    "Tanh",
    "TanhShrink",
    "Threshold",
    "TransformerBlock",
    "UnitNorm",
    "Upsample",
    "VectorQuantizer",
    "VectorQuantizerEMA",
    "WeightNorm",
    "WeightStandardized",
    "add_lora",
    "child_state",
    "fold_batch_norm",
    "fold_name",
    "functional",
    "init_preset",
    "initializers",
    "is_pure",
    "lora",
    "map_layers",
    "merge_lora",
    "moe_loss",
    "training",
    "transformer_block",
    "unmerge_lora",
]
