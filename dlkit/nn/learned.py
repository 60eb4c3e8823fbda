"""Nonlinear layers with weights of their own: a learned slope, the best of several linear maps, a gated linear map."""

from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.activations import Silu
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Constant, Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Pure
from dlkit.nn.linear import LinearParams, init_affine
from dlkit.nn.mode import fold_name

__all__ = ["GatedLinear", "Maxout", "PRelu", "PReluParams"]


class PReluParams(TypedDict):
    slope: Float[Array, "d"]


@dataclass(frozen=True)
class PRelu(Pure[PReluParams]):
    """`y = x` where x > 0, else `slope x`, the slope learned: one for each of the `d` channels, or one for all (d=1).

    x `[..., d]`, or of any shape at d=1. Parameter: `slope` `[d]` from 0.25 as in the paper and torch; flax 0.01,
    Keras 0. It is not called `w` because the paper advises against weight decay, which would push it back to ReLU.

    >>> layer = PRelu()
    >>> layer(layer.init(jax.random.key(0)), jnp.array([-1.0, 2.0]))
    Array([-0.25,  2.  ], dtype=float32)

    Raises:
      ValueError: d is not 1 and the last axis of x is not `d`.
      TypeError: x is not floating point, or not of the slope's dtype.

    Reference: He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015, arXiv:1502.01852.
    """

    d: int = 1
    slope_init: Initializer = Constant(0.25)

    def init(self, key: Any) -> PReluParams:
        return {"slope": self.slope_init(fold_name(key, "slope"), (self.d,))}

    def __call__(self, params: PReluParams, x: Array) -> Float[Array, "*shape"]:
        if self.d != 1:
            check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["slope"])
        return functional.prelu(x, params["slope"])


@dataclass(frozen=True)
class Maxout(Pure[LinearParams]):
    """`y_c = max over k of (x w_ck + b_ck)`: the largest of `pieces` linear maps, x `[..., d_in]`, y `[..., d_out]`.

    Parameters: `w` `[d_in, d_out pieces]`, the pieces of one output side by side, and `b` `[d_out pieces]` unless
    `bias=False`. Weights start with variance `1 / d_in`, biases at 0. The gradient goes through the largest piece.

    >>> layer = Maxout(4, 3, pieces=2)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((5, 4))).shape
    (5, 3)

    Raises:
      ValueError: fewer than one piece, or the last axis of x is not `d_in`.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Goodfellow et al., Maxout networks, 2013, arXiv:1302.4389.
    """

    d_in: int
    d_out: int
    pieces: int = 2
    bias: bool = True
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        if self.pieces < 1:
            raise ValueError(f"{describe(self)}: expected at least one piece")

    def init(self, key: Any) -> LinearParams:
        return init_affine(key, self, (self.d_in, self.d_out * self.pieces), (self.d_in, self.d_out))

    def __call__(self, params: LinearParams, x: Array) -> Float[Array, "*lead {self.d_out}"]:
        check_axis(self, x, -1, self.d_in, f"d_in={self.d_in}")
        check_float(self, x, params["w"])
        return functional.maxout(functional.linear(x, params["w"], params.get("b")), self.pieces)


@dataclass(frozen=True)
class GatedLinear(Pure[Any]):
    """`y = (x w_a + b_a) * act(x w_g + b_g)`: a gated linear unit with its weights, x `[..., d_in]`, y `[..., d_out]`.

    `activation` is that of the gate: `Silu()` makes SwiGLU, `Gelu()` GEGLU, `Relu()` ReGLU, `Sigmoid()` the GLU of
    Dauphin et al. Parameters: `w` `[d_in, 2 d_out]` = [w_a, w_g], one matrix product for both, `b` `[2 d_out]` unless
    `bias=False`, and those of the activation. Weights start with variance `1 / d_in`, biases at 0.

    >>> layer = GatedLinear(4, 8, bias=False)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((5, 4))).shape
    (5, 8)

    Raises:
      ValueError: the last axis of x is not `d_in`.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Shazeer, GLU variants improve transformer, 2020, arXiv:2002.05202.
    """

    d_in: int
    d_out: int
    activation: Pure[Any] = Silu()
    bias: bool = True
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def init(self, key: Any) -> Any:
        affine = init_affine(key, self, (self.d_in, 2 * self.d_out), (self.d_in, self.d_out))
        return {**affine, "activation": self.activation.init(fold_name(key, "activation"))}

    def __call__(self, params: Any, x: Array) -> Float[Array, "*lead {self.d_out}"]:
        check_axis(self, x, -1, self.d_in, f"d_in={self.d_in}")
        check_float(self, x, params["w"])
        both = functional.linear(x, params["w"], params.get("b"))
        return both[..., : self.d_out] * self.activation(params["activation"], both[..., self.d_out :])
