"""The initial weights of other libraries, for whole models."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from dlkit.nn import initializers as inits
from dlkit.nn.combinators import Chain
from dlkit.nn.convolution.conv import Conv
from dlkit.nn.convolution.conv_transpose import ConvTranspose
from dlkit.nn.convolution.excite import SqueezeExcite
from dlkit.nn.convolution.masked_conv import MaskedConv
from dlkit.nn.convolution.patches import PatchEmbed
from dlkit.nn.convolution.separable import DepthwiseConv, SeparableConv
from dlkit.nn.einsum import Einsum
from dlkit.nn.embedding import Embedding
from dlkit.nn.graphs.graph_attention import GATConv, GATv2Conv
from dlkit.nn.graphs.graph_conv import GCNConv, SAGEConv
from dlkit.nn.graphs.graph_hops import SGConv
from dlkit.nn.layer import Layer
from dlkit.nn.learned import GatedLinear, Maxout, PRelu
from dlkit.nn.linear import Linear
from dlkit.nn.lora import LoRALinear
from dlkit.nn.recipe import Recipe
from dlkit.nn.recurrence.conv_lstm import ConvLSTM
from dlkit.nn.recurrence.gru import GRU
from dlkit.nn.recurrence.lstm import LSTM
from dlkit.nn.recurrence.recurrent import RNN
from dlkit.nn.transformer.additive_attention import AdditiveAttention
from dlkit.nn.transformer.attention import MultiHeadAttention
from dlkit.nn.transformer.feed_forward import FeedForward, GatedFeedForward
from dlkit.nn.transformer.moe import MoE

__all__ = ["init_preset"]

L = TypeVar("L", bound=Layer)
Fields = Mapping[str, inits.Initializer | float]

_TORCH_AFFINE: Fields = {"w_init": inits.torch_weight(), "b_init": inits.torch_bias()}
_FLAX_AFFINE: Fields = {"w_init": inits.lecun_normal(), "b_init": inits.Zeros()}

# Fans of one gate: both weights of torch have the bound 1/sqrt(d), where d is how many outputs an input reaches.
_TORCH_RECURRENT: Fields = {
    "w_init": inits.VarianceScaling(1 / 3, "fan_out", "uniform"),
    "hidden_init": inits.VarianceScaling(1 / 3, "fan_out", "uniform"),
    "b_init": inits.torch_bias(),
}
_FLAX_RECURRENT: Fields = {**_FLAX_AFFINE, "hidden_init": inits.Orthogonal()}

# torch reads fan-in off the layout of the kernel, which for a transposed one is our fan-out.
_TORCH_TRANSPOSED: Fields = {
    "w_init": inits.VarianceScaling(1 / 3, "fan_out", "uniform"),
    "b_init": inits.VarianceScaling(1 / 3, "fan_out", "uniform"),
}


def _torch_attention(layer: Any) -> Fields:
    # One matrix [3 d, d] of q, k and v, drawn by Glorot: its bound is that of fans d and 3 d. Where keys and values
    # have another width than queries, torch has a matrix for each.
    apart = layer.d_memory not in (None, layer.d)
    w_init = inits.xavier_uniform() if apart else inits.VarianceScaling(0.5, "fan_avg", "uniform")
    return {"w_init": w_init, "out_init": inits.torch_weight(), "b_init": inits.Zeros()}


def _flax_transposed(layer: Any) -> Fields:
    # Our fan-in is divided by the stride, flax's is not.
    dims = len(layer.kernel_shape)
    steps = layer.stride**dims if isinstance(layer.stride, int) else math.prod(layer.stride)
    return {"w_init": inits.VarianceScaling(1 / steps, "fan_in", "truncated_normal"), "b_init": inits.Zeros()}


# Normalization layers start from scale 1 and shift 0 everywhere. Layers that neither library has take what its linear
# layer would.
PRESETS: Mapping[str, Mapping[type[Layer], Fields | Callable[[Any], Fields]]] = {
    "torch": {
        Linear: _TORCH_AFFINE,
        Conv: _TORCH_AFFINE,
        ConvTranspose: _TORCH_TRANSPOSED,
        DepthwiseConv: _TORCH_AFFINE,
        MaskedConv: _TORCH_AFFINE,
        PatchEmbed: _TORCH_AFFINE,
        SeparableConv: _TORCH_AFFINE,
        Maxout: _TORCH_AFFINE,
        AdditiveAttention: _TORCH_AFFINE,
        MultiHeadAttention: _torch_attention,
        GatedLinear: _TORCH_AFFINE,
        Einsum: _TORCH_AFFINE,
        SqueezeExcite: _TORCH_AFFINE,
        GCNConv: _TORCH_AFFINE,
        SGConv: _TORCH_AFFINE,
        SAGEConv: _TORCH_AFFINE,
        GATConv: _TORCH_AFFINE,
        GATv2Conv: _TORCH_AFFINE,
        FeedForward: {**_TORCH_AFFINE, "out_init": inits.torch_weight()},
        GatedFeedForward: {**_TORCH_AFFINE, "out_init": inits.torch_weight()},
        LoRALinear: {**_TORCH_AFFINE, "down_init": inits.torch_weight()},
        MoE: {"w_init": inits.torch_weight()},
        RNN: _TORCH_RECURRENT,
        GRU: _TORCH_RECURRENT,
        LSTM: {**_TORCH_RECURRENT, "forget_bias": 0.0},
        ConvLSTM: {**_TORCH_AFFINE, "hidden_init": inits.torch_weight(), "forget_bias": 0.0},
        Embedding: {"table_init": inits.Normal(1.0)},
        PRelu: {"slope_init": inits.Constant(0.25)},
    },
    "flax": {
        Linear: _FLAX_AFFINE,
        Conv: _FLAX_AFFINE,
        ConvTranspose: _flax_transposed,
        DepthwiseConv: _FLAX_AFFINE,
        MaskedConv: _FLAX_AFFINE,
        PatchEmbed: _FLAX_AFFINE,
        SeparableConv: _FLAX_AFFINE,
        Maxout: _FLAX_AFFINE,
        AdditiveAttention: _FLAX_AFFINE,
        MultiHeadAttention: {**_FLAX_AFFINE, "out_init": inits.lecun_normal()},
        GatedLinear: _FLAX_AFFINE,
        Einsum: _FLAX_AFFINE,
        SqueezeExcite: _FLAX_AFFINE,
        GCNConv: _FLAX_AFFINE,
        SGConv: _FLAX_AFFINE,
        SAGEConv: _FLAX_AFFINE,
        GATConv: _FLAX_AFFINE,
        GATv2Conv: _FLAX_AFFINE,
        FeedForward: {**_FLAX_AFFINE, "out_init": inits.lecun_normal()},
        GatedFeedForward: {**_FLAX_AFFINE, "out_init": inits.lecun_normal()},
        LoRALinear: {**_FLAX_AFFINE, "down_init": inits.he_uniform()},
        MoE: {"w_init": inits.lecun_normal()},
        RNN: _FLAX_RECURRENT,
        GRU: _FLAX_RECURRENT,
        LSTM: {**_FLAX_RECURRENT, "forget_bias": 0.0},
        ConvLSTM: {**_FLAX_AFFINE, "hidden_init": inits.lecun_normal(), "forget_bias": 0.0},
        Embedding: {"table_init": inits.VarianceScaling(1.0, "fan_in", "normal")},
        PRelu: {"slope_init": inits.Constant(0.01)},
    },
}


def init_preset(layer: L, preset: Literal["torch", "flax"]) -> L:
    """The same model with every layer's initializers replaced by the defaults of torch or of flax.

    Layers are found in fields and in tuples, at any depth. Only initializers change, those that you chose too: where
    some should stay, apply the preset first and `dataclasses.replace` them afterwards. Layers of your own keep theirs;
    the layers inside them do not. Numbers that are not initial weights, such as eps, stay as well.
    `docs/initializers.md` has the table.

    >>> import jax
    >>> from dlkit import nn
    >>> model = init_preset(nn.Chain(nn.Linear(100, 50), nn.Relu(), head=nn.Linear(50, 2)), "torch")
    >>> bool(abs(model.init(jax.random.key(0))["linear1"]["b"]).max() <= 0.1)
    True

    Raises:
      ValueError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"init_preset got {preset!r}; expected one of {', '.join(map(repr, PRESETS))}")
    return _replaced(layer, PRESETS[preset])


def _replaced(value: Any, table: Mapping[type[Layer], Fields | Callable[[Any], Fields]]) -> Any:
    if isinstance(value, tuple) and any(isinstance(v, Layer | tuple) for v in value):
        return tuple(_replaced(v, table) for v in value)
    if not isinstance(value, Layer):
        return value
    if isinstance(value, Recipe):
        # What it builds has the same parameters, and shows the initializers of every layer inside.
        return _replaced(value.build(), table)
    if isinstance(value, Chain):
        # Its constructor takes layers by name, so the fields cannot be replaced one by one.
        return type(value)(**{name: _replaced(child, table) for name, child in value.children().items()})
    held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}  # pyright: ignore
    own = table.get(type(value), {})
    changes = {name: _replaced(v, table) for name, v in held.items()} | dict(own(value) if callable(own) else own)
    changed = {name: v for name, v in changes.items() if v is not held[name]}
    return dataclasses.replace(value, **changed) if changed else value  # pyright: ignore
