"""Resizing images and signals: nearest, linear, cubic, area, with torch's positions."""

import math
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.convolution.adaptive import adaptive_avg_pool, output_sizes
from dlkit.functional.convolution.padding import pad
from dlkit.functional.precision import wide_dtype

__all__ = ["resize"]

METHODS = ("nearest", "nearest-exact", "linear", "cubic", "area")


def resize(
    x: Float[Array, "*in"],
    size: int | Sequence[int] | None = None,
    scale: int | float | Sequence[int | float] | None = None,
    method: str = "nearest",
    *,
    align_corners: bool = False,
    antialias: bool = False,
    dims: int | None = None,
) -> Float[Array, "*out"]:
    """x `[..., *spatial, C]` at other spatial sizes, as torch's `interpolate`: give `size`, or `scale` and `out =
    floor(n scale)`.

    Output place i stands at the place `p` of x, with `s = n / out` if `size` is given and `1 / scale` if `scale` is:

        p = s (i + 1/2) - 1/2          linear (not below 0), cubic: pixels are areas, their centers are compared
        p = i (n - 1) / (out - 1)      with `align_corners`: pixels are points, the outermost ones stay
        p = floor(s i)                 nearest: torch's, which looks at the left edge of a pixel, not at its center
        p = floor(s (i + 1/2))         nearest-exact: the center, as in jax.image, Keras, PIL

    "linear" weighs the 2 neighbours on each axis (torch: linear, bilinear, trilinear), "cubic" 4 with Keys' kernel at
    a = -0.75, as torch and OpenCV (jax.image and PIL: -0.5), and the border repeated. "area" is `adaptive_avg_pool`.
    Nothing is smoothed before it is made smaller, unless `antialias` (jax.image's default): then the kernel of linear
    or cubic is as wide as s pixels where s > 1, as in PIL, Keys' a is -0.5, and at a border the weights of the pixels
    that exist are divided by their sum: torch's `antialias=True` and `jax.image.resize`.

    An int means all axes between the first and the last, or `dims` of them. Weights and sums are in float32 or wider.

    >>> resize(jnp.arange(3.0).reshape(1, 3, 1), 6, method="linear").ravel()
    Array([0.  , 0.25, 0.75, 1.25, 1.75, 2.  ], dtype=float32)
    >>> resize(jnp.ones((2, 4, 4, 3)), scale=2).shape
    (2, 8, 8, 3)

    Raises:
      ValueError: an unknown method, both or neither of size and scale, sizes below 1, a wrong number of them, or
      align_corners or antialias where it has no meaning.

    Reference: Keys, Cubic convolution interpolation for digital image processing, 1981.
    """
    if method not in METHODS:
        raise ValueError(f"resize: method is {method!r}; want one of {', '.join(map(repr, METHODS))}")
    if (size is None) == (scale is None):
        raise ValueError(f"resize: size is {size!r} and scale {scale!r}; want one of them and not the other")
    if align_corners and method not in ("linear", "cubic"):
        raise ValueError(f"resize: align_corners with method {method!r} has no meaning; want 'linear' or 'cubic'")
    if antialias and (align_corners or method not in ("linear", "cubic")):
        raise ValueError(
            f"resize: antialias with method {method!r}, align_corners={align_corners} has no meaning; want 'linear' or "
            "'cubic', and align_corners=False"
        )
    wanted, steps = _geometry(x, size, scale, dims)
    if method == "area":
        return adaptive_avg_pool(x, wanted)
    y = x if method.startswith("nearest") else x.astype(wide_dtype(x.dtype))
    for axis, (out, step) in enumerate(zip(wanted, steps, strict=True), x.ndim - 1 - len(wanted)):
        n = x.shape[axis]
        if method.startswith("nearest"):
            y = _take(y, _nearest(n, out, step, method == "nearest-exact"), axis)
        elif antialias:
            y = y if n == out and step == 1 else _smoothed(y, out, step, axis, method)
        elif not align_corners and out % n == 0 and out > n and step * out == n:
            y = _whole(y, out // n, axis, method)
        elif n != out or step != 1:
            y = _weighted(y, _positions(n, out, step, align_corners, y.dtype), axis, method)
    return y.astype(x.dtype)


def _geometry(
    x: Array, size: int | Sequence[int] | None, scale: int | float | Sequence[int | float] | None, dims: int | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output sizes, and the size of an output pixel in pixels of x."""
    if scale is None:
        wanted = output_sizes("resize", x, size if size is not None else (), dims)
        have = x.shape[x.ndim - 1 - len(wanted) : -1]
        return wanted, tuple(n / out for n, out in zip(have, wanted, strict=True))
    count = (x.ndim - 2 if dims is None else dims) if isinstance(scale, int | float) else len(scale)
    scales = (scale,) * count if isinstance(scale, int | float) else tuple(scale)
    if min(scales, default=0) <= 0 or (dims or count) != count or x.ndim < count + 1:
        raise ValueError(
            f"resize: scale is {scale!r} and x {list(x.shape)}; want x [..., *spatial, C] and a positive number, or "
            "one a spatial axis"
        )
    have = x.shape[x.ndim - 1 - count : -1]
    wanted = output_sizes("resize", x, tuple(math.floor(n * s) for n, s in zip(have, scales, strict=True)), count)
    return wanted, tuple(1 / s for s in scales)


def _nearest(n: int, out: int, step: float, exact: bool) -> np.ndarray:
    # In float32 whatever the dtype, as torch has it: elsewhere a place that falls on an edge may go to the other side.
    at = np.arange(out, dtype=np.float32) + np.float32(0.5 if exact else 0)
    return np.minimum(np.floor(at * np.float32(step)), n - 1).astype(np.int32)


def _positions(n: int, out: int, step: float, align_corners: bool, dtype: np.dtype) -> np.ndarray:
    at = np.arange(out, dtype=dtype)
    if align_corners:
        return at * dtype.type((n - 1) / max(out - 1, 1))
    half = dtype.type(0.5)
    return dtype.type(step) * (at + half) - half


def _weighted(y: Array, at: np.ndarray, axis: int, method: str) -> Array:
    """The sum of neighbours on one axis, with the weights of the positions `at`."""
    n = y.shape[axis]
    if method == "linear":
        at = np.maximum(at, 0)
        low = np.minimum(np.floor(at), n - 1).astype(np.int32)
        part = np.clip(at - low, 0, 1)
        taps = ((low, 1 - part), (np.minimum(low + 1, n - 1), part))
    else:
        low = np.floor(at).astype(np.int32)
        part = at - low
        taps = tuple((np.clip(low + k, 0, n - 1), _keys(np.abs(part - k))) for k in (-1, 0, 1, 2))
    column = (1,) * axis + (-1,) + (1,) * (y.ndim - 1 - axis)
    total = jnp.zeros((), y.dtype)
    for places, weights in taps:
        total = total + _take(y, places, axis) * jnp.asarray(weights, y.dtype).reshape(column)
    return total


def _smoothed(y: Array, out: int, step: float, axis: int, method: str) -> Array:
    """One axis times a matrix `[n, out]`: the kernel, `max(step, 1)` wide, around the place of each output."""
    centers = step * (np.arange(out) + 0.5)
    t = np.abs(np.arange(y.shape[axis])[:, None] + 0.5 - centers) / max(step, 1.0)
    weights = np.maximum(1 - t, 0) if method == "linear" else np.where(t < 2, _keys(t, -0.5), 0)
    weights = jnp.asarray(weights / weights.sum(0), y.dtype)
    return jnp.moveaxis(jnp.tensordot(y, weights, (axis, 0), precision=lax.Precision.HIGHEST), -1, axis)


def _whole(y: Array, factor: int, axis: int, method: str) -> Array:
    """The same where the size grows by a whole factor: all places of a phase look alike, so slices do without a gather,
    and their gradient without a scatter."""
    n, phases = y.shape[axis], []
    reach = 1 if method == "linear" else 2
    ends = tuple((reach, reach) if i == axis else (0, 0) for i in range(y.ndim - 1))
    wide = pad(y, ends, "replicate")
    for phase in range(factor):
        at = (2 * phase + 1 - factor) / (2 * factor)
        low = -1 if at < 0 else 0
        taps = {0: low + 1 - at, 1: at - low}
        if method == "cubic":
            taps = dict(enumerate(_keys(np.abs(at - low - np.arange(-1, 3))).tolist(), start=-1))
        starts = {reach + low + k: weight for k, weight in taps.items() if weight}
        parts = [lax.slice_in_dim(wide, i, i + n, axis=axis) * jnp.asarray(t, y.dtype) for i, t in starts.items()]
        phases.append(reduce(jnp.add, parts))
    return jnp.stack(phases, axis + 1).reshape(*y.shape[:axis], n * factor, *y.shape[axis + 1 :])


def _keys(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The weight of a neighbour at the distance t, from 0 to 2."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, far)


def _take(y: Array, places: np.ndarray, axis: int) -> Array:
    """`y[places]` on one axis; where a copy or a stride says the same, that: its gradient needs no scatter."""
    n, out = y.shape[axis], len(places)
    if out % n == 0 and np.array_equal(places, np.arange(out) // (out // n)):
        return jnp.repeat(y, out // n, axis=axis)
    if n % out == 0 and np.array_equal(places, np.arange(out) * (n // out)):
        return y[(slice(None),) * axis + (slice(None, None, n // out),)]
    return jnp.take(y, jnp.asarray(places), axis=axis, mode="clip")
