"""Layers that change spatial sizes and compute nothing that is learned: upsampling, shuffles, adaptive pooling."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float, Shaped

from dlkit import functional
from dlkit.functional.convolution.resize import METHODS
from dlkit.nn.checks import check_float, check_multiple, check_space, describe
from dlkit.nn.layer import Pure

__all__ = ["AdaptiveAvgPool", "AdaptiveMaxPool", "ChannelShuffle", "PixelShuffle", "PixelUnshuffle", "Upsample"]

REAL = "pooling works on real numbers"


@dataclass(frozen=True)
class _Adaptive(Pure[Any]):
    size: int | tuple[int | None, ...]
    dims: int = 2

    def __post_init__(self) -> None:
        sizes = (self.size,) if isinstance(self.size, int) else self.size
        if not sizes or any(n is not None and n < 1 for n in sizes):
            raise ValueError(f"{describe(self)}: expected sizes of at least 1, or None to keep that of x")


@dataclass(frozen=True)
class AdaptiveAvgPool(_Adaptive):
    """The means of windows that give the spatial sizes `size`: x `[..., *spatial, C]`, y `[..., *size, C]`.

        y[i] = mean of x[floor(i n / size)] ... x[ceil((i + 1) n / size) - 1]        n the size of x on this axis

    `size` is an int for all `dims` axes, or one an axis, where None keeps that of x. The windows are torch's and may
    overlap. The model then takes images of any size, with one compilation for each.

    >>> AdaptiveAvgPool(2)({}, jnp.ones((5, 7, 9, 3))).shape
    (5, 2, 2, 3)

    Raises:
      ValueError: a size below 1; x with fewer axes than `dims + 1`.
      TypeError: x is not floating point.
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        check_float(self, x, because=REAL)
        return functional.adaptive_avg_pool(x, self.size, dims=check_space(self, x, "size"))


@dataclass(frozen=True)
class AdaptiveMaxPool(_Adaptive):
    """The maxima of the windows of `AdaptiveAvgPool`: x `[..., *spatial, C]`, y `[..., *size, C]`.

    Of equal maxima the first gets the gradient, as in torch.

    >>> AdaptiveMaxPool((None, 2))({}, jnp.ones((5, 7, 9, 3))).shape
    (5, 7, 2, 3)

    Raises:
      ValueError: a size below 1; x with fewer axes than `dims + 1`.
      TypeError: x is not floating point.
    """

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        check_float(self, x, because=REAL)
        return functional.adaptive_max_pool(x, self.size, dims=check_space(self, x, "size"))


@dataclass(frozen=True)
class Upsample(Pure[Any]):
    """x `[..., *spatial, C]` at other spatial sizes, `scale` times those of x, or `size`: torch's `Upsample`.

    `scale` and `size` are a number for all `dims` axes, or one an axis; give one of them. `method` is "nearest",
    "nearest-exact", "linear" (torch: linear, bilinear, trilinear by the number of axes), "cubic" or "area";
    `align_corners` and `antialias` go with linear and cubic, not with each other. `functional.resize` says where each
    looks. Keras' UpSampling2D with "bilinear" is "linear" here; its "nearest" is the same at whole scales.

    >>> Upsample(2)({}, jnp.arange(2.0).reshape(1, 1, 2, 1))[0, :, :, 0]
    Array([[0., 0., 1., 1.],
           [0., 0., 1., 1.]], dtype=float32)
    >>> Upsample(size=(5, 7), method="linear", align_corners=True)({}, jnp.ones((2, 8, 8, 3))).shape
    (2, 5, 7, 3)

    Raises:
      ValueError: an unknown method, both or neither of scale and size, align_corners or antialias with another method
      or with each other.
      TypeError: x is not floating point.
    """

    scale: int | float | tuple[int | float, ...] | None = None
    size: int | tuple[int, ...] | None = None
    method: str = "nearest"
    align_corners: bool = False
    dims: int = 2
    antialias: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"{describe(self)}: expected a method among {', '.join(map(repr, METHODS))}")
        if (self.scale is None) == (self.size is None):
            raise ValueError(f"{describe(self)}: expected either a scale or a size")
        if self.align_corners and self.method not in ("linear", "cubic"):
            raise ValueError(f"{describe(self)}: expected align_corners with method 'linear' or 'cubic' alone")
        if self.antialias and (self.align_corners or self.method not in ("linear", "cubic")):
            raise ValueError(
                f"{describe(self)}: expected antialias with method 'linear' or 'cubic' alone, and align_corners=False"
            )

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out"]:
        check_float(self, x, because="it is interpolated")
        return functional.resize(
            x,
            self.size,
            self.scale,
            self.method,
            align_corners=self.align_corners,
            antialias=self.antialias,
            dims=check_space(self, x, "scale" if self.size is None else "size"),
        )


@dataclass(frozen=True)
class PixelShuffle(Pure[Any]):
    """Channels to space: x `[..., H, W, C r r]`, y `[..., H r, W r, C]`, r the factor.

        y[h r + i, w r + j, c] = x[h, w, c r r + i r + j]

    A convolution to `C r r` channels and this is upsampling that is learned (sub-pixel convolution). The order of the
    channels is torch's; TensorFlow's and Keras' `depth_to_space` has C last.

    >>> PixelShuffle(2)({}, jnp.arange(4.0).reshape(1, 1, 1, 4))[0, :, :, 0]
    Array([[0., 1.],
           [2., 3.]], dtype=float32)

    Raises:
      ValueError: channels that `r^dims` does not divide, x with too few axes.

    Reference: Shi et al., Real-time single image and video super-resolution, 2016, arXiv:1609.05158.
    """

    factor: int
    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Shaped[Array, "*out"]:
        channels = self.factor ** check_space(self, x, "dims")
        check_multiple(self, x, -1, channels, f"factor={self.factor} moves {channels} channels to one")
        return functional.pixel_shuffle(x, self.factor, dims=self.dims)


@dataclass(frozen=True)
class PixelUnshuffle(Pure[Any]):
    """Space to channels: x `[..., H r, W r, C]`, y `[..., H, W, C r r]`, the inverse of `PixelShuffle`.

    >>> PixelUnshuffle(2)({}, jnp.ones((5, 8, 6, 3))).shape
    (5, 4, 3, 12)

    Raises:
      ValueError: spatial sizes that the factor does not divide, x with too few axes.
    """

    factor: int
    dims: int = 2

    def __call__(self, params: Any, x: Array) -> Shaped[Array, "*out"]:
        for axis in range(-check_space(self, x, "dims") - 1, -1):
            check_multiple(self, x, axis, self.factor, f"factor={self.factor}")
        return functional.pixel_unshuffle(x, self.factor, dims=self.dims)


@dataclass(frozen=True)
class ChannelShuffle(Pure[Any]):
    """The channels dealt out among groups, x and y `[..., C]`: `y[..., k groups + g] = x[..., g (C / groups) + k]`.

    >>> ChannelShuffle(2)({}, jnp.arange(6.0))
    Array([0., 3., 1., 4., 2., 5.], dtype=float32)

    Raises:
      ValueError: groups that do not divide the channels.

    Reference: Zhang, Zhou, Lin and Sun, ShuffleNet, 2017, arXiv:1707.01083.
    """

    groups: int

    def __call__(self, params: Any, x: Array) -> Shaped[Array, "*shape"]:
        check_multiple(self, x, -1, self.groups, f"groups={self.groups}")
        return functional.channel_shuffle(x, self.groups)
