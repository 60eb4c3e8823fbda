"""Scale and shift computed from another input: FiLM, and norms conditioned by it."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, Zeros
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.linear import LinearParams, init_affine
from dlkit.nn.mode import Mode

__all__ = ["ConditionalNorm", "Film"]


@dataclass(frozen=True)
class Film(Pure[LinearParams]):
    """`y = x (1 + scale) + shift`, `[scale, shift] = cond w + b`: features modulated by another input.

    x `[*lead, ..., d]` and the keyword `cond` `[*lead, d_cond]`, its leading axes the first ones of x (say, the batch);
    the axes between share scale and shift. Parameters: `w` `[d_cond, 2 d]`, `b` `[2 d]`, both from 0, so that at first
    y = x. The paper's gamma is `1 + scale`.

    >>> layer = Film(3, 4)
    >>> params, x = layer.init(jax.random.key(0)), jnp.ones((2, 8, 8, 4))
    >>> bool((layer(params, x, cond=jnp.ones((2, 3))) == x).all())
    True

    Raises:
      ValueError: no `cond`; the last axis of x is not `d`, or that of cond not `d_cond`; cond's leading axes are not
        the first ones of x.
      TypeError: x or cond is not floating point, or not of the weights' dtype.

    Reference: Perez et al., FiLM: visual reasoning with a general conditioning layer, 2017, arXiv:1709.07871.
    """

    d_cond: int
    d: int
    w_init: Initializer = Zeros()
    b_init: Initializer = Zeros()
    bias: bool = True

    def init(self, key: Any) -> LinearParams:
        return init_affine(key, self, (self.d_cond, 2 * self.d), (self.d_cond, 2 * self.d))

    def __call__(self, params: LinearParams, x: Array, *, cond: Array | None = None) -> Float[Array, "*lead {self.d}"]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["w"])
        if cond is None:
            raise ValueError(f"{describe(self)} got no `cond`: expected the keyword cond of shape [..., {self.d_cond}]")
        check_axis(self, cond, -1, self.d_cond, f"d_cond={self.d_cond}", name="cond")
        check_float(self, cond, params["w"], name="cond")
        lead = cond.shape[:-1]
        if x.shape[: len(lead)] != lead or len(lead) >= x.ndim:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape} and cond of shape {cond.shape}: expected the first axes of "
                f"x to be {list(lead)} because cond has them in front of its features, got {list(x.shape[: len(lead)])}"
            )
        both = functional.linear(cond, params["w"], params.get("b"))
        both = both.reshape(*lead, *(1,) * (x.ndim - 1 - len(lead)), 2 * self.d)
        return x * (1 + both[..., : self.d]) + both[..., self.d :]


@dataclass(frozen=True)
class ConditionalNorm(Layer[Any, Any]):
    """A norm whose scale and shift come from another input, the keyword `cond`: `film(norm(x), cond)`.

    With `LayerNorm(d, affine=False)` it is AdaLN, with `InstanceNorm(d)` AdaIN, with `BatchNorm(d, affine=False)`
    conditional batch norm. Parameters and state: those of `norm` and of `film`. At first it computes the plain norm.

    >>> from dlkit.nn import EVAL, LayerNorm
    >>> layer = ConditionalNorm(LayerNorm(4, affine=False), Film(3, 4))
    >>> params, x = layer.init(jax.random.key(0)), jnp.ones((2, 5, 4))
    >>> layer.apply(params, None, x, EVAL, cond=jnp.ones((2, 3)))[0].shape
    (2, 5, 4)

    Raises:
      ValueError: see `Film`.

    References: Peebles and Xie, Scalable diffusion models with transformers, 2022, arXiv:2212.09748; Huang and
    Belongie, Arbitrary style transfer in real-time with adaptive instance normalization, 2017, arXiv:1703.06868.
    """

    norm: Layer
    film: Film

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, *, cond: Array | None = None) -> tuple[Any, Any]:
        held = child_state(state, "norm")
        y, after = self.norm.apply(params["norm"], held, x, mode.at("norm"))
        return self.film(params["film"], y, cond=cond), None if after is None else {"norm": after}
