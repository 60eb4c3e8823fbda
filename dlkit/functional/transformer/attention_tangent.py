"""The tangent of attention, for the forms that never build the T x S weights.

With the scores s, their tangent ds, and what the forward pass leaves, y and lse = log sum exp s:

    p = exp(s - lse),   dy = (p ds) v + p dv - rowsum(p ds) y,   dlse = rowsum(p ds)

Some queries of one head meet at once the keys that their positions let them see, to the nearest of four bands of
queries, so memory is linear in T and in S, and `causal` and `window` save most of what they hide. It is what forward
mode runs and what second derivatives are made of; for reverse mode each form has a loop of its own.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.attention_mod import NO_MOD, Mod
from dlkit.functional.transformer.heads import Seen

__all__ = ["tangent"]

_TILE = 2**18  # weights that are computed together
_BANDS = 4  # each is compiled by itself
_BANDED = 512  # queries, from which that pays


def _bands(seen: Seen, t: int, s: int, rows: int) -> list[tuple[int, int, int, int]]:
    """Parts of `rows` queries from and up to, and the keys from and up to which some of them see by position."""
    count = -(-t // rows)
    if not isinstance(seen.offset, int) or not (seen.causal or seen.window):
        return [(0, count, 0, s)]
    bands, found = min(_BANDS, count), []
    for band in range(bands):
        first, last = count * band // bands, count * (band + 1) // bands
        low, high = 0, min(last * rows, t) + seen.offset
        if seen.window is not None:
            low = first * rows + seen.offset - seen.window + 1
            high += 0 if seen.causal else seen.window - 1
        high = min(max(high, 1), s)
        found.append((first, last, min(max(low, 0), high - 1), high))
    return found


def tangent(
    held: tuple[Any, ...],
    given: tuple[Any, ...],
    seen: Seen,
    *,
    keys: int,
    scale: float,
    softcap: float | None,
    mod: Mod = NO_MOD,
    others: tuple[Array, ...] = (),
) -> tuple[Array, Array]:
    """`(dy, dlse)`, `[B, H_kv, G, T, D_v]` and `[B, H_kv, G, T, 1]`.

    `held` is q `[B, H_kv, G, T, D]`, k `[B, H_kv, S, D]`, v `[B, H_kv, S, D_v]`, bias (any axis 1, or None), what `mod`
    reads in floating point, y and lse; `given` the tangents of the first five. Of the S keys, the first `keys` exist.
    """
    (q, k, v, bias, floats, y, lse), (dq, dk, dv, dbias, dfloats) = held, given
    (b, kv, groups, t, _), s, wide = q.shape, k.shape[2], wide_dtype(q.dtype)
    rows = max(min(t, _TILE // max(groups * s, 1)), 1)
    if (seen.causal or seen.window) and t >= _BANDED:
        rows = min(rows, -(-t // _BANDS))
    count = -(-t // rows)

    def in_parts(a: Array) -> Array:
        """`[B * H_kv, count, G, rows, n]`."""
        a = jnp.pad(a, ((0, 0), (0, 0), (0, 0), (0, count * rows - t), (0, 0)))
        return a.reshape(b * kv, groups, count, rows, -1).swapaxes(1, 2)

    def together(a: Array) -> Array:
        return a.reshape(b * kv, *a.shape[2:])

    def take(a: Array, head: Array, start: Array, low: int, high: int) -> Array:
        """`[G, rows, high - low]` of `[B, H_kv, G, T, S]`, any axis 1."""
        if a.shape[3] != 1:
            a = jnp.pad(a, ((0, 0), (0, 0), (0, 0), (0, count * rows - a.shape[3]), (0, 0)))
        zero, first = jnp.int32(0), jnp.int32(low)
        where = (lax.div(head, jnp.int32(kv)), lax.rem(head, jnp.int32(kv)), zero, start, first)
        where = [zero if n == 1 else at for n, at in zip(a.shape, where, strict=True)]
        sizes = (1, 1, a.shape[2], min(a.shape[3], rows), min(a.shape[4], high - low))
        return lax.dynamic_slice(a, where, sizes)[0, 0]

    def at(head: Array, start: Array, low: int, high: int) -> tuple[Seen, Array, Array]:
        """What is seen from where the queries from `start` stand, their numbers, and those of the keys."""
        offset = seen.offset
        if not isinstance(offset, int) and offset.shape[0] > 1:
            offset = lax.dynamic_slice(offset, (lax.div(head, jnp.int32(kv)),), (1,))
        numbers = start + jnp.arange(rows, dtype=jnp.int32), jnp.arange(low, high, dtype=jnp.int32)
        return seen._replace(offset=offset), *numbers

    def allowed(head: Array, start: Array, low: int, high: int) -> Array:
        here, queries, columns = at(head, start, low, high)
        there = jnp.broadcast_to(columns < keys, (1, rows, high - low))
        position = here.by_position(queries, columns)
        there = there if position is None else there & position[0, 0]
        return there if seen.mask is None else there & take(seen.mask, head, start, low, high)

    def modified(head: Array, start: Array, low: int, high: int, scores: Array, floats: Any) -> Array:
        here, queries, columns = at(head, start, low, high)
        h = lax.rem(head, jnp.int32(kv)) * jnp.int32(groups) + jnp.arange(groups, dtype=jnp.int32)
        i, j = here.places(jnp.minimum(queries, jnp.int32(t - 1))), jnp.minimum(columns, jnp.int32(keys - 1))
        return mod((floats, others), scores[None, None], lax.div(head, jnp.int32(kv))[None], h[None], i, j)[0, 0]

    def one_head(arrays: Any) -> tuple[Array, Array]:
        head, *of_keys = arrays[:5]

        def band(first: int, last: int, low: int, high: int) -> tuple[Array, Array]:
            k, v, dk, dv = (a[low:high] for a in of_keys)
            kt, dkt = k.T, dk.T

            # Kept for derivatives are the operands alone, not the weights.
            @partial(jax.checkpoint, prevent_cse=False)
            def part(start: Array, q: Array, dq: Array, y: Array, lse: Array) -> tuple[Array, Array]:
                where = (head, start, low, high)
                scores = _dot(q, kt) * jnp.asarray(scale, wide)
                ds = (_dot(dq, kt) + _dot(q, dkt)) * jnp.asarray(scale, wide)
                if softcap is not None:
                    bent = jnp.tanh(scores / softcap)
                    scores, ds = softcap * bent, ds * (1 - jnp.square(bent))
                if bias is not None:
                    scores = scores + take(bias, *where).astype(wide)
                    ds = ds + take(dbias, *where).astype(wide)
                if mod.program is not None:
                    scores, ds = jax.jvp(partial(modified, *where), (scores, floats), (ds, dfloats))
                p = jnp.exp(jnp.where(allowed(*where), scores, jnp.asarray(-jnp.inf, wide)) - lse)
                w = p * ds
                dlse = w.sum(-1, keepdims=True)
                return _dot(w.astype(v.dtype), v) + _dot(p.astype(v.dtype), dv) - dlse * y, dlse

            starts = jnp.arange(first, last, dtype=jnp.int32) * jnp.int32(rows)
            return lax.map(lambda xs: part(*xs), (starts, *(a[first:last] for a in arrays[5:])))

        found = [band(*where) for where in _bands(seen, t, s, rows)]
        return found[0] if len(found) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

    arrays = (jnp.arange(b * kv, dtype=jnp.int32), *map(together, (k, v, dk, dv)), *map(in_parts, (q, dq, y, lse)))
    dy, dlse = (a.swapaxes(1, 2).reshape(b, kv, groups, count * rows, -1) for a in lax.map(one_head, arrays))
    return dy[..., :t, :], dlse[..., :t, :]


def _dot(a: Array, b: Array) -> Array:
    """`[G, rows, n] [n, m]`."""
    return lax.dot_general(a, b, (((2,), (0,)), ((), ())), preferred_element_type=wide_dtype(a.dtype))
