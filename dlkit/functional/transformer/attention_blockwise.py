"""Attention in blocks: the T x S weights exist a block at a time, in the cache, and are computed again backwards.

    forward, for a block of queries and the blocks of keys that it sees: with s = scale q k^T and the largest score m so
    far, y and the sum of weights l are rescaled by exp(m_old - m_new) and exp(s - m_new) v and its row sums are added;
    backward, with lse = m + log(l) kept from it and delta = rowsum(dy y):
        p = exp(s - lse),  ds = p (dy v^T - delta),  dq += ds k,  dk^T += q^T ds,  dv^T += dy^T p

Memory is linear in T and S, blocks that `causal` or `window` hide as a whole are left out, and it is also the fastest
form on a CPU: no array leaves the cache, and dk and dv are accumulated transposed so that the block of weights is
always the right or the untransposed left factor, which XLA multiplies twice as fast as a transposed left one.

References: Rabe and Staats, 2021, arXiv:2112.05682; Dao et al., FlashAttention, 2022, arXiv:2205.14135.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from dlkit.functional.linear_map import linear_map
from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.attention_mod import NO_MOD, Held, Mod
from dlkit.functional.transformer.attention_tangent import tangent
from dlkit.functional.transformer.heads import Heads, Seen

__all__ = ["attend"]

_ROWS = 512  # queries and keys of a block, at most: enough for XLA to share each operation among cores
_TILE = 2**18  # weights of a block, over the heads that are computed together: about what a cache holds


class _Plan(NamedTuple):
    """What is known before any number: it is static."""

    t: int  # queries and keys, before they are padded to whole blocks
    s: int
    rows: int  # queries and keys in a block
    columns: int
    heads: int  # heads of the keys in a block
    scale: float
    softcap: float | None
    causal: bool
    window: int | None
    offset: int | None  # None: data
    mod: Mod = NO_MOD

    def seen(self, offset: Any) -> Seen:
        return Seen(None, self.causal, self.window, offset if self.offset is None else self.offset)

    def pairs(self) -> np.ndarray:
        """Where the blocks begin, `[n, 2]` queries and keys: those of which something is seen."""
        found = []
        for i in range(0, self.t, self.rows):
            for j in range(0, self.s, self.columns):
                low, high = (0, 0) if self.offset is None else (i + self.offset, i + self.rows - 1 + self.offset)
                known = self.offset is not None
                after = known and self.causal and j > high
                far = known and self.window is not None and low - (j + self.columns - 1) >= self.window
                ahead = known and self.window is not None and not self.causal and j - high >= self.window
                if not (after or far or ahead):
                    found.append((i, j))
        return np.array(found, np.int32).reshape(-1, 2)


def attend(
    heads: Heads, seen: Seen, bias: Array | None, *, scale: float, softcap: float | None, mod: Mod, held: Held
) -> Array:
    """`[B, H_kv, G, T, D_v]`."""
    (_, kv, groups, t, _), s = heads.q.shape, heads.k.shape[2]
    rows, columns = _block(t), _block(s)
    # Blocks of a few heads where sequences are short, so that each operation has enough to do.
    most = max(_TILE // (groups * rows * columns), 1)
    together = max(n for n in range(1, min(kv, most) + 1) if kv % n == 0)
    known = isinstance(seen.offset, int)
    at = seen.offset if known else None
    plan = _Plan(t, s, rows, columns, together, scale, softcap, seen.causal, seen.window, at, mod)
    q, k, v = _padded(heads.q, 3, rows), _padded(heads.k, 2, columns), _padded(heads.v, 2, columns)
    mask, bias = (None if a is None else _padded(_padded(a, 3, rows, t), 4, columns, s) for a in (seen.mask, bias))
    offset = None if known else jnp.asarray(seen.offset, jnp.int32).reshape(-1)
    y: Array = _attend(plan, q, k, v, bias, held[0], mask, offset, held[1])[0]
    return y[..., :t, :].astype(heads.q.dtype)


def _block(n: int) -> int:
    """Blocks of about one size, that waste little of the last one.

    >>> _block(2048), _block(512), _block(300), _block(5)
    (512, 256, 152, 8)
    """
    count = -(-n // _ROWS) if n > _ROWS else max(-(-2 * n // _ROWS), 1)  # two at 512: causal leaves a quarter out
    return max(-(-n // (8 * count)) * 8, 8)


def _padded(a: Array, axis: int, block: int, size: int | None = None) -> Array:
    """With zeros at the end of an axis, unless it is 1 because it broadcasts."""
    missing = -a.shape[axis] % block
    if missing == 0 or (size is not None and a.shape[axis] != size):
        return a
    return jnp.pad(a, [(0, missing if i == axis else 0) for i in range(a.ndim)])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(
    plan: _Plan, q: Array, k: Array, v: Array, bias: Any, floats: Any, mask: Any, offset: Any, others: Any
) -> tuple[Array, Array]:
    """y and lse."""
    return _forward(plan, q, k, v, _Sight(bias, floats, mask, offset, others))


@_attend.defjvp
def _derivative(plan: _Plan, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    y, lse = _attend(plan, *primals)
    held = (*primals, y, lse)
    return (y, lse), linear_map(partial(_tangent, plan), partial(_backward, plan), held, tangents[:5])


@partial(jax.jit, static_argnums=0)  # traced once for all layers of one shape
def _tangent(plan: _Plan, held: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[Array, Array]:
    q, k, v, bias, floats, mask, offset, others, y, lse = held
    seen = plan.seen(offset)._replace(mask=mask)
    how = {"scale": plan.scale, "softcap": plan.softcap, "mod": plan.mod, "others": others}
    return tangent((q, k, v, bias, floats, y, lse), given, seen, keys=plan.s, **how)


class _Sight(NamedTuple):
    """What changes or hides scores."""

    bias: Any
    floats: Any  # what `plan.mod` reads
    mask: Any
    offset: Any
    others: Any


class _Block:
    """One step of the loops: the batch entry b, heads from h, queries from i, keys from j."""

    def __init__(self, plan: _Plan, pairs: Array, kv: int, step: Array) -> None:
        per_head = jnp.asarray(pairs.shape[0], jnp.int32)
        blocks = jnp.asarray(kv // plan.heads, jnp.int32)
        which, pair = lax.div(step, per_head), pairs[lax.rem(step, per_head)]
        self.plan = plan
        self.b = lax.div(which, blocks)
        self.h = lax.rem(which, blocks) * jnp.asarray(plan.heads, jnp.int32)
        self.i, self.j = pair[0], pair[1]

    def _where(self, a: Array, starts: tuple[Any, ...], sizes: tuple[int, ...]) -> tuple[Any, Any]:
        """Starts and sizes of the part of `a` that broadcasts to this block: an axis of 1 is taken as it is."""
        whole = [n == 1 for n in a.shape]
        zero = jnp.zeros((), jnp.int32)
        begin = [zero if w else jnp.asarray(s, jnp.int32) for w, s in zip(whole, starts, strict=True)]
        return begin, [1 if w else n for w, n in zip(whole, sizes, strict=True)]

    def queries(self, a: Array, axis: int = 3) -> tuple[Any, Any]:
        """Of `[B, H_kv, G, T, ..]`, or `[B, H_kv, G, D, T]` with axis 4."""
        starts, sizes = [self.b, self.h, 0, 0, 0][: a.ndim], [1, self.plan.heads, *a.shape[2:]]
        starts[axis], sizes[axis] = self.i, self.plan.rows
        return self._where(a, tuple(starts), tuple(sizes))

    def keys(self, a: Array, axis: int = 2) -> tuple[Any, Any]:
        """Of `[B, H_kv, S, D]`, or `[B, H_kv, D, S]` with axis 3."""
        starts, sizes = [self.b, self.h, 0, 0], [1, self.plan.heads, *a.shape[2:]]
        starts[axis], sizes[axis] = self.j, self.plan.columns
        return self._where(a, tuple(starts), tuple(sizes))

    def both(self, a: Array) -> tuple[Any, Any]:
        """Of `[B, H_kv, G, T, S]`."""
        sizes = (1, self.plan.heads, a.shape[2], self.plan.rows, self.plan.columns)
        return self._where(a, (self.b, self.h, 0, self.i, self.j), sizes)

    def scores(self, q: Array, kt: Array, given: _Sight) -> tuple[Array, Array, Any]:
        """`[1, h, G, rows, columns]`, minus infinity where nothing is seen; before bias; what `mod` got, and did."""
        plan = self.plan
        wide = wide_dtype(q.dtype)
        s = _rows_by(_take(q, self.queries(q)), _take(kt, self.keys(kt, 3))) * jnp.asarray(plan.scale, wide)
        if plan.softcap is not None:
            s = plan.softcap * jnp.tanh(s / plan.softcap)
        raw = s
        if given.bias is not None:
            s = s + _take(given.bias, self.both(given.bias)).astype(wide)
        rows, columns = (
            start + jnp.arange(n, dtype=jnp.int32) for start, n in ((self.i, plan.rows), (self.j, plan.columns))
        )
        offset = given.offset
        if offset is not None and offset.shape[0] > 1:
            offset = lax.dynamic_slice(offset, (self.b,), (1,))
        seen = plan.seen(offset)
        before = s
        if plan.mod.program is not None:
            s = self.modified(s, given.floats, given.others, seen)
        allowed = seen.by_position(rows, columns)
        parts = [] if allowed is None else [allowed]
        if kt.shape[3] != plan.s:  # what keys are padded with
            parts.append((columns < plan.s).reshape(1, 1, 1, 1, -1))
        if given.mask is not None:
            parts.append(_take(given.mask, self.both(given.mask)))
        for part in parts:
            s = jnp.where(part, s, jnp.asarray(-jnp.inf, wide))
        return s, raw, (before, lambda s, floats: self.modified(s, floats, given.others, seen))

    def modified(self, s: Array, floats: Any, others: Any, seen: Seen) -> Array:
        """By `mod`. It is never asked about the numbers of what q and k are padded with."""
        plan, groups = self.plan, s.shape[2]
        first, count = self.h * jnp.int32(groups), plan.heads * groups
        h = (first + jnp.arange(count, dtype=jnp.int32)).reshape(plan.heads, groups)
        rows, columns = (
            jnp.minimum(start + jnp.arange(n, dtype=jnp.int32), jnp.int32(end - 1))
            for start, n, end in ((self.i, plan.rows, plan.t), (self.j, plan.columns, plan.s))
        )
        return plan.mod((floats, others), s, self.b[None], h, seen.places(rows), columns)


def _loop(plan: _Plan, q: Array, k: Array, body: Any, carry: Any) -> Any:
    pairs = plan.pairs()
    steps = q.shape[0] * (k.shape[1] // plan.heads) * pairs.shape[0]
    if steps == 0:
        return carry
    table = jnp.asarray(pairs)

    def step(carry: Any, number: Array) -> tuple[Any, None]:
        return body(carry, _Block(plan, table, k.shape[1], number)), None

    return lax.scan(step, carry, jnp.arange(steps, dtype=jnp.int32))[0]


def _forward(plan: _Plan, q: Array, k: Array, v: Array, given: _Sight) -> tuple[Array, Any]:
    wide = wide_dtype(q.dtype)
    kt = k.swapaxes(2, 3)

    def body(carry: Any, at: _Block) -> Any:
        y, top, total = carry
        s, _, _ = at.scores(q, kt, given)
        rows, one = at.queries(y), at.queries(top)
        old = _take(top, one)
        new = jnp.maximum(old, s.max(-1, keepdims=True))
        safe = jnp.where(new == -jnp.inf, jnp.zeros_like(new), new)
        p, shrink = jnp.exp(s - safe), jnp.exp(old - safe)
        y_new = _take(y, rows) * shrink + _rows_by(p.astype(v.dtype), _take(v, at.keys(v)))
        l_new = _take(total, one) * shrink + p.sum(-1, keepdims=True)
        return _put(y, y_new, rows), _put(top, new, one), _put(total, l_new, one)

    column = (*q.shape[:4], 1)
    start = (
        jnp.zeros((*q.shape[:4], v.shape[3]), wide),
        jnp.full(column, -jnp.inf, wide),
        jnp.zeros(column, wide),
    )
    y, top, total = _loop(plan, q, k, body, start)
    none = total == 0  # sees nothing: top is minus infinity, and lse = 0 gives weights of exp(-inf) = 0 again
    total = jnp.where(none, jnp.ones_like(total), total)
    lse = jnp.where(none, jnp.zeros_like(top), top + jnp.log(total))
    return y / total, lse


@partial(jax.jit, static_argnums=0)
def _backward(plan: _Plan, held: tuple[Any, ...], given: tuple[Array, Array]) -> tuple[Any, ...]:
    (q, k, v, *rest, y, lse), (dy, dlse) = held, given
    sight = _Sight(*rest)
    bias, floats = sight.bias, sight.floats
    wide = wide_dtype(q.dtype)
    delta = (dy * y).sum(-1, keepdims=True) - dlse
    dy = dy.astype(q.dtype)
    qt, dyt = q.swapaxes(3, 4), dy.swapaxes(3, 4)
    kt, vt = k.swapaxes(2, 3), v.swapaxes(2, 3)

    def body(carry: Any, at: _Block) -> Any:
        dq, dkt, dvt, dbias, dfloats = carry
        s, raw, (before, modified) = at.scores(q, kt, sight)
        p = jnp.exp(s - _take(lse, at.queries(lse)))
        dp = _rows_by(_take(dy, at.queries(dy)), _take(vt, at.keys(vt, 3)))
        ds = p * (dp - _take(delta, at.queries(delta)))
        if plan.mod.program is not None:
            ds, more = jax.vjp(modified, before, floats)[1](ds)
            dfloats = jax.tree.map(jnp.add, dfloats, more)
        if bias is not None:
            where = at.both(bias)
            shared = [i for i, n in enumerate(where[1]) if n == 1]
            dbias = _put(dbias, _take(dbias, where) + ds.sum(shared, keepdims=True), where)
        if plan.softcap is not None:
            ds = ds * (1 - jnp.square(raw / plan.softcap))
        rows, columns, v_columns = at.queries(dq), at.keys(dkt, 3), at.keys(dvt, 3)
        ds, p = ds.astype(q.dtype), p.astype(q.dtype)
        dq = _put(dq, _take(dq, rows) + _rows_by(ds, _take(k, at.keys(k))), rows)
        dkt = _put(dkt, _take(dkt, columns) + _columns_by(_take(qt, at.queries(qt, 4)), ds), columns)
        dvt = _put(dvt, _take(dvt, v_columns) + _columns_by(_take(dyt, at.queries(dyt, 4)), p), v_columns)
        return dq, dkt, dvt, dbias, dfloats

    zeros = partial(jnp.zeros_like, dtype=wide)
    start = (zeros(q), zeros(kt), zeros(vt), None if bias is None else zeros(bias))
    start = (*start, jax.tree.map(jnp.zeros_like, floats))
    dq, dkt, dvt, dbias, dfloats = _loop(plan, q, k, body, start)
    scale = jnp.asarray(plan.scale, wide)
    dq, dk, dv = dq * scale, dkt.swapaxes(2, 3) * scale, dvt.swapaxes(2, 3)
    dbias = None if bias is None else dbias.astype(bias.dtype)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), dbias, dfloats


def _take(a: Array, where: tuple[Any, Any]) -> Array:
    return lax.dynamic_slice(a, *where)


def _put(a: Array, part: Array, where: tuple[Any, Any]) -> Array:
    return lax.dynamic_update_slice(a, part, where[0])


def _rows_by(a: Array, b: Array) -> Array:
    """`[1, h, G, rows, n] [1, h, n, m]`, the groups as further rows."""
    _, h, groups, rows, n = a.shape
    y = _dot(a.reshape(h, groups * rows, n), b[0])
    return y.reshape(1, h, groups, rows, b.shape[-1])


def _columns_by(a: Array, b: Array) -> Array:
    """`sum_g [1, h, G, n, rows] [1, h, G, rows, m]`: `[1, h, n, m]`."""
    _, h, groups, n, rows = a.shape
    if groups == 1:
        return _dot(a[0, :, 0], b[0, :, 0])[None]
    a = a[0].swapaxes(1, 2).reshape(h, n, groups * rows)
    return _dot(a, b.reshape(h, groups * rows, b.shape[-1]))[None]


def _dot(a: Array, b: Array) -> Array:
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))), preferred_element_type=wide_dtype(a.dtype))
