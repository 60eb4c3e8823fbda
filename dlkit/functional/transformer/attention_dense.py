"""Attention with all T x S weights at once."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.attention_mod import NO_MOD, Held, Mod
from dlkit.functional.transformer.heads import Heads, Seen

__all__ = ["attend", "scores", "weights"]


def attend(
    heads: Heads,
    seen: Seen,
    bias: Array | None,
    *,
    scale: float,
    softcap: float | None,
    keep: Array | None,
    mod: Mod = NO_MOD,
    held: Held = ((), ()),
) -> Array:
    """`[B, H_kv, G, T, D_v]`; `keep` `[B, H_kv, G, T, S]` multiplies the weights (dropout)."""
    s = scores(heads, seen, bias, scale=scale, softcap=softcap, mod=mod, held=held)
    return _average(s, heads.v, keep).astype(heads.q.dtype)


def scores(
    heads: Heads,
    seen: Seen,
    bias: Array | None,
    *,
    scale: float,
    softcap: float | None,
    mod: Mod = NO_MOD,
    held: Held = ((), ()),
) -> Array:
    """`[B, H_kv, G, T, S]` in float32 or wider, minus infinity where the query does not see the key."""
    q, k, _ = heads
    b, kv, groups, t, d = q.shape
    wide = wide_dtype(q.dtype)
    if q.dtype == wide:
        q = q * jnp.asarray(scale, wide)
    s = _dot(q.reshape(b, kv, groups * t, d), k, 3, 3, wide).reshape(b, kv, groups, t, k.shape[2])
    if q.dtype != wide:
        s = s * jnp.asarray(scale, wide)
    if softcap is not None:
        s = softcap * jnp.tanh(s / softcap)
    if bias is not None:
        s = s + bias.astype(wide)
    rows, columns = (jnp.arange(n, dtype=jnp.int32) for n in (t, k.shape[2]))
    h = jnp.arange(kv * groups, dtype=jnp.int32).reshape(kv, groups)
    s = mod(held, s, jnp.arange(b, dtype=jnp.int32), h, seen.places(rows), columns)
    allowed = seen.all_of(t, k.shape[2])
    return s if allowed is None else jnp.where(allowed, s, jnp.asarray(-jnp.inf, wide))


def weights(s: Array) -> Array:
    """The softmax over the last axis; a row of minus infinities, a query that sees nothing, gives zeros."""
    top = lax.stop_gradient(s.max(-1, keepdims=True))
    e = jnp.exp(s - jnp.where(top == -jnp.inf, jnp.zeros_like(top), top))
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total == 0, jnp.ones_like(total), total)


@jax.custom_jvp
def _average(s: Array, v: Array, keep: Array | None) -> Array:
    """`y = softmax(s) v`, the weights multiplied by `keep` if it is given, in the dtype of s.

    With p = softmax(s), the tangent is `(p ds) v - rowsum(p ds) y + p dv`. Its transpose needs the inner product of y
    and its cotangent for each query, not that of two T x S matrices, which the derivative of a softmax alone would.
    """
    return _weigh(weights(s), v, keep)


@_average.defjvp
def _tangent(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (s, v, keep), (ds, dv, _) = primals, tangents
    p = weights(s)
    y = _weigh(p, v, keep)
    w = p * ds
    return y, _weigh(w, v, keep) - w.sum(-1, keepdims=True) * y + _weigh(p, dv, keep)


def _weigh(p: Array, v: Array, keep: Array | None) -> Array:
    b, kv, groups, t, s = p.shape
    if keep is not None:
        p = p * keep
    y = _dot(p.astype(v.dtype).reshape(b, kv, groups * t, s), v, 3, 2, p.dtype)
    return y.reshape(b, kv, groups, t, v.shape[-1])


def _dot(a: Array, b: Array, axis_a: int, axis_b: int, dtype: Any) -> Array:
    """The products over one axis each of `[B, H, ..]` and `[B, H, ..]`, accumulated in `dtype`."""
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((0, 1), (0, 1))), preferred_element_type=dtype)
