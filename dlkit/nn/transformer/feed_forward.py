"""The position-wise networks of a Transformer: two linear maps with an activation between, plain or gated."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.activations import Silu
from dlkit.nn.checks import check_axis, check_float, check_rate, describe
from dlkit.nn.initializers import Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Layer
from dlkit.nn.linear import Linear
from dlkit.nn.mode import Mode
from dlkit.nn.piecewise import Relu

__all__ = ["FeedForward", "GatedFeedForward"]


class _FeedForward(Layer[Any, None]):
    d: int
    hidden: int
    activation: Layer
    rate: float
    bias: bool
    w_init: Initializer
    out_init: Initializer
    b_init: Initializer
    replaced: tuple[tuple[str, Layer], ...]
    inner: tuple[str, ...]  # not a field: the maps into the hidden layer; the first is activated, others multiply it

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"{describe(self)}: expected at least one hidden unit")
        check_rate(self)

    def parts(self) -> dict[str, Any]:
        inward = Linear(self.d, self.hidden, self.bias, self.w_init, self.b_init)
        outward = Linear(self.hidden, self.d, self.bias, self.out_init, self.b_init)
        own = {**dict.fromkeys(self.inner, inward), "down": outward, "activation": self.activation}
        return own | dict(self.replaced)

    def _run(self, params: Any, x: Array, mode: Mode) -> Array:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["down"]["w"])
        parts = self.parts()
        first, *rest = (parts[name](params[name], x) for name in self.inner)
        h = parts["activation"](params["activation"], first)
        for factor in rest:
            h = h * factor
        h = functional.dropout(mode.rng("dropout") if self.rate > 0 else None, h, self.rate)
        return parts["down"](params["down"], h)


@dataclass(frozen=True)
class FeedForward(_FeedForward):
    """`y = dropout(act(x W_up + b_up)) W_down + b_down` at every position: x `[..., d]`, `hidden` units, y `[..., d]`.

    `activation` is `Relu()` as in the paper and torch's layers; BERT and GPT have `Gelu()`. In training a hidden unit
    is dropped with probability `rate`, drawn from `mode.rng("dropout")`.

    Parameters: `up/w` `[d, hidden]`, `down/w` `[hidden, d]`, their `b` unless `bias=False`, and those of `activation`.
    In torch's Transformer layers they are `linear1` and `linear2`. `out_init` draws `down/w`. `replaced` names layers
    in place of `up` and `down`, as `nn.lora` does.

    >>> from dlkit.nn import EVAL
    >>> layer = FeedForward(4, 16)
    >>> layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((2, 5, 4)), EVAL)[0].shape
    (2, 5, 4)

    Raises:
      ValueError: no hidden unit, a rate outside [0, 1], or the last axis of x is not `d`.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762, section 3.3.
    """

    d: int
    hidden: int
    activation: Layer = Relu()
    rate: float = 0.0
    bias: bool = True
    w_init: Initializer = lecun_normal()
    out_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()
    replaced: tuple[tuple[str, Layer], ...] = ()

    inner = ("up",)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*lead {self.d}"], None]:
        return self._run(params, x, mode), None


@dataclass(frozen=True)
class GatedFeedForward(_FeedForward):
    """`y = dropout(act(x W_gate) * (x W_up)) W_down` at every position: x `[..., d]`, `hidden` units, y `[..., d]`.

    `activation=Silu()` makes SwiGLU (Llama, Mistral), `Gelu()` GEGLU (T5 1.1, Gemma), `Relu()` ReGLU. It has three
    matrices: with `hidden` two thirds of a plain network's, both have as many weights. Dropout as in `FeedForward`.

    Parameters: `gate/w` and `up/w` `[d, hidden]`, `down/w` `[hidden, d]`, their `b` with `bias=True`, and those of
    `activation`. They are Llama's `gate_proj`, `up_proj`, `down_proj`, transposed. `GatedLinear` is the gated map
    alone, with both matrices side by side in one. `replaced` names layers in place of the three, as `nn.lora` does.

    >>> from dlkit.nn import EVAL
    >>> layer = GatedFeedForward(4, 16)
    >>> params = layer.init(jax.random.key(0))
    >>> sorted(params), layer.apply(params, None, jnp.ones((2, 5, 4)), EVAL)[0].shape
    (['activation', 'down', 'gate', 'up'], (2, 5, 4))

    Raises:
      ValueError: no hidden unit, a rate outside [0, 1], or the last axis of x is not `d`.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Shazeer, GLU variants improve transformer, 2020, arXiv:2002.05202.
    """

    d: int
    hidden: int
    activation: Layer = Silu()
    rate: float = 0.0
    bias: bool = False
    w_init: Initializer = lecun_normal()
    out_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()
    replaced: tuple[tuple[str, Layer], ...] = ()

    inner = ("gate", "up")

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*lead {self.d}"], None]:
        return self._run(params, x, mode), None
