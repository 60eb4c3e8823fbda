"""Adaptive pooling: windows chosen so that the output has the sizes asked for."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.functional.convolution.pooling import first_max, max_pool
from dlkit.functional.precision import wide_dtype

__all__ = ["adaptive_avg_pool", "adaptive_max_pool", "adaptive_windows"]

Sizes = int | Sequence[int | None]


def adaptive_windows(size: int, out: int) -> tuple[tuple[int, int], ...]:
    """The windows `[floor(i size / out), ceil((i + 1) size / out))` of torch: they cover the axis and may overlap.

    >>> adaptive_windows(5, 3)
    ((0, 2), (1, 4), (3, 5))
    """
    return tuple((i * size // out, -(-(i + 1) * size // out)) for i in range(out))


def output_sizes(who: str, x: Array, size: Sizes, dims: int | None) -> tuple[int, ...]:
    """The size wanted on each of the spatial axes of x `[..., *spatial, C]`; None keeps that of x."""
    if dims is None:
        dims = x.ndim - 2 if isinstance(size, int) else len(size)
    wanted = (size,) * dims if isinstance(size, int) else tuple(size)
    if dims < 1 or x.ndim < dims + 1 or len(wanted) != dims:
        raise ValueError(
            f"{who}: x is {list(x.shape)} and size {size!r}; want x [..., *spatial, C] and an int, or one size a "
            "spatial axis (an int means x [B, *spatial, C]: pass dims where the leading axes are more or fewer)"
        )
    have = x.shape[-dims - 1 : -1]
    result = tuple(n if want is None else want for want, n in zip(wanted, have, strict=True))
    if min(result) < 1 or min(have) < 1:
        raise ValueError(f"{who}: size is {size!r} and x {list(x.shape)}; want spatial sizes of at least 1 in both")
    return result


def _spans(x: Array, axis: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    spans = np.asarray(adaptive_windows(x.shape[axis], out))
    return spans[:, 0], spans[:, 1]


def _take(x: Array, places: np.ndarray, axis: int) -> Array:
    # The places are inside x: without a check, and their gradient without a bound on each of them.
    return jnp.take(x, jnp.asarray(places), axis=axis, mode="clip")


def adaptive_avg_pool(x: Float[Array, "*in"], size: Sizes, *, dims: int | None = None) -> Float[Array, "*out"]:
    """The means of windows that divide each spatial axis into `size` parts: `[..., *spatial, C]` to `[..., *size, C]`.

        y[i] = mean of x[floor(i n / size)] ... x[ceil((i + 1) n / size) - 1]        n the size of x on this axis

    `size` is an int for all spatial axes, or one an axis, where None keeps that of x. An int means all axes between the
    first and the last, or `dims` of them. As in torch; equinox' and Keras' windows are the same where size divides n,
    and torch's everywhere in Keras. Sums are taken in float32 or wider.

    >>> adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1), 3).ravel()
    Array([0.5, 2. , 3.5], dtype=float32)

    Raises:
      ValueError: a size below 1, a wrong number of sizes, x without spatial axes.
    """
    wanted = output_sizes("adaptive_avg_pool", x, size, dims)
    y = x.astype(wide_dtype(x.dtype))
    for i, out in enumerate(wanted):
        axis = x.ndim - 1 - len(wanted) + i
        n = y.shape[axis]
        if n == out:
            continue
        if n % out == 0:
            y = y.reshape(*y.shape[:axis], out, n // out, *y.shape[axis + 1 :]).mean(axis + 1)
            continue
        start, end = _spans(y, axis, out)
        column = (-1,) + (1,) * (x.ndim - 1 - axis)
        total = jnp.zeros((), y.dtype)
        for k in range(max(end - start)):
            inside = jnp.asarray((start + k < end).reshape(column))
            part = _take(y, np.minimum(start + k, end - 1), axis)
            inside = jnp.broadcast_to(inside, part.shape)
            total = total + jnp.where(inside, part, jnp.zeros((), y.dtype))
        share = jnp.asarray(1 / (end - start), y.dtype).reshape(column)
        y = total * jnp.broadcast_to(share, total.shape)
    return y.astype(x.dtype)


def adaptive_max_pool(x: Float[Array, "*in"], size: Sizes, *, dims: int | None = None) -> Float[Array, "*out"]:
    """The maxima of the windows of `adaptive_avg_pool`: `[..., *spatial, C]` to `[..., *size, C]`.

    Of equal maxima in a window the first in row-major order gets the gradient, as in torch. NaN wins.

    >>> adaptive_max_pool(jnp.arange(5.0).reshape(1, 5, 1), 3).ravel()
    Array([1., 3., 4.], dtype=float32)

    Raises:
      ValueError: a size below 1, a wrong number of sizes, x without spatial axes.
    """
    wanted = output_sizes("adaptive_max_pool", x, size, dims)
    # Last axis first: then the first maximum of the first row that has it is the first in row-major order.
    for i in reversed(range(len(wanted))):
        axis, out = x.ndim - 1 - len(wanted) + i, wanted[i]
        n = x.shape[axis]
        if n == out:
            continue
        if n % out == 0:
            x = max_pool(x, tuple(n // out if j == i else 1 for j in range(len(wanted))))
            continue
        start, end = _spans(x, axis, out)
        best = _take(x, start, axis)
        for k in range(1, max(end - start)):
            best = first_max(best, _take(x, np.minimum(start + k, end - 1), axis))
        x = best
    return x
