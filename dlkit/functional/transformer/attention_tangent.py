"""The tangent of attention, for the forms that never build the T x S weights.

With the scores s, their tangent ds, and what the forward pass leaves, y and lse = log sum exp s:

    p = exp(s - lse),   dy = (p ds) v + p dv - rowsum(p ds) y,   dlse = rowsum(p ds)

Some queries of one head meet all keys at once, so memory is linear in T and in S. It is what forward mode runs and what
second derivatives are made of; for reverse mode each form has a loop of its own.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.heads import Seen

__all__ = ["tangent"]

_TILE = 2**18  # weights that are computed together


def tangent(
    held: tuple[Any, ...], given: tuple[Any, ...], seen: Seen, *, keys: int, scale: float, softcap: float | None
) -> tuple[Array, Array]:
    """`(dy, dlse)`, `[B, H_kv, G, T, D_v]` and `[B, H_kv, G, T, 1]`.

    `held` is q `[B, H_kv, G, T, D]`, k `[B, H_kv, S, D]`, v `[B, H_kv, S, D_v]`, bias (any axis 1, or None), y and lse;
    `given` the tangents of the first four. Of the S keys, the first `keys` exist.
    """
    (q, k, v, bias, y, lse), (dq, dk, dv, dbias) = held, given
    (b, kv, groups, t, _), s, wide = q.shape, k.shape[2], wide_dtype(q.dtype)
    rows = max(min(t, _TILE // max(groups * s, 1)), 1)
    count = -(-t // rows)

    def in_parts(a: Array) -> Array:
        """`[B * H_kv, count, G, rows, n]`."""
        a = jnp.pad(a, ((0, 0), (0, 0), (0, 0), (0, count * rows - t), (0, 0)))
        return a.reshape(b * kv, groups, count, rows, -1).swapaxes(1, 2)

    def together(a: Array) -> Array:
        return a.reshape(b * kv, *a.shape[2:])

    def take(a: Array, head: Array, start: Array) -> Array:
        """`[G, rows, S]` of `[B, H_kv, G, T, S]`, any axis 1."""
        if a.shape[3] != 1:
            a = jnp.pad(a, ((0, 0), (0, 0), (0, 0), (0, count * rows - a.shape[3]), (0, 0)))
        where = (lax.div(head, jnp.int32(kv)), lax.rem(head, jnp.int32(kv)), jnp.int32(0), start, jnp.int32(0))
        where = [jnp.int32(0) if n == 1 else at for n, at in zip(a.shape, where, strict=True)]
        return lax.dynamic_slice(a, where, (1, 1, a.shape[2], min(a.shape[3], rows), a.shape[4]))[0, 0]

    def allowed(head: Array, start: Array) -> Array:
        columns, offset = jnp.arange(s, dtype=jnp.int32), seen.offset
        if not isinstance(offset, int) and offset.shape[0] > 1:
            offset = lax.dynamic_slice(offset, (lax.div(head, jnp.int32(kv)),), (1,))
        there = jnp.broadcast_to(columns < keys, (1, rows, s))
        position = seen._replace(offset=offset).by_position(start + jnp.arange(rows, dtype=jnp.int32), columns)
        there = there if position is None else there & position[0, 0]
        return there if seen.mask is None else there & take(seen.mask, head, start)

    def one_head(arrays: Any) -> tuple[Array, Array]:
        head, k, v, dk, dv, *by_rows = arrays
        kt, dkt = k.T, dk.T

        # Kept for derivatives are the operands alone, not the weights.
        @partial(jax.checkpoint, prevent_cse=False)
        def part(start: Array, q: Array, dq: Array, y: Array, lse: Array) -> tuple[Array, Array]:
            scores = _dot(q, kt) * jnp.asarray(scale, wide)
            ds = (_dot(dq, kt) + _dot(q, dkt)) * jnp.asarray(scale, wide)
            if softcap is not None:
                bent = jnp.tanh(scores / softcap)
                scores, ds = softcap * bent, ds * (1 - jnp.square(bent))
            if bias is not None:
                scores = scores + take(bias, head, start).astype(wide)
                ds = ds + take(dbias, head, start).astype(wide)
            p = jnp.exp(jnp.where(allowed(head, start), scores, jnp.asarray(-jnp.inf, wide)) - lse)
            w = p * ds
            dlse = w.sum(-1, keepdims=True)
            return _dot(w.astype(v.dtype), v) + _dot(p.astype(v.dtype), dv) - dlse * y, dlse

        starts = jnp.arange(count, dtype=jnp.int32) * jnp.int32(rows)
        return lax.map(lambda xs: part(*xs), (starts, *by_rows))

    arrays = (jnp.arange(b * kv, dtype=jnp.int32), *map(together, (k, v, dk, dv)), *map(in_parts, (q, dq, y, lse)))
    dy, dlse = (a.swapaxes(1, 2).reshape(b, kv, groups, count * rows, -1) for a in lax.map(one_head, arrays))
    return dy[..., :t, :], dlse[..., :t, :]


def _dot(a: Array, b: Array) -> Array:
    """`[G, rows, n] [n, m]`."""
    return lax.dot_general(a, b, (((2,), (0,)), ((), ())), preferred_element_type=wide_dtype(a.dtype))
