"""Piecewise activations as layers: elementwise, straight pieces, nothing learned.

Each raises a TypeError where x is not floating point. Derivatives, at the knots too, stand with the functions of the
same names in `dlkit.functional`.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.activations import real
from dlkit.nn.layer import Pure

__all__ = [
    "HardShrink",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "LeakyRelu",
    "Relu",
    "Relu6",
    "SoftShrink",
    "Threshold",
]


@dataclass(frozen=True)
class HardShrink(Pure[Any]):
    """`y = x` where `|x| > lambd`, else 0.

    >>> HardShrink()({}, jnp.array([-1.0, 0.25]))
    Array([-1.,  0.], dtype=float32)
    """

    lambd: float = 0.5

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.hard_shrink(real(self, x), self.lambd)


@dataclass(frozen=True)
class HardSigmoid(Pure[Any]):
    """`y = min(max(x + 3, 0), 6) / 6`.

    >>> [round(y, 3) for y in HardSigmoid()({}, jnp.array([-4.0, 1.5])).tolist()]
    [0.0, 0.75]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.hard_sigmoid(real(self, x))


@dataclass(frozen=True)
class HardSwish(Pure[Any]):
    """`y = x min(max(x + 3, 0), 6) / 6`.

    >>> [round(y, 3) for y in HardSwish()({}, jnp.array([1.5, 4.0])).tolist()]
    [1.125, 4.0]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.hard_swish(real(self, x))


@dataclass(frozen=True)
class HardTanh(Pure[Any]):
    """`y = min(max(x, low), high)`.

    >>> HardTanh()({}, jnp.array([-3.0, 0.5]))
    Array([-1. ,  0.5], dtype=float32)
    """

    low: float = -1.0
    high: float = 1.0

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.hard_tanh(real(self, x), self.low, self.high)


@dataclass(frozen=True)
class LeakyRelu(Pure[Any]):
    """`y = x` where x > 0, else `negative_slope x`. The slope is 0.01 in torch and flax too, 0.3 in Keras.

    >>> [round(y, 3) for y in LeakyRelu()({}, jnp.array([-1.0, 2.0])).tolist()]
    [-0.01, 2.0]
    """

    negative_slope: float = 0.01

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.leaky_relu(real(self, x), self.negative_slope)


@dataclass(frozen=True)
class Relu(Pure[Any]):
    """`y = max(x, 0)`.

    >>> Relu()({}, jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.relu(real(self, x))


@dataclass(frozen=True)
class Relu6(Pure[Any]):
    """`y = min(max(x, 0), 6)`.

    >>> [round(y, 3) for y in Relu6()({}, jnp.array([-1.0, 9.0])).tolist()]
    [0.0, 6.0]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.relu6(real(self, x))


@dataclass(frozen=True)
class SoftShrink(Pure[Any]):
    """`y = sign(x) max(|x| - lambd, 0)`.

    >>> SoftShrink()({}, jnp.array([-1.0, 0.25]))
    Array([-0.5,  0. ], dtype=float32)
    """

    lambd: float = 0.5

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.soft_shrink(real(self, x), self.lambd)


@dataclass(frozen=True)
class Threshold(Pure[Any]):
    """`y = x` where `x > threshold`, else `value`.

    >>> Threshold(1.0, -7.0)({}, jnp.array([0.5, 2.0]))
    Array([-7.,  2.], dtype=float32)
    """

    threshold: float
    value: float

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.threshold(real(self, x), self.threshold, self.value)
