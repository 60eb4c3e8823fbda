"""Layers that pad and crop spatial axes."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Shaped

from dlkit import functional
from dlkit.nn.checks import check_space, describe
from dlkit.nn.layer import Pure

__all__ = ["Crop", "Pad"]

Amount = int | tuple[int | tuple[int, int], ...]


@dataclass(frozen=True)
class Pad(Pure[Any]):
    """More at both ends of the spatial axes: x `[..., *spatial, C]`, y `[..., *out, C]`, `out = low + size + high`.

        zeros         0 0 | a b c d | 0 0        `value` in place of 0 with mode "constant"
        reflect       c b | a b c d | c b        at most size - 1
        replicate     a a | a b c d | d d
        circular      c d | a b c d | a b        at most size

    `padding` is an int for both ends of all `dims` axes, one int an axis, or one pair (low, high) an axis, the first
    spatial axis first (torch's list starts with the last). `Chain(Pad(1, "reflect"), Conv(..., padding="VALID"))` is a
    convolution of that `padding_mode`. x of any dtype.

    >>> Pad(((1, 2),), "replicate")({}, jnp.arange(3.0).reshape(1, 3, 1)).ravel()
    Array([0., 0., 1., 2., 2., 2.], dtype=float32)

    Raises:
      ValueError: an unknown mode, a negative amount, a value with another mode than "constant"; x with too few axes, or
      with less than there is to copy.
    """

    padding: Amount
    mode: str = "zeros"
    value: float = 0.0
    dims: int = 2

    def __post_init__(self) -> None:
        modes = ("zeros", "constant", "reflect", "replicate", "circular")
        if self.mode not in modes or (self.value and self.mode != "constant"):
            raise ValueError(
                f"{describe(self)}: expected mode to be one of {', '.join(map(repr, modes))}, and a value with "
                "'constant' alone"
            )

    def __call__(self, params: Any, x: Array) -> Shaped[Array, "*out"]:
        return functional.pad(x, self.padding, self.mode, self.value, dims=check_space(self, x, "padding"))


@dataclass(frozen=True)
class Crop(Pure[Any]):
    """Less at both ends of the spatial axes: the inverse of `Pad(amount)`. x of any dtype.

    >>> Crop(1)({}, jnp.ones((5, 8, 6, 3))).shape
    (5, 6, 4, 3)

    Raises:
      ValueError: a negative amount; x with too few axes, or all of one taken away.
    """

    amount: Amount
    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Shaped[Array, "*out"]:
        return functional.crop(x, self.amount, dims=check_space(self, x, "amount"))
