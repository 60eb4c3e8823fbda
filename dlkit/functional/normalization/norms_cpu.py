"""Standardization with derivatives that a CPU computes fast.

What autodiff makes of `(x - mean) / sqrt(var + eps) * scale` reads and writes several whole arrays, and sums over the
same numbers more than once. Written out, with `c = x - mean`, `r = 1 / sqrt(var + eps)` and means over the axes that
share the statistics, the derivative is

    dy = s (r dx - mean(r dx) - c r^2 mean(c r dx)) + c r ds

Besides statistics only x is kept for it, which is centered again where it is needed: that costs less than to write the
centered array out and to read it back. The variance is taken in two passes, `mean((x - mean)^2)`.

`standardize_rows` is for statistics over the axes that have a scale (layer norm): one kernel for the gradient in x, one
for that of the scale. `standardize_channels` is for statistics over space, or over the batch too, with a scale for each
channel (batch, group and instance norm): all it needs of x are sums for each channel, in the forward pass

    sum x,  sum (x - mean)^2        and backward, with g = dL/dy,        P = sum g,  Q = sum g c

Sums over the channels of a group are then sums of a few numbers; XLA would reduce the groups of `[B, N, G, C / G]` in
pieces of C / G. The gradients of scale and shift are those sums, `Q r` and `P`, and that in x is linear in g and c:
`dL/dx = u g - mean(u P) - c r^2 mean(u Q)`, u = s r.

Both are rules for the tangent, in ordinary operations: forward mode, reverse mode and their compositions follow.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from dlkit.functional.precision import wide_dtype

__all__ = ["standardize_channels", "standardize_rows"]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def standardize_rows(axes: tuple[int, ...], eps: float, center: bool, x: Array, scale: Array | None) -> Array:
    """`(x - mean) / sqrt(var + eps) * scale` over `axes`, in float32 or wider; scale broadcasts to x.

    Without `center` the mean is taken as 0 (RMS norm).

    >>> standardize_rows((1,), 1e-5, True, jnp.array([[1.0, 2.0, 3.0]]), None).round(3)
    Array([[-1.225,  0.   ,  1.225]], dtype=float32)
    """
    mean, r = _row_statistics(axes, eps, center, x)
    y = _centered(x, mean) * r
    return y if scale is None else y * scale


def _row_statistics(axes: Sequence[int], eps: float, center: bool, x: Array) -> tuple[Array | None, Array]:
    wide = x.astype(wide_dtype(x.dtype))
    mean = wide.mean(axes, keepdims=True) if center else None
    return mean, lax.rsqrt(jnp.square(_centered(x, mean)).mean(axes, keepdims=True) + eps)


def _centered(x: Array, mean: Array | None) -> Array:
    wide = x.astype(wide_dtype(x.dtype))
    return wide if mean is None else wide - mean


@partial(standardize_rows.defjvp, symbolic_zeros=True)
def _rows_tangent(axes: tuple[int, ...], eps: float, center: bool, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, scale), (dx, ds) = primals, tangents
    y = standardize_rows(axes, eps, center, x, scale)

    # Each part takes the statistics from x again: so it is one kernel, which reads x and the cotangent and no more.
    @jax.checkpoint
    def by_input(x: Array, scale: Array | None, dx: Array) -> Array:
        mean, r = _row_statistics(axes, eps, center, x)
        c, e = _centered(x, mean), r * dx.astype(r.dtype)
        # The signs are at the small factors: a minus in front of an array is one more operation on all of it.
        less = -1 / (x.size // r.size)
        out = e + c * (less * r * r * (c * e).sum(axes, keepdims=True))
        if center:
            out = out + less * e.sum(axes, keepdims=True)
        return out if scale is None else out * scale

    @jax.checkpoint
    def by_scale(x: Array, ds: Array) -> Array:
        mean, r = _row_statistics(axes, eps, center, x)
        return _centered(x, mean) * r * ds

    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(by_input(x, scale, dx))
    if scale is not None and not isinstance(ds, SymbolicZero):
        terms.append(by_scale(x, ds))
    return y, reduce(jnp.add, terms) if terms else jnp.zeros_like(y)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def standardize_channels(
    axes: tuple[int, ...], groups: int | None, eps: float, x: Array, scale: Array | None, shift: Array | None
) -> tuple[Array, Array, Array]:
    """y, mean and biased variance, in float32 or wider: statistics over `axes` of x `[..., C]`, which are not the last.

    With `groups`, C / groups neighbouring channels share them. scale and shift are `[C]`; mean and variance have the
    shape of x, but 1 along `axes`: each channel has those of its group.

    >>> y, mean, var = standardize_channels((0,), None, 0.0, jnp.array([[0.0], [2.0], [4.0]]), None, None)
    >>> mean.item(), round(var.item(), 3)
    (2.0, 2.667)
    """
    mean, var = _channel_statistics(axes, groups, x)
    y = (x.astype(mean.dtype) - mean) * _slope(var, scale, eps)
    return y if shift is None else y + _as_row(shift, y), mean, var


def _channel_statistics(axes: tuple[int, ...], groups: int | None, x: Array) -> tuple[Array, Array]:
    wide = x.astype(wide_dtype(x.dtype))
    mean = _mean(axes, groups, wide)
    return mean, _mean(axes, groups, jnp.square(wide - mean))


def _mean(axes: tuple[int, ...], groups: int | None, a: Array) -> Array:
    """Over axes and the channels of a group."""
    return _of_group(groups, a.mean(axes, keepdims=True))


def _of_group(groups: int | None, a: Array) -> Array:
    """The mean over the channels of a group, for each of them."""
    c = a.shape[-1]
    if groups is None or groups == c:
        return a
    split = (*a.shape[:-1], groups, c // groups)
    return jnp.broadcast_to(a.reshape(split).mean(-1, keepdims=True), split).reshape(a.shape)


def _as_row(p: Array, like: Array) -> Array:
    return p.astype(like.dtype).reshape((1,) * (like.ndim - 1) + p.shape)


def _slope(var: Array, scale: Array | None, eps: float) -> Array:
    r = lax.rsqrt(var + eps)
    return r if scale is None else r * _as_row(scale, var)


@partial(standardize_channels.defjvp, symbolic_zeros=True)
def _channels_tangent(axes: tuple[int, ...], groups: int | None, eps: float, primals: Any, tangents: Any) -> Any:
    (x, scale, shift), (dx, dscale, dshift) = primals, tangents
    out = y, mean, var = standardize_channels(axes, groups, eps, x, scale, shift)
    r, slope = lax.rsqrt(var + eps), _slope(var, scale, eps)

    # What is kept for it is x, not the centered array.
    @partial(jax.checkpoint, prevent_cse=False)
    def times_centered(x: Array, mean: Array, a: Array) -> Array:
        return (x.astype(mean.dtype) - mean) * a

    # Everything that is constant along the axes comes into one factor of the centered array, and into one summand: the
    # transposes of both are one sum each, which all gradients share.
    factor, summand = [], []
    dmean, dvar, dy = jnp.zeros_like(mean), jnp.zeros_like(var), jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dx = dx.astype(mean.dtype)
        dmean, half = _mean(axes, groups, dx), _mean(axes, groups, times_centered(x, mean, dx))
        dvar, dy = 2 * half, slope * dx
        factor.append(-slope * (r * r) * half)
        summand.append(-slope * dmean)
    if scale is not None and not isinstance(dscale, SymbolicZero):
        factor.append(r * _as_row(dscale, r))
    if shift is not None and not isinstance(dshift, SymbolicZero):
        summand.append(_as_row(dshift, r))
    if factor:
        dy = dy + times_centered(x, mean, reduce(jnp.add, factor))
    if summand:
        dy = dy + reduce(jnp.add, summand)
    return out, (dy, dmean, dvar)
