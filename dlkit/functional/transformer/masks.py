"""Which keys a query may attend to: boolean masks, True = attend, that broadcast to `[B, H, T, S]`.

torch's `key_padding_mask` has the other polarity (True = ignore), and so has the boolean `attn_mask` of its
`MultiheadAttention`, but not that of its `scaled_dot_product_attention`: pass `~mask` when you come from there.
"""

from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Integer

__all__ = ["causal_mask", "combine_masks", "padding_mask", "segment_mask", "sliding_window_mask"]


def _positions(t: int, s: int | None, offset: int | Int[Array, ""] | None) -> tuple[Array, Array]:
    """Where the queries and the keys stand, `[T, 1]` and `[1, S]`."""
    s = t if s is None else s
    start = jnp.asarray(s - t if offset is None else offset, jnp.int32)
    return (start + jnp.arange(t, dtype=jnp.int32))[:, None], jnp.arange(s, dtype=jnp.int32)[None, :]


def causal_mask(t: int, s: int | None = None, *, offset: int | Int[Array, ""] | None = None) -> Bool[Array, "T S"]:
    """True where key j is not after query i, `j <= i + offset`: `[T, S]`.

    Without an `offset`, the position of the first query among the keys, both end together (`offset = S - T`): the last
    query sees every key. torch's `is_causal` begins them together (`offset=0`), which differs where T is not S.

    >>> causal_mask(2, 3).astype(int)
    Array([[1, 1, 0],
           [1, 1, 1]], dtype=int32)
    """
    query, key = _positions(t, s, offset)
    return key <= query


def sliding_window_mask(
    t: int, s: int | None = None, *, window: int, causal: bool = True, offset: int | Int[Array, ""] | None = None
) -> Bool[Array, "T S"]:
    """True where key j is one of the `window` last that query i sees, itself included: `0 <= i + offset - j < window`.

    Without `causal`, on both sides: `|i + offset - j| < window`. `offset` as in `causal_mask`.

    >>> sliding_window_mask(3, window=2).astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]], dtype=int32)

    Raises:
      ValueError: a window below 1.

    Reference: Beltagy, Peters and Cohan, Longformer, 2020, arXiv:2004.05150.
    """
    if window < 1:
        raise ValueError(f"sliding_window_mask: window is {window}; it counts the query's own position, want 1 or more")
    query, key = _positions(t, s, offset)
    near = query - key < window
    return near & (key <= query) if causal else near & (key - query < window)


def padding_mask(lengths: Integer[Array, "*batch"], t: int) -> Bool[Array, "*batch 1 1 {t}"]:
    """True for the first `lengths[b]` of `t` keys: `[B]` to `[B, 1, 1, T]`.

    >>> padding_mask(jnp.array([1, 3]), 3)[:, 0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 1]], dtype=int32)
    """
    places = jnp.arange(t, dtype=lengths.dtype).reshape((1,) * lengths.ndim + (1, 1, t))
    return places < lengths[..., None, None, None]


def segment_mask(
    segments: Integer[Array, "*batch T"], key_segments: Integer[Array, "*batch S"] | None = None
) -> Bool[Array, "*batch 1 T S"]:
    """True where query and key are of the same segment: `[B, T]` to `[B, 1, T, S]`, for documents packed in one row.

    Give padding a segment of its own. Without `key_segments`, those of the queries: self-attention.

    >>> segment_mask(jnp.array([[5, 5, 7]]))[0, 0].astype(int)
    Array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 1]], dtype=int32)
    """
    keys = segments if key_segments is None else key_segments
    return segments[..., None, :, None] == keys[..., None, None, :]


def combine_masks(*masks: Bool[Array, "..."] | None) -> Bool[Array, "..."] | None:
    """True where all are; those of fewer axes get leading ones, None is no restriction.

    >>> combine_masks(causal_mask(2), None, padding_mask(jnp.array([1]), 2))[0, 0].astype(int)
    Array([[1, 0],
           [1, 0]], dtype=int32)

    Raises:
      TypeError: a mask is not boolean.
    """
    given = [mask for mask in masks if mask is not None]
    for mask in given:
        if mask.dtype != jnp.bool_:
            raise TypeError(f"combine_masks: a mask is {mask.dtype}{list(mask.shape)}; want booleans, True = attend")
    if not given:
        return None
    rank = max(mask.ndim for mask in given)
    return reduce(jnp.logical_and, [mask.reshape((1,) * (rank - mask.ndim) + mask.shape) for mask in given])
