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
from dlkit.nn.combinators import Chain, Residual, Stack, is_pure
from dlkit.nn.convolution.augment import RandomCrop, RandomFlip
from dlkit.nn.convolution.conv import Conv
from dlkit.nn.convolution.conv_blocks import BasicBlock, Bottleneck, ConvNeXtBlock, InvertedResidual
from dlkit.nn.convolution.conv_transpose import ConvTranspose
from dlkit.nn.convolution.excite import LayerScale, SqueezeExcite
from dlkit.nn.convolution.masked_conv import MaskedConv
from dlkit.nn.convolution.padding import Crop, Pad
from dlkit.nn.convolution.patches import PatchEmbed
from dlkit.nn.convolution.pooling import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from dlkit.nn.convolution.resize import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    ChannelShuffle,
    PixelShuffle,
    PixelUnshuffle,
    Upsample,
)
from dlkit.nn.convolution.separable import DepthwiseConv, SeparableConv
from dlkit.nn.convolution.temporal import TCN, TCNBlock
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
from dlkit.nn.gates import Crelu, Geglu, Glu, LogSoftmax, Reglu, Softmax, Softmin, Sparsemax, Swiglu
from dlkit.nn.graphs.graph import OnNodes
from dlkit.nn.graphs.graph_attention import GATConv, GATv2Conv
from dlkit.nn.graphs.graph_conv import GCNConv, GINConv, GINEConv, SAGEConv
from dlkit.nn.graphs.graph_hops import APPNP, SGConv
from dlkit.nn.graphs.graph_pool import GraphNorm, GraphPool
from dlkit.nn.graphs.graph_sets import DeepSets, EdgeConv
from dlkit.nn.graphs.message_passing import GraphNetwork, MessagePassing
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.learned import GatedLinear, Maxout, PRelu
from dlkit.nn.linear import Linear
from dlkit.nn.lora import LORA, LoRALinear, add_lora, lora, merge_lora, unmerge_lora
from dlkit.nn.mode import EVAL, Mode, fold_name, training
from dlkit.nn.normalization.batch_norm import BatchNorm
from dlkit.nn.normalization.conditional import ConditionalNorm, Film
from dlkit.nn.normalization.fold_norm import fold_batch_norm
from dlkit.nn.normalization.instance_norm import InstanceNorm
from dlkit.nn.normalization.local_response import LocalResponseNorm, UnitNorm
from dlkit.nn.normalization.norms import GroupNorm, LayerNorm, RMSNorm
from dlkit.nn.normalization.parametrize import WeightNorm, WeightStandardized
from dlkit.nn.normalization.spectral_norm import SpectralNorm
from dlkit.nn.normalization.standardize import Standardize
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
from dlkit.nn.presets import init_preset
from dlkit.nn.quantizer import Quantized, VectorQuantizer, VectorQuantizerEMA
from dlkit.nn.recurrence.bidirectional import Bidirectional, DeepRNN
from dlkit.nn.recurrence.conv_lstm import ConvLSTM
from dlkit.nn.recurrence.gru import GRU
from dlkit.nn.recurrence.linear_recurrence import LRU
from dlkit.nn.recurrence.lstm import LSTM
from dlkit.nn.recurrence.noise import VariationalDropout, Zoneout
from dlkit.nn.recurrence.ntm import NTM
from dlkit.nn.recurrence.recurrent import RNN
from dlkit.nn.rewrite import map_layers
from dlkit.nn.shapes import Flatten, Identity, Permute, Rescale, Reshape
from dlkit.nn.stochastic_depth import DropPath
from dlkit.nn.transformer.additive_attention import AdditiveAttention
from dlkit.nn.transformer.attention import MultiHeadAttention
from dlkit.nn.transformer.block import TransformerBlock, transformer_block
from dlkit.nn.transformer.cache import KeyValues, KVCache
from dlkit.nn.transformer.feed_forward import FeedForward, GatedFeedForward
from dlkit.nn.transformer.moe import MoE, moe_loss
from dlkit.nn.transformer.positions import Alibi, LearnedPositions, RelativeBias, Rope, SinusoidalPositions

__all__ = [
    "APPNP",
    "EVAL",
    "GRU",
    "LORA",
    "LRU",
    "LSTM",
    "NTM",
    "RNN",
    "TCN",
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
    "DeepSets",
    "DepthwiseConv",
    "DropBlock",
    "DropConnect",
    "DropPath",
    "Dropout",
    "EdgeConv",
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
    "Permute",
    "PixelShuffle",
    "PixelUnshuffle",
    "Pure",
    "Quantized",
    "RMSNorm",
    "RandomCrop",
    "RandomFlip",
    "Reglu",
    "RelativeBias",
    "Relu",
    "Relu6",
    "Rescale",
    "Reshape",
    "Residual",
    "Rope",
    "SAGEConv",
    "SGConv",
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
    "TCNBlock",
    "Tanh",
    "TanhShrink",
    "Threshold",
    "TransformerBlock",
    "UnitNorm",
    "Upsample",
    "VariationalDropout",
    "VectorQuantizer",
    "VectorQuantizerEMA",
    "WeightNorm",
    "WeightStandardized",
    "Zoneout",
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
