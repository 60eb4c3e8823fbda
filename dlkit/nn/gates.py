"""Activations that combine channels: gated units and maps onto the simplex, nothing learned.

Each raises a TypeError where x is not floating point. The gated ones take the second half of an axis as the gate, as
torch's `GLU` does; formulas with their derivatives and references stand with the functions in `dlkit.functional`.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.activations import real
from dlkit.nn.checks import check_multiple
from dlkit.nn.layer import Pure

__all__ = [
    "Crelu",
    "Geglu",
    "Glu",
    "LogSoftmax",
    "Reglu",
    "Softmax",
    "Softmin",
    "Sparsemax",
    "Swiglu",
]


def _whole(layer: Any, x: Any) -> Any:
    """`x`, once it is known to have the layer's axis."""
    check_multiple(layer, real(layer, x), layer.axis, 1, f"axis={layer.axis}")
    return x


def _halves(layer: Any, x: Any) -> Any:
    """`x`, once it is known to have two halves along the layer's axis."""
    check_multiple(layer, real(layer, x), layer.axis, 2, "one half gates the other")
    return x


@dataclass(frozen=True)
class Crelu(Pure[Any]):
    """`y = [max(x, 0), max(-x, 0)]` along `axis`, whose size doubles: `[..., d]` to `[..., 2 d]`.

    >>> Crelu()({}, jnp.array([-1.0, 2.0]))
    Array([0., 2., 1., 0.], dtype=float32)
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        return functional.crelu(_whole(self, x), self.axis)


@dataclass(frozen=True)
class Geglu(Pure[Any]):
    """`y = a gelu(g)` with `[a, g] = x` along `axis`, whose size is halved.

    Raises a ValueError where that size is odd.

    >>> [round(y, 3) for y in Geglu()({}, jnp.array([2.0, 1.0])).tolist()]
    [1.683]
    """

    axis: int = -1
    approximate: bool = False

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        return functional.geglu(_halves(self, x), self.axis, self.approximate)


@dataclass(frozen=True)
class Glu(Pure[Any]):
    """`y = a σ(g)` with `[a, g] = x` along `axis`, whose size is halved: `[..., 2 d]` to `[..., d]`.

    Raises a ValueError where that size is odd.

    >>> Glu()({}, jnp.array([2.0, 0.0]))
    Array([1.], dtype=float32)
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        return functional.glu(_halves(self, x), self.axis)


@dataclass(frozen=True)
class LogSoftmax(Pure[Any]):
    """`y_i = x_i - log sum_j exp(x_j)` along `axis`; finite where `log(softmax(x))` is not.

    >>> [round(y, 3) for y in LogSoftmax()({}, jnp.array([0.0, 0.0])).tolist()]
    [-0.693, -0.693]
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.log_softmax(_whole(self, x), self.axis)


@dataclass(frozen=True)
class Reglu(Pure[Any]):
    """`y = a max(g, 0)` with `[a, g] = x` along `axis`, whose size is halved.

    Raises a ValueError where that size is odd.

    >>> Reglu()({}, jnp.array([2.0, 3.0]))
    Array([6.], dtype=float32)
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        return functional.reglu(_halves(self, x), self.axis)


@dataclass(frozen=True)
class Softmax(Pure[Any]):
    """`y_i = exp(x_i) / sum_j exp(x_j)` along `axis`.

    A loss on integer labels takes the scores in front of it, not these probabilities.

    >>> Softmax()({}, jnp.array([0.0, 0.0]))
    Array([0.5, 0.5], dtype=float32)
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.softmax(_whole(self, x), self.axis)


@dataclass(frozen=True)
class Softmin(Pure[Any]):
    """`y_i = exp(-x_i) / sum_j exp(-x_j)` along `axis`.

    >>> Softmin()({}, jnp.array([0.0, 0.0]))
    Array([0.5, 0.5], dtype=float32)
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.softmin(_whole(self, x), self.axis)


@dataclass(frozen=True)
class Sparsemax(Pure[Any]):
    """The nearest point of the simplex along `axis`, `y = max(x - τ, 0)` with the τ for which it sums to 1.

    >>> Sparsemax()({}, jnp.array([2.0, 1.5, -1.0]))
    Array([0.75, 0.25, 0.  ], dtype=float32)
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.sparsemax(_whole(self, x), self.axis)


@dataclass(frozen=True)
class Swiglu(Pure[Any]):
    """`y = a g σ(g)` with `[a, g] = x` along `axis`, whose size is halved.

    Raises a ValueError where that size is odd.

    >>> [round(y, 3) for y in Swiglu()({}, jnp.array([2.0, 1.0])).tolist()]
    [1.462]
    """

    axis: int = -1

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        return functional.swiglu(_halves(self, x), self.axis)
