"""Pooling: the maximum or the mean of windows, or of all of space.

A window is a few strided slices, one for each of its places, combined elementwise: the same numbers as
`lax.reduce_window`, with a gradient that is as cheap as the forward pass (that of `reduce_window` with a maximum is a
slow scan on a CPU).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.convolution.spatial import Padding, resolve_padding, spread, window_output_size
from dlkit.functional.precision import wide_dtype

__all__ = ["avg_pool", "first_max", "global_avg_pool", "global_max_pool", "max_pool"]

Pads = tuple[tuple[int, int], ...]


def first_max(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The elementwise maximum whose gradient goes to `a` alone where both are equal; NaN where one is.

    `jnp.maximum` gives half of it to each. torch's pooling, and this, give all to the first.

    >>> first_max(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0]))
    Array([3., 2.], dtype=float32)
    """
    return jnp.where((b > a) | (b != b), b, a)


def _plan(
    who: str,
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dims: int | None,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[int, ...], Pads, Pads, tuple[int, ...]]:
    """Windows, strides, padding, the same and what the last window hangs over, and output sizes, by spatial axis."""
    if dims is None:
        dims = x.ndim - 2 if isinstance(window, int) else len(window)
    if dims < 1 or x.ndim < dims + 1:
        raise ValueError(
            f"{who}: x is {list(x.shape)} and the window {window}; want x [..., *spatial, C] with {max(dims, 1)} "
            "spatial axes (an int window means x [B, *spatial, C]: pass dims where the leading axes are more or fewer)"
        )
    windows = spread(f"{who}: window", window, dims)
    strides = windows if stride is None else spread(f"{who}: stride", stride, dims)
    sizes = x.shape[-dims - 1 : -1]
    pads = resolve_padding(padding, sizes, windows, strides, (1,) * dims, what=f"{who}: padding")
    if ceil_mode:
        out = tuple(map(_ceil_output_size, sizes, windows, strides, pads))
    else:
        out = tuple(map(window_output_size, sizes, windows, strides, (1,) * dims, pads))
    if min(out) < 1:
        raise ValueError(
            f"{who}: the window {windows} is larger than the padded input: spatial sizes {sizes}, padding {pads}"
        )
    if any(max(pad) >= n for pad, n in zip(pads, windows, strict=True)):
        raise ValueError(
            f"{who}: padding {pads} is not smaller than the window {windows}: a window would hold only padding"
        )
    ends = [(o - 1) * s + w for o, s, w in zip(out, strides, windows, strict=True)]
    reach = tuple((p[0], max(p[1], end - n - p[0])) for p, end, n in zip(pads, ends, sizes, strict=True))
    return windows, strides, pads, reach, out


