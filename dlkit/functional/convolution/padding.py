"""Padding and cropping of spatial axes, by a number or by what is inside."""

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

__all__ = ["crop", "pad"]

MODES = ("zeros", "constant", "reflect", "replicate", "circular")
Amount: TypeAlias = int | Sequence[int | Sequence[int]]


def _amounts(who: str, x: Array, padding: Amount, dims: int | None) -> tuple[tuple[int, int], ...]:
    """The pairs (low, high) of the spatial axes of x `[..., *spatial, C]`."""
    if dims is None:
        dims = x.ndim - 2 if isinstance(padding, int) else len(padding)
    axes = (padding,) * dims if isinstance(padding, int) else tuple(padding)
    pairs = tuple((axis, axis) if isinstance(axis, int) else tuple(axis) for axis in axes)
    right = len(pairs) == dims and all(len(p) == 2 and all(isinstance(n, int) and n >= 0 for n in p) for p in pairs)
    if dims < 1 or x.ndim < dims + 1 or not right:
        raise ValueError(
            f"{who}: x is {list(x.shape)} and the amount {padding!r}; want x [..., *spatial, C] and an int, a tuple of "
            "ints, or a tuple of pairs (low, high), one a spatial axis, none negative (an int means x [B, *spatial, "
            "C]: pass dims where the leading axes are more or fewer)"
        )
    return tuple((low, high) for low, high in pairs)


def pad(
    x: Shaped[Array, "*in"], padding: Amount, mode: str = "zeros", value: float = 0.0, *, dims: int | None = None
) -> Shaped[Array, "*out"]:
    """x `[..., *spatial, C]` with more at both ends of its spatial axes: y `[..., *out, C]`, `out = low + size + high`.

        zeros         0 0 | a b c d | 0 0        `value` in place of 0 with mode "constant"
        reflect       c b | a b c d | c b        at most size - 1
        replicate     a a | a b c d | d d
        circular      c d | a b c d | a b        at most size

    `padding` is an int (both ends of every axis), one int an axis, or one pair (low, high) an axis, the *first* spatial
    axis first; torch's list starts with the last axis. An int means all axes between the first and the last, or `dims`
    of them. numpy calls the last two "edge" and "wrap"; its "symmetric", which repeats the border, is not here. The
    gradient of a copy goes to what it copies.

    >>> pad(jnp.arange(4.0).reshape(1, 4, 1), ((2, 1),), "reflect").ravel()
    Array([2., 1., 0., 1., 2., 3., 2.], dtype=float32)

    Raises:
      ValueError: an unknown mode, a wrong number of axes, a negative amount, more than there is to copy.
    """
    if mode not in MODES:
        raise ValueError(f"pad: mode is {mode!r}; want one of {', '.join(map(repr, MODES))}")
    pairs = _amounts("pad", x, padding, dims)
    first = x.ndim - 1 - len(pairs)
    if mode in ("zeros", "constant"):
        fill = jnp.asarray(value if mode == "constant" else 0, x.dtype)
        ends = ((0, 0, 0),) * first + tuple((low, high, 0) for low, high in pairs) + ((0, 0, 0),)
        return lax.pad(x, fill, ends)
    for axis, (low, high) in enumerate(pairs, first):
        x = _extend(x, axis, low, high, mode)
    return x


def _extend(x: Array, axis: int, low: int, high: int, mode: str) -> Array:
    n = x.shape[axis]
    most = {"reflect": n - 1, "circular": n, "replicate": low + high if n else 0}[mode]
    if max(low, high) > most:
        raise ValueError(
            f"pad: mode {mode!r} has {max(most, 0)} values to copy on an axis of size {n}, but the padding there is "
            f"{(low, high)}; pad less, or twice"
        )

    def cut(start: int, stop: int) -> Array:
        return lax.slice_in_dim(x, start, stop, axis=axis)

    if mode == "reflect":
        before, after = jnp.flip(cut(1, low + 1), axis), jnp.flip(cut(n - 1 - high, n - 1), axis)
    elif mode == "circular":
        before, after = cut(n - low, n), cut(0, high)
    else:
        before, after = (jnp.repeat(cut(i, i + 1), k, axis=axis) for i, k in ((0, low), (n - 1, high)))
    parts = [part for part in (before, x, after) if part.shape[axis]]
    return jnp.concatenate(parts, axis) if len(parts) > 1 else x


def crop(x: Shaped[Array, "*in"], amount: Amount, *, dims: int | None = None) -> Shaped[Array, "*out"]:
    """x `[..., *spatial, C]` with less at both ends of its spatial axes: the inverse of `pad` with the same amounts.

    >>> crop(jnp.arange(5.0).reshape(1, 5, 1), ((1, 2),)).ravel()
    Array([1., 2.], dtype=float32)

    Raises:
      ValueError: a wrong number of axes, a negative amount, or all of an axis taken away.
    """
    pairs = _amounts("crop", x, amount, dims)
    first = x.ndim - 1 - len(pairs)
    for axis, (low, high) in enumerate(pairs, first):
        if low + high >= x.shape[axis]:
            raise ValueError(f"crop: {(low, high)} takes away all of axis {axis} of x {list(x.shape)}")
        x = lax.slice_in_dim(x, low, x.shape[axis] - high, axis=axis)
    return x
