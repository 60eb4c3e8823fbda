"""Where a token stands, for attention, which would not know: rotations, biases and waves."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer

from dlkit.functional.precision import wide_dtype

__all__ = ["alibi_bias", "alibi_slopes", "relative_buckets", "rope", "rope_frequencies", "sinusoidal"]


def rope_frequencies(
    d: int,
    base: float = 10000.0,
    *,
    scaling: Literal["linear", "ntk", "llama3"] | None = None,
    factor: float = 1.0,
    length: int = 8192,
    low: float = 1.0,
    high: float = 4.0,
) -> np.ndarray:
    """The angle per position of each of `d / 2` pairs, `f_i = base^(-2 i / d)`: float64 `[d / 2]`.

    `scaling` fits them to sequences `factor` times longer than those of training:

    - `"linear"`: `f_i / factor`, positions are interpolated;
    - `"ntk"`: `base` becomes `base factor^(d / (d - 2))`: the slowest pair is interpolated, the fastest stays;
    - `"llama3"`: pairs with fewer than `low` turns in the `length` of training are interpolated, those with more than
      `high` stay, those between are mixed linearly in the number of turns (Llama 3.1: factor 8, length 8192).

    >>> rope_frequencies(4)
    array([1.  , 0.01])

    Raises:
      ValueError: `d` is odd, or an unknown scaling.

    References: Chen et al., Position interpolation, 2023, arXiv:2306.15595; Peng et al., YaRN, 2023, arXiv:2309.00071;
    The Llama 3 herd of models, 2024, arXiv:2407.21783.
    """
    if d < 2 or d % 2:
        raise ValueError(f"rope_frequencies: d is {d}; features are rotated in pairs, so want an even number")
    if scaling not in (None, "linear", "ntk", "llama3"):
        raise ValueError(f"rope_frequencies: scaling is {scaling!r}; want 'linear', 'ntk', 'llama3' or None")
    if scaling == "ntk" and d > 2:
        base = base * factor ** (d / (d - 2))
    frequencies = base ** (-np.arange(0, d, 2) / d)
    if scaling == "linear":
        return frequencies / factor
    if scaling == "llama3":
        turns = length * frequencies / (2 * math.pi)
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return frequencies * (keep + (1 - keep) / factor)
    return frequencies


def rope(
    x: Float[Array, "*batch T H D"],
    positions: Integer[Array, "..."] | None = None,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    frequencies: np.ndarray | None = None,
) -> Float[Array, "*batch T H D"]:
    """Rotary position embedding: pairs of features turn by `position * f_i`, so that scores see differences alone.

    `(a, b) -> (a cos - b sin, a sin + b cos)`. x `[B, T, H, D]` (queries or keys), positions `[T]` or `[B, T]`, by
    default 0 .. T-1. Pair i is features i and i + D/2, as in Hugging Face's Llama and GPT-NeoX; with `interleaved`, 2i
    and 2i + 1, as in the paper, GPT-J and Meta's Llama. The two differ by a permutation of the columns of the
    projection: take the one that the weights were trained with.

    `frequencies` `[n]` replaces `rope_frequencies(D, base)`; the first 2n features are rotated and the others stay, if
    there are fewer than D / 2 (partial rotation). Computed in float32 or wider; y has the dtype of x.

    >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 2)
    >>> rope(x, jnp.array([0])).ravel(), rope(x, jnp.array([1])).ravel().round(4)
    (Array([1., 0.], dtype=float32), Array([0.5403, 0.8415], dtype=float32))

    Raises:
      ValueError: an odd number of features to rotate, or positions that are not `[T]` or `[*batch, T]`.

    Reference: Su et al., RoFormer, 2021, arXiv:2104.09864.
    """
    *batch, t, _, d = x.shape
    if frequencies is None:
        frequencies = rope_frequencies(d, base)
    n = 2 * frequencies.shape[0]
    positions = jnp.arange(t, dtype=jnp.int32) if positions is None else positions
    if n > d or positions.shape not in ((t,), (*batch, t)):
        raise ValueError(
            f"rope: x is {list(x.shape)}, positions are {list(positions.shape)} and {n} features are to be rotated; "
            f"want positions [{t}] or {[*batch, t]}, and at most {d} features"
        )
    wide = wide_dtype(x.dtype)
    # [T or *batch, T, 1, n / 2]; the position is exact in float32 up to 2^24.
    angle = positions.astype(wide)[..., None, None] * jnp.asarray(frequencies, wide).reshape(
        (1,) * (positions.ndim + 1) + (-1,)
    )
    angle = angle.reshape((1,) * (x.ndim - angle.ndim) + angle.shape)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned, rest = x[..., :n].astype(wide), x[..., n:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        y = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(turned.shape)
    else:
        a, b = turned[..., : n // 2], turned[..., n // 2 :]
        y = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    y = y.astype(x.dtype)
    return jnp.concatenate([y, rest], axis=-1) if n < d else y


def alibi_slopes(heads: int) -> np.ndarray:
    """The slope of each head: `2^(-8 h / n)` for h = 1 .. n: float64 `[heads]`.

    Where the number of heads is no power of two, n is the next lower one, and the missing slopes are every other of
    those for 2n heads, as in the authors' code.

    >>> alibi_slopes(4), alibi_slopes(3)
    (array([0.25      , 0.0625    , 0.015625  , 0.00390625]), array([0.0625    , 0.00390625, 0.25      ]))

    Raises:
      ValueError: fewer than one head.
    """
    if heads < 1:
        raise ValueError(f"alibi_slopes: heads is {heads}; want 1 or more")
    n = 2 ** int(math.log2(heads))
    whole = 2.0 ** (-8.0 * np.arange(1, n + 1) / n)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * n + 1, 2) / n)
    return np.concatenate([whole, between[: heads - n]])


def alibi_bias(
    heads: int, queries: Int[Array, "*batch T"], keys: Int[Array, "*batch S"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "*lead {heads} T S"]:
    """`bias_hij = -slope_h |i - j|`, for positions i of the queries and j of the keys: a `bias` of `attention`.

    `[T]` and `[S]` give `[1, H, T, S]`, `[B, T]` and `[B, S]` give `[B, H, T, S]`. Where attention is causal this is
    the bias of the paper; where it is not, both directions are alike.

    >>> alibi_bias(1, jnp.arange(3), jnp.arange(3))[0, 0] * 256
    Array([[-0., -1., -2.],
           [-1., -0., -1.],
           [-2., -1., -0.]], dtype=float32)

    Reference: Press, Smith and Lewis, Train short, test long, 2021, arXiv:2108.12409.
    """
    distance = jnp.abs(queries[..., :, None] - keys[..., None, :]).astype(dtype)
    distance = distance[None] if distance.ndim == 2 else distance
    slopes = jnp.asarray(alibi_slopes(heads), dtype).reshape((1,) * (distance.ndim - 2) + (heads, 1, 1))
    return -slopes * distance[..., None, :, :]


def relative_buckets(
    distance: Int[Array, "*shape"], buckets: int = 32, max_distance: int = 128, *, bidirectional: bool = True
) -> Int[Array, "*shape"]:
    """The bucket of a distance, key minus query, in `0 .. buckets - 1`: T5's.

    One direction has n buckets: half of all if `bidirectional` (keys after the query have the upper half), else all,
    and then keys after the query count as at distance 0. Distances below n / 2 have a bucket each; beyond,

        n / 2 + floor(log(distance / (n / 2)) / log(max_distance / (n / 2)) * n / 2),   at most n - 1.

    >>> relative_buckets(jnp.array([0, -1, -7, -8, -12, -500, 1]))
    Array([ 0,  1,  7,  8,  9, 15, 17], dtype=int32)

    Raises:
      ValueError: fewer than 2 buckets a direction, or a `max_distance` that the exact buckets cover.

    Reference: Raffel et al., Exploring the limits of transfer learning (T5), 2020, arXiv:1910.10683.
    """
    n = buckets // 2 if bidirectional else buckets
    exact = n // 2
    if exact < 1 or max_distance <= exact:
        raise ValueError(
            f"relative_buckets: {buckets} buckets, max_distance {max_distance}, bidirectional={bidirectional}; want at "
            f"least {4 if bidirectional else 2} buckets and a max_distance above {max(exact, 1)}"
        )
    # A table, so that no rounding of a logarithm in float32 decides; beyond max_distance everything is in the last one.
    steps = np.arange(max_distance + 1)
    far = exact + np.floor(
        np.log(np.maximum(steps, 1) / exact) / math.log(max_distance / exact) * (n - exact) + 1e-9
    ).astype(np.int32)
    table = jnp.asarray(np.where(steps < exact, steps, np.minimum(far, n - 1)), jnp.int32)
    away = jnp.abs(distance) if bidirectional else jnp.maximum(-distance, 0)
    bucket = table[jnp.minimum(away, max_distance)]
    return bucket + jnp.where(distance > 0, n, 0).astype(jnp.int32) if bidirectional else bucket


def sinusoidal(
    positions: int | Integer[Array, "*shape"], d: int, *, base: float = 10000.0, dtype: DTypeLike = jnp.float32
) -> Float[Array, "*shape {d}"]:
    """`y[p, 2i] = sin(p f_i)`, `y[p, 2i + 1] = cos(p f_i)`, `f_i = base^(-2i/d)`, at the given positions: `[..., d]`.

    `positions=T` is short for 0 .. T-1. Sines and cosines alternate, as in the paper; tensor2tensor and many after it
    put all sines first.

    >>> sinusoidal(2, 4).round(4)
    Array([[0.    , 1.    , 0.    , 1.    ],
           [0.8415, 0.5403, 0.01  , 1.    ]], dtype=float32)

    Raises:
      ValueError: `d` is odd.

    Reference: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """
    if d % 2:
        raise ValueError(f"sinusoidal: d is {d}; sines and cosines come in pairs, so want an even number")
    where = jnp.arange(positions, dtype=jnp.int32) if isinstance(positions, int) else positions
    wide = wide_dtype(jnp.dtype(dtype))
    angle = where.astype(wide)[..., None] * jnp.asarray(rope_frequencies(d, base), wide).reshape(
        (1,) * where.ndim + (d // 2,)
    )
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*where.shape, d).astype(dtype)
