"""What all implementations of attention share: the layout they compute in, and which keys a query sees."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["Heads", "Seen", "merge_heads", "split_heads"]


class Heads(NamedTuple):
    """Time next to the features, so that products run over contiguous matrices; G = H / H_kv queries share a key."""

    q: Array  # [B, H_kv, G, T, D]
    k: Array  # [B, H_kv, S, D]
    v: Array  # [B, H_kv, S, D_v]


def split_heads(q: Array, k: Array, v: Array) -> Heads:
    """q `[*batch, T, H, D]`, k and v `[*batch, S, H_kv, D]`."""
    b, (t, h, d), (s, kv) = math.prod(q.shape[:-3]), q.shape[-3:], k.shape[-3:-1]
    return Heads(
        q.reshape(b, t, kv, h // kv, d).transpose(0, 2, 3, 1, 4),
        k.reshape(b, s, kv, d).transpose(0, 2, 1, 3),
        v.reshape(b, s, kv, v.shape[-1]).transpose(0, 2, 1, 3),
    )


def merge_heads(y: Array, batch: tuple[int, ...]) -> Array:
    """`[B, H_kv, G, T, D]` to `[*batch, T, H, D]`."""
    _, kv, groups, t, d = y.shape
    return y.transpose(0, 3, 1, 2, 4).reshape(*batch, t, kv * groups, d)


class Seen(NamedTuple):
    """Which keys a query sees: where `mask` is True, and what its position allows."""

    mask: Array | None  # [B, H_kv, G, T, S], any axis 1
    causal: bool
    window: int | None
    offset: Any  # the position of query 0 among the keys: int, or int32 [] or [B]

    def places(self, rows: Array) -> Array:
        """The positions among the keys of the queries numbered `rows`: `[T]`, or `[B, T]` where examples differ."""
        offset = jnp.asarray(self.offset, jnp.int32)
        return rows + offset.reshape(()) if offset.size == 1 else rows[None] + offset[:, None]

    def by_position(self, rows: Any, columns: Any) -> Array | None:
        """For the queries numbered `rows` and the keys numbered `columns`: `[B or 1, 1, 1, T, S]`, None if all."""
        if not self.causal and self.window is None:
            return None
        offset = jnp.asarray(self.offset, jnp.int32).reshape(-1, 1, 1, 1, 1)
        query = offset + jnp.asarray(rows, jnp.int32).reshape(1, 1, 1, -1, 1)
        key = jnp.asarray(columns, jnp.int32).reshape(1, 1, 1, 1, -1)
        if self.window is None:
            return key <= query
        seen = key <= query if self.causal else key - query < self.window
        return seen & (query - key < self.window)

    def all_of(self, t: int, s: int) -> Array | None:
        """For all queries and keys, any axis 1; None if every query sees every key."""
        position = self.by_position(jnp.arange(t), jnp.arange(s))
        if self.mask is None or position is None:
            return position if self.mask is None else self.mask
        return self.mask & position

    def hide(self, heads: Heads) -> Heads:
        """The same numbers, but 0 in keys and values that no query sees, and in queries that see no key.

        A weight of 0 is not enough: 0 times NaN is NaN.
        """
        t, s = heads.q.shape[3], heads.k.shape[2]
        positions_hide = isinstance(self.offset, int) and self.offset == s - t and self.window is None and t <= s
        if self.mask is None and (positions_hide or not (self.causal or self.window)):
            return heads
        seen = self.all_of(t, s)
        if seen is None:
            return heads
        keys = seen.any((2, 3))[..., None]  # [B, H_kv, S, 1]
        queries = seen.any(4, keepdims=True)
        zero = jnp.zeros((), heads.q.dtype)
        return Heads(jnp.where(queries, heads.q, zero), jnp.where(keys, heads.k, zero), jnp.where(keys, heads.v, zero))
