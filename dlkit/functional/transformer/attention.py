"""Scaled dot-product attention: every query takes a weighted mean of the values, by how well the keys match it."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dlkit.functional.dropout import PRNGKey, check_rate, keep_mask
from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer import attention_blockwise, attention_cudnn, attention_dense, attention_rows
from dlkit.functional.transformer.attention_mod import Mod, ScoreMod, traced_mod
from dlkit.functional.transformer.heads import Heads, Seen, merge_heads, split_heads

__all__ = ["AttentionKind", "ScoreMod", "attention", "attention_weights"]

_SMALL = 128 * 128  # on a CPU, the number of weights a head from which blocks are faster

AttentionKind: TypeAlias = Literal["dense", "blockwise", "cudnn"]


def attention(
    q: Float[Array, "*batch T H D"],
    k: Float[Array, "*batch S H_kv D"],
    v: Float[Array, "*batch S H_kv D_v"],
    *,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    causal: bool = False,
    window: int | None = None,
    offset: Any = None,
    scale: float | None = None,
    softcap: float | None = None,
    score_mod: ScoreMod | None = None,
    rate: float = 0.0,
    key: PRNGKey | None = None,
    implementation: AttentionKind | None = None,
) -> Float[Array, "*batch T H D_v"]:
    """`y_i = sum_j p_ij v_j`, `p_i = softmax_j(scale q_i . k_j + bias_ij)` over the keys j that query i may see.

    q `[B, T, H, D]`; k `[B, S, H_kv, D]` and v `[B, S, H_kv, D_v]`, where `H / H_kv` queries share a key (grouped-query
    attention; multi-query at 1); y `[B, T, H, D_v]`. Leading axes are free. torch has the heads in front of the time.

    What a query may see is the conjunction of

    - `mask`, booleans, True = attend: `[T, S]` or `[B, H, T, S]`, any axis 1;
    - `causal`: keys that are not after it. Query i stands at position `i + offset` among the keys; by default they end
      together (`offset = S - T`), while torch and flax begin them together (`offset=0`). `offset` may be an array, `[]`
      or `[B]`;
    - `window`: with `causal` the last `window` keys up to its own position, else those nearer than `window` on either
      side.

    A query that sees nothing gives 0 and gradients of 0. Keys and values that no query sees, and queries that see
    nothing, may hold NaN or infinity: they change neither the output nor a gradient. (One that some query sees cannot:
    0 times NaN is NaN, for the queries that do not see it too, as in torch.)

    `bias` is added to the scores; shapes as those of `mask`. `scale` is `1 / sqrt(D)` if not given. `softcap` c bounds
    the scaled scores, `c tanh(score / c)`, before bias and mask.

    `score_mod(score, batch, head, query, key)` gives the score to take instead, after `bias` and before the masks. It
    is written for one score, a number; the others are integers, `query` and `key` positions among the keys (query i is
    `i + offset`, so a cache changes nothing). Arrays that it reads from outside have gradients. It may return minus
    infinity. It is `flex_attention`'s of torch, where the query counts from 0 and `batch` is one axis here too.

    With a `key`, weights are dropped with probability `rate`. Scores and softmax are in float32 or wider; y has the
    dtype of q.

    `implementation`: `"dense"` makes all T x S weights; `"blockwise"` never does, its memory is linear in T, and its
    backward pass computes them again; `"cudnn"` is the fused kernel of a GPU (half precision; needs no `softcap`,
    `score_mod` or dropout). None chooses by shape and backend: on a CPU, blocks from 128 x 128 weights a head and
    without dropout (up to 1024 places and without bias, window, softcap and score_mod: blocks of some queries and all
    their keys). All but `"cudnn"` have derivatives of every mode and order, those of blocks linear in T too.

    >>> q, k, v = jnp.ones((2, 3, 4, 8)), jnp.ones((2, 5, 2, 8)), jnp.ones((2, 5, 2, 8))
    >>> attention(q, k, v, causal=True).shape
    (2, 3, 4, 8)
    >>> slopes = 2.0 ** -jnp.arange(1.0, 5.0)
    >>> alibi = lambda s, b, h, i, j: s - slopes[h] * jnp.abs(i - j).astype(s.dtype)
    >>> attention(q, k, v, score_mod=alibi).shape
    (2, 3, 4, 8)

    Raises:
      ValueError: shapes that do not belong together, a mask or bias that does not broadcast, a window below 1, a rate
        outside [0, 1], a score_mod that does not return a score, an unknown implementation or one that
        cannot do what is asked.
      TypeError: a mask that is not boolean.

    References: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; Ainslie et al., GQA, 2023,
    arXiv:2305.13245; Dong et al., Flex Attention, 2024, arXiv:2412.05496; Rabe and Staats, Self-attention does not
    need O(n^2) memory, 2021, arXiv:2112.05682.
    """
    heads, seen, bias, scale = _prepared(
        "attention", q, k, v, mask=mask, bias=bias, causal=causal, window=window, offset=offset, scale=scale
    )
    mod, held = traced_mod("attention", score_mod, wide_dtype(q.dtype))
    check_rate("attention", rate)
    if implementation not in (None, "dense", "blockwise", "cudnn"):
        raise ValueError(f"attention: implementation is {implementation!r}; want 'dense', 'blockwise', 'cudnn' or None")
    drops = rate > 0 and key is not None
    rows = False
    if implementation is None:
        implementation = _fastest(heads, softcap, mod, drops)
        rows = implementation == "blockwise" and attention_rows.fits(heads, seen, bias, softcap, mod)
    if rows:
        y = attention_rows.attend(heads, seen, scale=scale)
    elif implementation == "dense":
        keep = None
        if rate > 0 and key is not None:
            shape = (*heads.q.shape[:4], heads.k.shape[2])
            keep = keep_mask(key, shape, rate).astype(wide_dtype(q.dtype)) / max(1 - rate, 1e-30)
        y = attention_dense.attend(heads, seen, bias, scale=scale, softcap=softcap, keep=keep, mod=mod, held=held)
    elif drops:
        raise ValueError(
            f"attention: implementation is {implementation!r}, which drops no weights; want 'dense' or None"
        )
    elif implementation == "blockwise":
        y = attention_blockwise.attend(heads, seen, bias, scale=scale, softcap=softcap, mod=mod, held=held)
    else:
        y = attention_cudnn.attend(heads, seen, bias, scale=scale, softcap=softcap, mod=mod)
    return merge_heads(y, q.shape[:-3])


def _fastest(heads: Heads, softcap: float | None, mod: Mod, drops: bool) -> AttentionKind:
    """By shape and backend."""
    if drops:
        return "dense"
    if jax.default_backend() == "gpu":
        return "dense" if attention_cudnn.why_not(heads, softcap, mod) else "cudnn"
    t, s = heads.q.shape[3], heads.k.shape[2]
    return "blockwise" if jax.default_backend() == "cpu" and t > 1 and t * s >= _SMALL else "dense"


def attention_weights(
    q: Float[Array, "*batch T H D"],
    k: Float[Array, "*batch S H_kv D"],
    *,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    causal: bool = False,
    window: int | None = None,
    offset: Any = None,
    scale: float | None = None,
    softcap: float | None = None,
    score_mod: ScoreMod | None = None,
) -> Float[Array, "*batch H T S"]:
    """The weights `p` of `attention`, `[B, H, T, S]` in float32 or wider: to draw, to sum, to look at.

    Each row sums to 1, or is 0 where the query sees nothing.

    >>> attention_weights(jnp.ones((1, 2, 1, 4)), jnp.ones((1, 2, 1, 4)), causal=True)[0, 0]
    Array([[1. , 0. ],
           [0.5, 0.5]], dtype=float32)

    Raises:
      ValueError, TypeError: as `attention`.
    """
    heads, seen, bias, scale = _prepared(
        "attention_weights", q, k, k, mask=mask, bias=bias, causal=causal, window=window, offset=offset, scale=scale
    )
    mod, held = traced_mod("attention_weights", score_mod, wide_dtype(q.dtype))
    how: Any = {"scale": scale, "softcap": softcap, "mod": mod, "held": held}
    p = attention_dense.weights(attention_dense.scores(heads, seen, bias, **how))
    return p.reshape(*q.shape[:-3], q.shape[-2], q.shape[-3], k.shape[-3])


def _prepared(
    who: str,
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None,
    bias: Array | None,
    causal: bool,
    window: int | None,
    offset: Any,
    scale: float | None,
) -> tuple[Heads, Seen, Array | None, float]:
    """The arguments in the layout to compute in, once they are known to belong together."""
    shapes = f"{who}: q is {list(q.shape)}, k is {list(k.shape)}, v is {list(v.shape)}"
    if not q.ndim == k.ndim == v.ndim >= 3 or not q.shape[:-3] == k.shape[:-3] == v.shape[:-3]:
        raise ValueError(f"{shapes}; want q [B, T, H, D], k [B, S, H_kv, D] and v [B, S, H_kv, D_v], one batch")
    if k.shape[-3:-1] != v.shape[-3:-1] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{shapes}; want k and v of one length and number of heads, q and k of one head size")
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        raise ValueError(f"{shapes}; want the {q.shape[-2]} heads of q to be a multiple of the {k.shape[-2]} of k")
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(f"{who}: q is {q.dtype}, k is {k.dtype}, v is {v.dtype}; want one dtype")
    if window is not None and window < 1:
        raise ValueError(f"{who}: window is {window}; it counts the query's own position, so want 1 or more")
    if mask is not None and mask.dtype != jnp.bool_:
        raise TypeError(f"{who}: mask is {mask.dtype}{list(mask.shape)}; want booleans, True = attend")
    heads = split_heads(q, k, v)
    want = (*q.shape[:-3], q.shape[-2], q.shape[-3], k.shape[-3])
    mask = _spread(who, "mask", mask, want, k.shape[-2])
    bias = _spread(who, "bias", bias, want, k.shape[-2])
    seen = Seen(mask, causal, window, k.shape[-3] - q.shape[-3] if offset is None else offset)
    if not isinstance(seen.offset, int) and jnp.shape(seen.offset) not in ((), (heads.q.shape[0],)):
        raise ValueError(f"{who}: offset is {list(jnp.shape(seen.offset))}; want an int, [] or [{heads.q.shape[0]}]")
    return seen.hide(heads), seen, bias, 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def _spread(who: str, name: str, a: Array | None, want: tuple[int, ...], kv_heads: int) -> Array | None:
    """`[T, S]` or `[*batch, H, T, S]`, axes of 1 left as they are, as `[B, H_kv, G, T, S]`."""
    if a is None:
        return None
    shape = (1,) * (len(want) - 2) + a.shape if a.ndim == 2 else a.shape
    if len(shape) != len(want) or any(n not in (1, w) for n, w in zip(shape, want, strict=True)):
        fix = f"; for one of each example, write {name}[:, None]" if a.ndim == 3 < len(want) else ""
        raise ValueError(
            f"{who}: {name} is {list(a.shape)}; want {list(want[-2:])} (time, keys) or {list(want)} (batch, heads, "
            f"time, keys), any of them 1{fix}"
        )
    *batch, h, t, s = shape
    rows = math.prod(batch)
    if rows != 1 and tuple(batch) != want[:-3]:
        batch, rows = want[:-3], math.prod(want[:-3])
        a = jnp.broadcast_to(a.reshape(shape), (*batch, h, t, s))
    groups = (1, 1) if h == 1 else (kv_heads, h // kv_heads)
    return a.reshape(rows, *groups, t, s)
