"""Sums, means, maxima and softmax over groups of rows: what message passing and pooling on graphs are made of.

`data` `[E, ...]` has one row an edge (or a node), `ids` `[E]` says to which of `num_segments` groups each row belongs.
The ids come in any order. A row whose id is outside `0 .. num_segments - 1`, a negative one too, belongs to no group:
it adds nothing, whatever it holds, and its gradient is 0. That is how padding is written. `num_segments` is a number of
Python, because shapes are static.

With `indices_are_sorted=True` you promise that ids do not decrease, which some backends use; a CPU does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Integer, Shaped

from dlkit.functional.precision import wide_dtype

__all__ = [
    "degree",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_softmax",
    "segment_sum",
    "take_rows",
]

_Data = Shaped[Array, "E *shape"]
_Ids = Integer[Array, "..."]


def _check(who: str, data: Array, ids: Array, num_segments: int) -> None:
    if data.ndim == 0 or ids.ndim != 1 or data.shape[0] != ids.shape[0]:
        raise ValueError(
            f"{who}: data is {list(data.shape)} and ids are {list(ids.shape)}; want data [E, ...] and one id a row, [E]"
        )
    if num_segments < 0:
        raise ValueError(f"{who}: num_segments is {num_segments}; want the number of groups, 0 or more")


def _inside(ids: Array, num_segments: int, ndim: int) -> Array:
    return ((ids >= 0) & (ids < num_segments)).reshape(ids.shape + (1,) * (ndim - 1))


def _sum(data: Array, ids: Array, num_segments: int, sorted_: bool) -> Array:
    return jax.ops.segment_sum(data, ids, num_segments, indices_are_sorted=sorted_)


def _wide(data: Array) -> Array:
    return data.astype(wide_dtype(data.dtype)) if jnp.issubdtype(data.dtype, jnp.inexact) else data


def segment_sum(data: _Data, ids: _Ids, num_segments: int, *, indices_are_sorted: bool = False) -> Shaped[Array, "..."]:
    """`y_s = sum of data_e over the e with ids_e = s`: `[E, ...]` to `[num_segments, ...]`; 0 where there is none.

    Sums are taken in float32 or wider. Derivative: row e gets the gradient of its sum.

    >>> segment_sum(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 0]), 3)
    Array([5., 0., 2.], dtype=float32)

    Raises:
      ValueError: data and ids of different length.
    """
    _check("segment_sum", data, ids, num_segments)
    return _sum(_wide(data), ids, num_segments, indices_are_sorted).astype(data.dtype)


def segment_mean(
    data: _Data, ids: _Ids, num_segments: int, *, indices_are_sorted: bool = False
) -> Shaped[Array, "..."]:
    """`y_s = segment_sum_s / max(n_s, 1)`, n_s the number of rows of segment s; 0 where there is none.

    >>> segment_mean(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 0]), 3)
    Array([2.5, 0. , 2. ], dtype=float32)

    Raises:
      ValueError: data and ids of different length.
    """
    _check("segment_mean", data, ids, num_segments)
    wide = _wide(data)
    total = _sum(wide, ids, num_segments, indices_are_sorted)
    count = jnp.maximum(degree(ids, num_segments, total.dtype), 1)
    return (total / count.reshape(count.shape + (1,) * (data.ndim - 1))).astype(data.dtype)


def segment_max(data: _Data, ids: _Ids, num_segments: int, *, indices_are_sorted: bool = False) -> Shaped[Array, "..."]:
    """`y_s = max of data_e over the e with ids_e = s`; 0 (not -inf) where there is none.

    Equal maxima share the gradient in equal parts, as in `torch.scatter_reduce`.

    >>> segment_max(jnp.array([-1.0, -2.0, -4.0]), jnp.array([0, 2, 0]), 3)
    Array([-1.,  0., -2.], dtype=float32)

    Raises:
      ValueError: data and ids of different length.
    """
    _check("segment_max", data, ids, num_segments)
    y = jax.ops.segment_max(data, ids, num_segments, indices_are_sorted=indices_are_sorted)
    return _zero_if_empty(y, ids, num_segments)


def segment_min(data: _Data, ids: _Ids, num_segments: int, *, indices_are_sorted: bool = False) -> Shaped[Array, "..."]:
    """`y_s = min of data_e over the e with ids_e = s`; 0 (not +inf) where there is none. Gradient as in `segment_max`.

    >>> segment_min(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 0]), 3)
    Array([1., 0., 2.], dtype=float32)

    Raises:
      ValueError: data and ids of different length.
    """
    _check("segment_min", data, ids, num_segments)
    y = jax.ops.segment_min(data, ids, num_segments, indices_are_sorted=indices_are_sorted)
    return _zero_if_empty(y, ids, num_segments)


def _zero_if_empty(y: Array, ids: Array, num_segments: int) -> Array:
    some = degree(ids, num_segments, jnp.int32) > 0
    return jnp.where(some.reshape(some.shape + (1,) * (y.ndim - 1)), y, jnp.zeros_like(y))


def segment_softmax(
    logits: _Data, ids: _Ids, num_segments: int, *, indices_are_sorted: bool = False
) -> Shaped[Array, "..."]:
    """`p_e = exp(l_e) / sum of exp(l_f) over the f with ids_f = ids_e`: `[E, ...]` to `[E, ...]`, the sums 1 a segment.

    The maximum of each segment is subtracted first, so no size of the logits overflows. Rows of no segment get 0, and
    so do those of a segment whose logits are all -inf.

    >>> segment_softmax(jnp.array([0.0, 5.0, 0.0]), jnp.array([0, 1, 0]), 2)
    Array([0.5, 1. , 0.5], dtype=float32)

    Raises:
      ValueError: logits and ids of different length.
    """
    _check("segment_softmax", logits, ids, num_segments)
    inside = _inside(ids, num_segments, logits.ndim)
    # Rows of no segment may hold anything: they are replaced before the exponential, whose derivative would keep NaN.
    wide = jnp.where(inside, _wide(logits), jnp.zeros((), wide_dtype(logits.dtype)))
    top = lax.stop_gradient(segment_max(wide, ids, num_segments, indices_are_sorted=indices_are_sorted))
    top = jnp.where(jnp.isneginf(top), jnp.zeros_like(top), top)
    p = jnp.where(inside, jnp.exp(wide - take_rows(top, ids)), jnp.zeros_like(wide))
    total = _sum(p, ids, num_segments, indices_are_sorted)
    total = jnp.where(total == 0, jnp.ones_like(total), total)
    # Rows of no segment: 0 / 1, not 0 / 0.
    return (p / jnp.where(inside, take_rows(total, ids), jnp.ones_like(p))).astype(logits.dtype)


def degree(ids: _Ids, num_segments: int, dtype: DTypeLike = jnp.float32) -> Shaped[Array, "..."]:
    """How many rows each segment has: `[E]` to `[num_segments]`. Of the receivers of a graph: the in-degree.

    >>> degree(jnp.array([0, 2, 0, -1]), 3)
    Array([2., 0., 1.], dtype=float32)

    Raises:
      ValueError: ids that are not `[E]`.
    """
    _check("degree", ids, ids, num_segments)
    # Counted in integers: above 2^24 float32 would stop counting, bfloat16 above 2^8.
    count = jax.ops.segment_sum(jnp.ones(ids.shape, jnp.int32), ids, num_segments)
    return count.astype(dtype)


def take_rows(x: Shaped[Array, "N *shape"], ids: _Ids) -> Any:
    """`y_e = x[ids_e]`: `[N, ...]` and ids `[E]` to `[E, ...]`; 0 where the id is outside `0 .. N - 1`.

    The adjoint of `segment_sum`: that is its derivative. (`embedding` gives NaN for ids outside.)

    >>> take_rows(jnp.array([5.0, 7.0]), jnp.array([1, 0, 2, -1]))
    Array([7., 5., 0., 0.], dtype=float32)
    """
    n = x.shape[0]
    return x.at[jnp.where(ids < 0, n, ids)].get(mode="fill", fill_value=0)
