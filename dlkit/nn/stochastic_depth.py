"""Stochastic depth: the residual branch of some examples is left out in training."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_float, check_rank, check_rate
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode

__all__ = ["DropPath"]


@dataclass(frozen=True)
class DropPath(Layer[Any, None]):
    """In training each example is 0 with probability `rate`, else divided by `1 - rate`: the end of a residual branch.

    x `[B, ...]`: one draw for each index of the first `batch_axes` axes; 0 of them for one draw for all. The
    expectation is x. The rate usually grows with depth (`functional.linear_rates`); `Stack(block, depth,
    drop_path=rate)` does both for blocks `x + f(x)`, in a scan too. timm: `DropPath`; torchvision: `StochasticDepth`,
    mode "row"; torch, flax, haiku and equinox have none.

    >>> from dlkit import nn
    >>> model = nn.Chain(*[
    ...     nn.Residual(nn.Chain(nn.Linear(8, 8), nn.Relu(), DropPath(rate)))
    ...     for rate in nn.functional.linear_rates(0.2, 3)
    ... ])
    >>> params, x = model.init(jax.random.key(0)), jnp.ones((4, 8))
    >>> model.apply(params, None, x, nn.training(jax.random.key(1)))[0].shape
    (4, 8)

    Raises:
      ValueError: `rate` outside [0, 1]; x with fewer than `batch_axes` axes; training without a key, unless
        `rate` is 0.
      TypeError: x is not floating point.

    Reference: Huang, Sun, Liu, Sedra and Weinberger, Deep networks with stochastic depth, 2016, arXiv:1603.09382.
    """

    rate: float
    batch_axes: int = 1

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because="what is kept is divided by 1 - rate")
        check_rank(self, x, "the axes of the batch", self.batch_axes, f"batch_axes={self.batch_axes}")
        key = mode.rng("drop_path") if self.rate > 0 else None
        return functional.drop_path(key, x, self.rate, batch_axes=self.batch_axes), None
