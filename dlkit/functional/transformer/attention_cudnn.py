"""Attention by the fused kernel of cuDNN, through `jax.nn.dot_product_attention`: on NVIDIA GPUs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.functional.transformer.attention_mod import Mod
from dlkit.functional.transformer.heads import Heads, Seen

__all__ = ["attend", "why_not"]


def why_not(heads: Heads, softcap: float | None, mod: Mod) -> str | None:
    """What the kernel cannot do of this, or None."""
    q, k, v = heads
    if q.dtype not in (jnp.float16, jnp.bfloat16):
        return f"q is {q.dtype}; it wants half precision"
    if q.shape[-1] != v.shape[-1] or q.shape[-1] > 128 or q.shape[-1] % 8:
        return f"heads have {q.shape[-1]} and {v.shape[-1]} features; it wants one multiple of 8, at most 128"
    if q.shape[3] % 2 or k.shape[2] % 2:
        return f"there are {q.shape[3]} queries and {k.shape[2]} keys; it wants even numbers"
    if mod.program is not None:
        return "it has no score_mod"
    return "it has no softcap" if softcap is not None else None


def attend(heads: Heads, seen: Seen, bias: Array | None, *, scale: float, softcap: float | None, mod: Mod) -> Array:
    """`[B, H_kv, G, T, D]`.

    Raises:
      ValueError: the kernel cannot do this (`why_not`).
    """
    if reason := why_not(heads, softcap, mod):
        raise ValueError(f"attention: implementation is 'cudnn', but {reason}; use 'blockwise', or None")
    b, kv, groups, t, d = heads.q.shape
    s = heads.k.shape[2]
    causal = (
        seen.causal
        and seen.window is None
        and seen.mask is None
        and isinstance(seen.offset, int)
        and t == s
        and seen.offset == 0
    )
    allowed = None if causal else seen.all_of(t, s)
    q = heads.q.transpose(0, 3, 1, 2, 4).reshape(b, t, kv * groups, d)
    k, v = (a.transpose(0, 2, 1, 3) for a in (heads.k, heads.v))
    y = jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias=None if bias is None else _full(bias, heads).astype(q.dtype),
        mask=None if allowed is None else _full(allowed, heads),
        scale=scale,
        is_causal=causal,
        implementation="cudnn",
    )
    y = y.reshape(b, t, kv, groups, d).transpose(0, 2, 3, 1, 4)
    if allowed is None:
        return y
    return jnp.where(allowed.any(4, keepdims=True), y, jnp.zeros((), y.dtype))  # the kernel averages all values there


def _full(a: Array, heads: Heads) -> Array:
    """`[B or 1, H or 1, T, S]`: the kernel does not broadcast queries and keys."""
    b, kv, groups = a.shape[:3]
    return jnp.broadcast_to(
        a.reshape(b, kv * groups, *a.shape[3:]), (b, kv * groups, heads.q.shape[3], heads.k.shape[2])
    )
