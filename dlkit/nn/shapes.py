"""Layers that move or rescale numbers and learn nothing: identity, flatten, reshape, permute, rescale."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.nn.checks import check_array, check_rank, describe
from dlkit.nn.layer import Pure

__all__ = ["Flatten", "Identity", "Permute", "Rescale", "Reshape"]


@dataclass(frozen=True)
class Identity(Pure[Any]):
    """`y = x`, of any shape and dtype: where a layer is expected and none is wanted.

    >>> Identity()({}, jnp.arange(3))
    Array([0, 1, 2], dtype=int32)
    """

    def __call__(self, params: Any, x: Any) -> Any:
        return x


@dataclass(frozen=True)
class Flatten(Pure[Any]):
    """The last `dims` axes become one, in row-major order; the axes in front of them are free.

    The default takes images: x `[..., H, W, C]`, y `[..., H W C]`. torch's and Keras' `Flatten` keep the first axis and
    flatten the others, which is the same for a batch of images; torch flattens them channels first, so the rows of a
    linear layer behind it stand in another order.

    >>> Flatten()({}, jnp.ones((5, 4, 4, 3))).shape
    (5, 48)
    >>> Flatten(dims=2)({}, jnp.ones((5, 4, 4, 3))).shape
    (5, 4, 12)

    Raises:
      ValueError: x has fewer than `dims` axes, or `dims` is below 1.
    """

    dims: int = 3

    def __post_init__(self) -> None:
        if self.dims < 1:
            raise ValueError(f"{describe(self)}: expected dims of at least 1")

    def __call__(self, params: Any, x: Array) -> Array:
        _check_rank(self, x, self.dims, f"dims={self.dims}")
        keep = x.ndim - self.dims
        return x.reshape(*x.shape[:keep], math.prod(x.shape[keep:]))


@dataclass(frozen=True)
class Reshape(Pure[Any]):
    """The last `dims` axes take the shape `shape`, in row-major order: the inverse of `Flatten` at the default of 1.

    >>> Reshape((4, 4, 3))({}, jnp.ones((5, 48))).shape
    (5, 4, 4, 3)

    Raises:
      ValueError: x has fewer than `dims` axes, or another number of elements in them than `shape`.
    """

    shape: tuple[int, ...]
    dims: int = 1

    def __call__(self, params: Any, x: Array) -> Array:
        _check_rank(self, x, self.dims, f"dims={self.dims}")
        keep = x.ndim - self.dims
        if math.prod(x.shape[keep:]) != math.prod(self.shape):
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected {math.prod(self.shape)} elements in the last "
                f"{self.dims} axes because shape={self.shape}, got {math.prod(x.shape[keep:])}"
            )
        return x.reshape(*x.shape[:keep], *self.shape)


@dataclass(frozen=True)
class Permute(Pure[Any]):
    """The last axes in another order: axis i of y, among the last `len(axes)`, is axis `axes[i]` of x among them.

    Counted from 0, as `jnp.transpose`; the axes in front are free. Keras' `Permute` counts from 1 behind the batch.

    >>> Permute((2, 0, 1))({}, jnp.ones((5, 8, 6, 3))).shape
    (5, 3, 8, 6)

    Raises:
      ValueError: axes that are not each of 0 .. n-1 once, or x with fewer axes.
    """

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.axes) != list(range(len(self.axes))):
            raise ValueError(
                f"{describe(self)}: expected each of 0 to {len(self.axes) - 1} once because it names the last "
                f"{len(self.axes)} axes of x, counted from 0"
            )

    def __call__(self, params: Any, x: Array) -> Array:
        _check_rank(self, x, len(self.axes), f"axes={self.axes}")
        keep = x.ndim - len(self.axes)
        return x.transpose(*range(keep), *(keep + axis for axis in self.axes))


@dataclass(frozen=True)
class Rescale(Pure[Any]):
    """`y = scale x + shift`, with fixed numbers: turns the integers of images into floats inside the model.

    x of any shape. Integers become float32 first; floats keep their dtype. The default maps bytes to [0, 1];
    `Rescale(1 / 127.5, -1.0)` maps them to [-1, 1]. Keras: `Rescaling(scale, offset)`.

    >>> Rescale()({}, jnp.array([0, 255], jnp.uint8))
    Array([0., 1.], dtype=float32)
    """

    scale: float = 1 / 255
    shift: float = 0.0

    def __call__(self, params: Any, x: Any) -> Float[Array, "..."]:
        check_array(self, x)
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            x = x.astype(jnp.float32)
        return x * self.scale + self.shift


def _check_rank(layer: Any, x: Array, least: int, because: str) -> None:
    check_rank(layer, x, f"at least {least} {'axis' if least == 1 else 'axes'}", least, because)