def _ceil_output_size(size: int, window: int, stride: int, pad: tuple[int, int]) -> int:
    out = -(-(size + sum(pad) - window) // stride) + 1
    return out - 1 if (out - 1) * stride >= size + pad[0] else out  # a window that starts in the padding behind x


def _pad(x: Array, pads: Sequence[tuple[int, int]], value: float) -> Array:
    if not any(map(sum, pads)):
        return x
    every = ((0, 0),) * (x.ndim - len(pads) - 1) + tuple(pads) + ((0, 0),)
    return jnp.pad(x, every, constant_values=value)


def _combine(
    x: Array,
    axes: Sequence[int],
    windows: Sequence[int],
    strides: Sequence[int],
    out: Sequence[int],
    fn: Callable[[Array, Array], Array],
) -> Array:
    """`fn` over the places of each window in row-major order, as strided slices."""

    def place(offsets: Sequence[int]) -> Array:
        cut = [slice(None)] * x.ndim
        for axis, offset, n, stride in zip(axes, offsets, out, strides, strict=True):
            cut[axis] = slice(offset, offset + (n - 1) * stride + 1, stride)
        return x[tuple(cut)]

    return reduce(fn, map(place, itertools.product(*map(range, windows))))


def _pool(
    x: Array,
    windows: Sequence[int],
    strides: Sequence[int],
    out: Sequence[int],
    fn: Callable[[Array, Array], Array],
) -> Array:
    dims = len(windows)
    axes = range(x.ndim - dims - 1, x.ndim - 1)
    if math.prod(windows) <= 9:  # measured: larger windows are faster axis by axis
        return _combine(x, axes, windows, strides, out, fn)
    # Last axis first: then the first maximum of the first row that has it is the first in row-major order, as above.
    for i in reversed(range(dims)):
        x = _combine(x, axes[i : i + 1], windows[i : i + 1], strides[i : i + 1], out[i : i + 1], fn)
    return x


def max_pool(
    x: Float[Array, "*in"],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    ceil_mode: bool = False,
    dims: int | None = None,
) -> Float[Array, "*out"]:
    """The maximum of each window: `y[n] = max over k of x[n * stride + k - low]`.

    x `[..., *spatial, C]` to `[..., *out, C]`, with the sizes and the `padding` of `conv`; padding never is the
    maximum. A tuple `window` says how many spatial axes there are; an int means all between the first and the last
    axis of x, or `dims` of them. `stride=None` is the window, as in torch and Keras (flax: 1). The gradient goes to
    the maximum; where several places of a window tie, to the first in row-major order alone, as in torch. NaN wins.

    With `ceil_mode`, a last window that hangs over the end counts too, provided that it starts inside x or the padding
    in front of it: `out = ceil((size + low + high - window) / stride) + 1`, as in torch.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)

    Raises:
      ValueError: a window larger than the padded input, padding not smaller than the window, wrong numbers of axes.
    """
    windows, strides, _, reach, out = _plan("max_pool", x, window, stride, padding, dims, ceil_mode)
    return _pool(_pad(x, reach, -jnp.inf), windows, strides, out, first_max)


def avg_pool(
    x: Float[Array, "*in"],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    count_include_pad: bool = True,
    ceil_mode: bool = False,
    dims: int | None = None,
) -> Float[Array, "*out"]:
    """The mean of each window: `y[n] = sum over k of x[n * stride + k - low] / count`.

    Shapes, `window`, `stride`, `padding` and `ceil_mode` as in `max_pool`. `count` is the size of the window, padding
    included, as in torch and flax; with `count_include_pad=False` it is the number of places inside x, as in Keras and
    haiku: at a corner of ones, a 3x3 window with padding 1 gives 4/9 or 1. Where a window of `ceil_mode` hangs over x
    and its padding, nothing is counted. Sums are taken in float32 or wider.

    >>> avg_pool(jnp.ones((1, 2, 2, 1)), 3, 1, padding=1, count_include_pad=False).ravel()
    Array([1., 1., 1., 1.], dtype=float32)

    Raises:
      ValueError: a window larger than the padded input, padding not smaller than the window, wrong numbers of axes.
    """
    windows, strides, pads, reach, out = _plan("avg_pool", x, window, stride, padding, dims, ceil_mode)
    wide = wide_dtype(x.dtype)
    total = _pool(_pad(x.astype(wide), reach, 0.0), windows, strides, out, lax.add)
    counted = pads if count_include_pad else ((0, 0),) * len(pads)
    if reach == counted:
        return (total / math.prod(windows)).astype(x.dtype)
    dims = len(windows)
    count = np.ones((1,) * dims)
    for i in range(dims):
        first = np.arange(out[i]) * strides[i] - pads[i][0]
        low, high = counted[i]
        inside = np.minimum(first + windows[i], x.shape[i - dims - 1] + high) - np.maximum(first, -low)
        count = count * inside.reshape([-1 if i == j else 1 for j in range(dims)])
    share = jnp.asarray(1 / count, wide).reshape((1,) * (x.ndim - dims - 1) + (*out, 1))
    return (total * share).astype(x.dtype)


def _space(who: str, x: Array, dims: int | None) -> tuple[int, ...]:
    dims = x.ndim - 2 if dims is None else dims
    if not 1 <= dims < x.ndim:
        raise ValueError(
            f"{who}: x is {list(x.shape)} with {dims} spatial axes; want x [..., *spatial, C]. Without dims, "
            "x is [B, *spatial, C]"
        )
    return tuple(range(x.ndim - dims - 1, x.ndim - 1))


def global_avg_pool(x: Float[Array, "*in"], *, dims: int | None = None) -> Float[Array, "*out"]:
    """The mean over all spatial axes: `[B, *spatial, C]` to `[B, C]`; with `dims`, `[..., *spatial, C]` to `[..., C]`.

    >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2))
    Array([[3., 4.]], dtype=float32)

    Raises:
      ValueError: x has no spatial axis.
    """
    axes = _space("global_avg_pool", x, dims)
    return x.astype(wide_dtype(x.dtype)).mean(axes).astype(x.dtype)


def global_max_pool(x: Float[Array, "*in"], *, dims: int | None = None) -> Float[Array, "*out"]:
    """The maximum over all spatial axes: `[B, *spatial, C]` to `[B, C]`; with `dims`, `[..., *spatial, C]` to `[...,
    C]`.

    The gradient goes to the first maximum in row-major order alone, as in torch's adaptive pooling to size 1;
    `jnp.max` and torch's `amax` would share it among ties. NaN wins.

    >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2))
    Array([[6., 7.]], dtype=float32)

    Raises:
      ValueError: x has no spatial axis.
    """
    axes = _space("global_max_pool", x, dims)
    flat = x.reshape(*x.shape[: axes[0]], math.prod(x.shape[axes[0] : -1]), x.shape[-1])
    return jnp.take_along_axis(flat, jnp.argmax(flat, axis=-2, keepdims=True), axis=-2).squeeze(-2)
