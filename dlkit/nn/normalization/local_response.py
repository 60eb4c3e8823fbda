"""Normalization without parameters: by the neighbouring channels, to unit length."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_float, check_rank, describe
from dlkit.nn.layer import Pure

__all__ = ["LocalResponseNorm", "UnitNorm"]


@dataclass(frozen=True)
class LocalResponseNorm(Pure[Any]):
    """`y_c = x_c / (k + alpha / size * sum of x_j^2)^beta`, j the `size` channels from `c - size // 2` on.

    x `[..., C]`; channels beyond the ends count as 0. The numbers are torch's, where `alpha` is divided by `size`; the
    paper and TensorFlow do not divide it, so AlexNet's alpha 1e-4 at size 5 is `alpha=5e-4` here.

    >>> LocalResponseNorm(5)({}, jnp.ones((2, 8, 8, 16))).shape
    (2, 8, 8, 16)

    Raises:
      ValueError: `size` below 1.
      TypeError: x is not floating point.

    Reference: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"{describe(self)}: expected a size of at least 1, the number of channels in a window")

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        check_float(self, x, because="it is divided by a power of its squares")
        check_rank(self, x, "[..., C]", 1, "it runs over channels")
        return functional.local_response_norm(x, self.size, alpha=self.alpha, beta=self.beta, k=self.k)


@dataclass(frozen=True)
class UnitNorm(Pure[Any]):
    """`y = x / max(|x|, eps)`, the Euclidean length over the last axis: x `[..., d]`.

    torch: `F.normalize`; Keras: `UnitNormalization`, which bounds the squared length instead.

    >>> UnitNorm()({}, jnp.array([[3.0, 4.0]])) * 5
    Array([[3., 4.]], dtype=float32)

    Raises:
      TypeError: x is not floating point.
    """

    eps: float = 1e-12

    def __call__(self, params: Any, x: Array) -> Float[Array, "*shape"]:
        check_float(self, x, because="it is divided by its length")
        check_rank(self, x, "[..., d]", 1, "its last axis is a vector")
        return functional.unit_norm(x, eps=self.eps)
