"""Smooth activations as layers: elementwise, nothing learned. y has the shape and dtype of x, whatever they are.

Each raises a TypeError where x is not floating point. Formulas with their derivatives and references stand with the
functions of the same names in `dlkit.functional`. Piecewise ones are in `piecewise`, those that
mix channels in `gates`, those that learn in `learned`.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_float
from dlkit.nn.layer import Pure

__all__ = [
    "Celu",
    "Elu",
    "Gelu",
    "LogSigmoid",
    "Mish",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softplus",
    "Softsign",
    "Squareplus",
    "Swish",
    "Tanh",
    "TanhShrink",
    "real",
]


def real(layer: Any, x: Any) -> Any:
    """`x`, once it is known to be floating point."""
    check_float(layer, x, because="activations are functions of real numbers")
    return x


@dataclass(frozen=True)
class Celu(Pure[Any]):
    """`y = x` where x > 0, else `alpha (exp(x / alpha) - 1)`.

    >>> [round(y, 3) for y in Celu()({}, jnp.array([-1.0, 2.0])).tolist()]
    [-0.632, 2.0]
    """

    alpha: float = 1.0

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.celu(real(self, x), self.alpha)


@dataclass(frozen=True)
class Elu(Pure[Any]):
    """`y = x` where x > 0, else `alpha (exp(x) - 1)`.

    >>> [round(y, 3) for y in Elu()({}, jnp.array([-1.0, 2.0])).tolist()]
    [-0.632, 2.0]
    """

    alpha: float = 1.0

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.elu(real(self, x), self.alpha)


@dataclass(frozen=True)
class Gelu(Pure[Any]):
    """`y = x Φ(x)`, Φ the normal distribution function: exact as in torch and Keras; flax defaults to the tanh
    approximation, here `approximate=True`.

    >>> [round(y, 3) for y in Gelu()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-0.159, 0.841]
    """

    approximate: bool = False

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.gelu(real(self, x), self.approximate)


@dataclass(frozen=True)
class LogSigmoid(Pure[Any]):
    """`y = log σ(x) = -log(1 + exp(-x))`.

    >>> [round(y, 3) for y in LogSigmoid()({}, jnp.array([-1.0, 0.0])).tolist()]
    [-1.313, -0.693]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.log_sigmoid(real(self, x))


@dataclass(frozen=True)
class Mish(Pure[Any]):
    """`y = x tanh(log(1 + exp(x)))`.

    >>> [round(y, 3) for y in Mish()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-0.303, 0.865]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.mish(real(self, x))


@dataclass(frozen=True)
class Selu(Pure[Any]):
    """`y = 1.0507 x` where x > 0, else `1.7581 (exp(x) - 1)`.

    >>> [round(y, 3) for y in Selu()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-1.111, 1.051]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.selu(real(self, x))


@dataclass(frozen=True)
class Sigmoid(Pure[Any]):
    """`y = σ(x) = 1 / (1 + exp(-x))`.

    >>> [round(y, 3) for y in Sigmoid()({}, jnp.array([-1.0, 0.0])).tolist()]
    [0.269, 0.5]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.sigmoid(real(self, x))


@dataclass(frozen=True)
class Silu(Pure[Any]):
    """`y = x σ(x)`, also called swish.

    >>> [round(y, 3) for y in Silu()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-0.269, 0.731]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.silu(real(self, x))


@dataclass(frozen=True)
class Softplus(Pure[Any]):
    """`y = log(1 + exp(beta x)) / beta`, and x itself where `beta x > threshold`, as in torch.

    >>> [round(y, 3) for y in Softplus()({}, jnp.array([-1.0, 1.0])).tolist()]
    [0.313, 1.313]
    """

    beta: float = 1.0
    threshold: float = 20.0

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.softplus(real(self, x), self.beta, self.threshold)


@dataclass(frozen=True)
class Softsign(Pure[Any]):
    """`y = x / (1 + |x|)`.

    >>> [round(y, 3) for y in Softsign()({}, jnp.array([-1.0, 3.0])).tolist()]
    [-0.5, 0.75]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.softsign(real(self, x))


@dataclass(frozen=True)
class Squareplus(Pure[Any]):
    """`y = (x + sqrt(x^2 + b)) / 2`.

    >>> Squareplus()({}, jnp.array([-1.5, 0.0]))
    Array([0.5, 1. ], dtype=float32)
    """

    b: float = 4.0

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.squareplus(real(self, x), self.b)


@dataclass(frozen=True)
class Swish(Pure[Any]):
    """`y = x σ(beta x)`: `Silu` with a sharpness.

    >>> [round(y, 3) for y in Swish()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-0.269, 0.731]
    """

    beta: float = 1.0

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.swish(real(self, x), self.beta)


@dataclass(frozen=True)
class Tanh(Pure[Any]):
    """`y = tanh(x)`.

    >>> [round(y, 3) for y in Tanh()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-0.762, 0.762]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.tanh(real(self, x))


@dataclass(frozen=True)
class TanhShrink(Pure[Any]):
    """`y = x - tanh(x)`.

    >>> [round(y, 3) for y in TanhShrink()({}, jnp.array([-1.0, 1.0])).tolist()]
    [-0.238, 0.238]
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        return functional.tanh_shrink(real(self, x))
