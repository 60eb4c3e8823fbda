"""Pooling layers: windows or all of space reduced to one value a channel."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_float, check_space
from dlkit.nn.convolution.conv import Padding, Size
from dlkit.nn.layer import Pure

__all__ = ["AvgPool", "GlobalAvgPool", "GlobalMaxPool", "MaxPool"]

REAL = "pooling works on real numbers"


@dataclass(frozen=True)
class MaxPool(Pure[Any]):
    """The maximum of each window: x `[..., *spatial, C]`, y `[..., *out, C]`.

        y[n] = max over k of  x[n stride + k - low]

    `window` is an int, the same for all `dims` spatial axes, or a tuple with one size an axis. `stride=None` is the
    window, as in torch and Keras (flax: 1). `padding` as in `Conv`, and never the maximum. Of equal maxima the first
    gets the gradient, as in torch. With `ceil_mode`, a last window that hangs over the end counts too, as in torch.

    >>> MaxPool(2)({}, jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
    Array([ 5.,  7., 13., 15.], dtype=float32)

    Raises:
      ValueError: a window larger than the padded input, or x with fewer axes than `dims + 1`.
      TypeError: x is not floating point.
    """

    window: Size
    stride: Size | None = None
    padding: Padding = "VALID"
    ceil_mode: bool = False
    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        check_float(self, x, because=REAL)
        dims = check_space(self, x, "window")
        return functional.max_pool(x, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode, dims=dims)


@dataclass(frozen=True)
class AvgPool(Pure[Any]):
    """The mean of each window: x `[..., *spatial, C]`, y `[..., *out, C]`.

        y[n] = sum over k of  x[n stride + k - low] / count

    Fields as in `MaxPool`. `count` is the size of the window, padding included, as in torch and flax; with
    `count_include_pad=False` it is the number of places inside x, as in Keras and haiku.

    >>> AvgPool(2)({}, jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
    Array([ 2.5,  4.5, 10.5, 12.5], dtype=float32)

    Raises:
      ValueError: a window larger than the padded input, or x with fewer axes than `dims + 1`.
      TypeError: x is not floating point.
    """

    window: Size
    stride: Size | None = None
    padding: Padding = "VALID"
    count_include_pad: bool = True
    ceil_mode: bool = False
    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        check_float(self, x, because=REAL)
        return functional.avg_pool(
            x,
            self.window,
            self.stride,
            self.padding,
            count_include_pad=self.count_include_pad,
            ceil_mode=self.ceil_mode,
            dims=check_space(self, x, "window"),
        )


@dataclass(frozen=True)
class GlobalAvgPool(Pure[Any]):
    """The mean over the `dims` spatial axes: `[..., *spatial, C]` to `[..., C]`. torch: `AdaptiveAvgPool2d(1)`.

    >>> GlobalAvgPool()({}, jnp.ones((5, 4, 4, 3))).shape
    (5, 3)

    Raises:
      ValueError: x has fewer axes than `dims + 1`.
      TypeError: x is not floating point.

    Reference: Lin, Chen and Yan, Network in network, 2013, arXiv:1312.4400.
    """

    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Float[Array, "*lead c"]:
        check_float(self, x, because=REAL)
        check_space(self, x, "dims")
        return functional.global_avg_pool(x, dims=self.dims)


@dataclass(frozen=True)
class GlobalMaxPool(Pure[Any]):
    """The maximum over the `dims` spatial axes: `[..., *spatial, C]` to `[..., C]`. torch: `AdaptiveMaxPool2d(1)`.

    >>> GlobalMaxPool(dims=1)({}, jnp.ones((5, 4, 3))).shape
    (5, 3)

    Raises:
      ValueError: x has fewer axes than `dims + 1`.
      TypeError: x is not floating point.
    """

    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Float[Array, "*lead c"]:
        check_float(self, x, because=REAL)
        check_space(self, x, "dims")
        return functional.global_max_pool(x, dims=self.dims)
