"""Attention a head at a time, in rows of weights: the form for a CPU where all keys of a head stay in the cache.

Some queries meet all the keys that `causal` leaves them, so their softmax is taken at once, with nothing to rescale:

    p = softmax(scale q k^T),  y = p v;    backwards, with lse = log sum exp kept from it and delta = rowsum(dy y),
    p = exp(scale q k^T - lse),  ds = p (dy v^T - delta),  dq = scale ds k,  dk = scale ds^T q,  dv = p^T dy

One loop runs over examples and heads and reads each head out of `[B, T, H D]` as the projections leave it: no array is
transposed as a whole. dk and dv are summed transposed, since XLA multiplies a transposed left factor at half the speed.

Reference: Rabe and Staats, Self-attention does not need O(n^2) memory, 2021, arXiv:2112.05682.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from dlkit.functional.linear_map import linear_map
from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.attention_mod import Mod
from dlkit.functional.transformer.attention_tangent import tangent
from dlkit.functional.transformer.heads import Heads, Seen

__all__ = ["attend", "fits"]

_LONGEST = 1024  # queries and keys: beyond, blocks of both stay in the cache, and rows of all keys do not


class _Plan(NamedTuple):
    """What is known before any number: it is static."""

    rows: int  # queries whose weights are computed together
    heads: int
    groups: int  # heads that share a key
    scale: float
    causal: bool
    offset: int

    def parts(self, t: int, s: int) -> list[tuple[int, int, int]]:
        """Queries from, up to, and up to which key they see."""
        found = []
        for i in range(0, t, self.rows):
            end = min(i + self.rows, t)
            found.append((i, end, min(end + self.offset, s) if self.causal else s))
        return found


def fits(heads: Heads, seen: Seen, bias: Array | None, softcap: float | None, mod: Mod) -> bool:
    """If this form computes it: the plain softmax of lengths that are worth it, not in half precision."""
    t, s = heads.q.shape[3], heads.k.shape[2]
    plain = bias is None and softcap is None and mod.program is None and seen.window is None
    ends = not seen.causal or (isinstance(seen.offset, int) and seen.offset >= 0)
    return plain and heads.q.dtype == wide_dtype(heads.q.dtype) and ends and max(t, s) <= _LONGEST


def attend(heads: Heads, seen: Seen, *, scale: float) -> Array:
    """`[B, H_kv, G, T, D_v]`."""
    b, kv, groups, t, _ = heads.q.shape
    q = heads.q.transpose(0, 3, 1, 2, 4).reshape(b, t, -1)  # undoes `split_heads`: XLA removes both
    k, v = (a.transpose(0, 2, 1, 3).reshape(b, a.shape[2], -1) for a in (heads.k, heads.v))
    mask = seen.mask
    if mask is not None:
        mask = mask.reshape(mask.shape[0], -1, *mask.shape[3:])
    plan = _Plan(_rows(t), kv * groups, groups, scale, seen.causal, seen.offset if seen.causal else 0)
    y: Array = _attend(plan, q, k, v, mask)[0]
    return y.reshape(b, t, kv, groups, -1).transpose(0, 2, 3, 1, 4)


def _rows(t: int) -> int:
    """Few, so that the weights stay in the cache and `causal` saves much; at most four parts, each compiled."""
    return 128 if t <= 256 else 256


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(plan: _Plan, q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
    """y and lse."""
    return _forward(plan, q, k, v, mask)


@_attend.defjvp
def _derivative(plan: _Plan, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    y, lse = _attend(plan, *primals)
    held = (*primals, y, lse)
    return (y, lse), linear_map(partial(_tangent, plan), partial(_backward, plan), held, tangents[:3])


@partial(jax.jit, static_argnums=0)  # traced once for all layers of one shape
def _tangent(plan: _Plan, held: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[Array, Array]:
    q, k, v, mask, y, lse = held
    b, t, s, kv = q.shape[0], q.shape[1], k.shape[1], plan.heads // plan.groups
    of_queries = lambda a: a.reshape(b, t, kv, plan.groups, -1).transpose(0, 2, 3, 1, 4)  # noqa: E731
    of_keys = lambda a: a.reshape(b, s, kv, -1).transpose(0, 2, 1, 3)  # noqa: E731
    if mask is not None:
        spread = (1, 1) if mask.shape[1] == 1 else (kv, plan.groups)
        mask = mask.reshape(mask.shape[0], *spread, *mask.shape[2:])
    dq, dk, dv = given
    dy, dlse = tangent(
        (of_queries(q), of_keys(k), of_keys(v), None, (), of_queries(y), of_queries(lse)),
        (of_queries(dq), of_keys(dk), of_keys(dv), None, ()),
        Seen(mask, plan.causal, None, plan.offset),
        keys=s,
        scale=plan.scale,
        softcap=None,
    )
    back = lambda a: a.transpose(0, 3, 1, 2, 4).reshape(b, t, -1)  # noqa: E731
    return back(dy), back(dlse)


def _forward(plan: _Plan, q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
    kv = plan.heads // plan.groups
    d, d_v, s_all = k.shape[2] // kv, v.shape[2] // kv, k.shape[1]

    def body(carry: tuple[Array, Array], b: Array, h: Array, shared: Array) -> tuple[Array, Array]:
        one, kt, value = _take(q, b, h, d) * plan.scale, _take(k, b, shared, d).T, _take(v, b, shared, d_v)
        y, lse = [], []
        for i, end, last in plan.parts(q.shape[1], s_all):
            s = _hidden(plan, one[i:end] @ kt[:, :last], i, _of_head(mask, b, h), -jnp.inf)
            top = s.max(1, keepdims=True)
            top = jnp.where(top == -jnp.inf, jnp.zeros_like(top), top)  # sees nothing: weights of exp(-inf) = 0
            p = jnp.exp(s - top)
            total = p.sum(1, keepdims=True)
            total = jnp.where(total == 0, jnp.ones_like(total), total)
            y.append((p @ value[:last]) / total)
            lse.append(top + jnp.log(total))
        return _put(carry[0], jnp.concatenate(y), b, h), _put(carry[1], jnp.concatenate(lse), b, h)

    start = (jnp.zeros((*q.shape[:2], plan.heads * d_v), q.dtype), jnp.zeros((*q.shape[:2], plan.heads), q.dtype))
    return _loop(plan, q.shape[0], body, start)


@partial(jax.jit, static_argnums=0)
def _backward(plan: _Plan, held: tuple[Any, ...], given: tuple[Array, Array]) -> tuple[Any, ...]:
    (q, k, v, mask, y, lse), (dy, dlse) = held, given
    kv = plan.heads // plan.groups
    d, d_v, s_all = k.shape[2] // kv, v.shape[2] // kv, k.shape[1]

    def body(carry: tuple[Array, ...], b: Array, h: Array, shared: Array) -> tuple[Array, ...]:
        one, key, value = _take(q, b, h, d) * plan.scale, _take(k, b, shared, d), _take(v, b, shared, d_v)
        g, norm = _take(dy, b, h, d_v), _take(lse, b, h, 1)
        delta = (g * _take(y, b, h, d_v)).sum(1, keepdims=True) - _take(dlse, b, h, 1)
        one_t, g_t, key_t, value_t = one.T, g.T, key.T, value.T
        dq, dkt, dvt = [], jnp.zeros_like(key_t), jnp.zeros_like(value_t)
        for i, end, last in plan.parts(q.shape[1], s_all):
            p = jnp.exp(one[i:end] @ key_t[:, :last] - norm[i:end])
            p = _hidden(plan, p, i, _of_head(mask, b, h), 0.0)
            ds = p * (g[i:end] @ value_t[:, :last] - delta[i:end])
            dq.append(ds @ key[:last] * plan.scale)
            dkt = dkt + _wider(one_t[:, i:end] @ ds, s_all)
            dvt = dvt + _wider(g_t[:, i:end] @ p, s_all)
        dk, dv = dkt.T, dvt.T
        if plan.groups > 1:
            dk, dv = dk + _take(carry[1], b, shared, d), dv + _take(carry[2], b, shared, d_v)
        return _put(carry[0], jnp.concatenate(dq), b, h), _put(carry[1], dk, b, shared), _put(carry[2], dv, b, shared)

    start = (jnp.zeros_like(q), jnp.zeros_like(k), jnp.zeros_like(v))
    return _loop(plan, q.shape[0], body, start)


def _loop(plan: _Plan, batch: int, body: Any, carry: Any) -> Any:
    heads, groups = (jnp.asarray(n, jnp.int32) for n in (plan.heads, plan.groups))

    def step(carry: Any, number: Array) -> tuple[Any, None]:
        h = lax.rem(number, heads)
        return body(carry, lax.div(number, heads), h, lax.div(h, groups)), None

    return lax.scan(step, carry, jnp.arange(batch * plan.heads, dtype=jnp.int32))[0]


def _take(a: Array, b: Array, h: Array, d: int) -> Array:
    """`[T, d]` of one head out of `[B, T, H d]`."""
    zero = jnp.zeros((), jnp.int32)
    return lax.dynamic_slice(a, (b, zero, h * jnp.asarray(d, jnp.int32)), (1, a.shape[1], d))[0]


def _put(a: Array, part: Array, b: Array, h: Array) -> Array:
    zero = jnp.zeros((), jnp.int32)
    return lax.dynamic_update_slice(a, part[None], (b, zero, h * jnp.asarray(part.shape[1], jnp.int32)))


def _of_head(mask: Array | None, b: Array, h: Array) -> Array | None:
    """`[T, S]` of `[B, H, T, S]`, any axis 1."""
    if mask is None:
        return None
    zero = jnp.zeros((), jnp.int32)
    start = (zero if mask.shape[0] == 1 else b, zero if mask.shape[1] == 1 else h, zero, zero)
    return lax.dynamic_slice(mask, start, (1, 1, *mask.shape[2:]))[0, 0]


def _hidden(plan: _Plan, a: Array, i: int, mask: Array | None, value: float) -> Array:
    """`value` where the queries from i do not see the key."""
    rows, columns = a.shape
    if plan.causal:
        query = jnp.arange(i + plan.offset, i + plan.offset + rows, dtype=jnp.int32)[:, None]
        seen = jnp.arange(columns, dtype=jnp.int32)[None] <= query
        a = jnp.where(seen, a, jnp.asarray(value, a.dtype))
    if mask is not None:
        part = mask if mask.shape[0] == 1 else mask[i : i + rows]
        a = jnp.where(part if part.shape[1] == 1 else part[:, :columns], a, jnp.asarray(value, a.dtype))
    return a


def _wider(a: Array, columns: int) -> Array:
    return jnp.pad(a, ((0, 0), (0, columns - a.shape[1])))
