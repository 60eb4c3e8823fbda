"""The affine layer."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float
from dlkit.nn.initializers import Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Pure
from dlkit.nn.mode import fold_name

__all__ = ["Linear", "LinearParams", "init_affine"]


class LinearParams(TypedDict):
    w: Float[Array, "d_in d_out"]
    b: NotRequired[Float[Array, "d_out"]]


@dataclass(frozen=True)
class Linear(Pure[LinearParams]):
    """`y = x w + b` on the last axis: x `[..., d_in]`, y `[..., d_out]`.

    Parameters: `w` `[d_in, d_out]` (torch stores the transpose), `b` `[d_out]` unless `bias=False`. Weights start with
    variance `1 / d_in` (LeCun), biases at 0, as in flax; torch starts both as U(-1/sqrt(d_in), 1/sqrt(d_in)), Keras the
    weights with Glorot's uniform (`init_preset`). `b_init` is given the fans of `w`.

    >>> layer = Linear(4, 2)
    >>> params = layer.init(jax.random.key(0))
    >>> layer(params, jnp.ones((5, 7, 4))).shape
    (5, 7, 2)

    Raises:
      ValueError: the last axis of x is not `d_in`.
      TypeError: x is not floating point, or not of the weights' dtype.
    """

    d_in: int
    d_out: int
    bias: bool = True
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def init(self, key: Any) -> LinearParams:
        return init_affine(key, self, (self.d_in, self.d_out), (self.d_in, self.d_out))

    def __call__(self, params: LinearParams, x: Array) -> Float[Array, "*lead {self.d_out}"]:
        check_axis(self, x, -1, self.d_in, f"d_in={self.d_in}")
        check_float(self, x, params["w"])
        return functional.linear(x, params["w"], params.get("b"))


def init_affine(key: Any, layer: Any, shape: tuple[int, ...], fans: tuple[int | float, int | float]) -> Any:
    """`w` of this shape and, where the layer has a bias, `b`, drawn by its `w_init` and `b_init` under those names."""
    params = {"w": layer.w_init(fold_name(key, "w"), shape, fans=fans)}
    if layer.bias:
        params["b"] = layer.b_init(fold_name(key, "b"), shape[-1:], fans=fans)
    return params
