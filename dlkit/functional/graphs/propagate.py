"""One step of information along the edges of a graph: `E` edges from nodes `senders` to nodes `receivers`, both `[E]`.

An edge whose receiver is no node (an index outside `0 .. N - 1`) carries nothing: that is how padding is written.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer, Shaped

from dlkit.functional.dropout import PRNGKey, check_rate, dropout
from dlkit.functional.graphs.segments import segment_max, segment_mean, segment_min, segment_sum, take_rows
from dlkit.functional.precision import wide_dtype

__all__ = ["Aggregate", "aggregate", "appnp_propagate", "gcn_propagate", "pool_set"]

Aggregate = Literal["sum", "mean", "max", "min"]
_HOW = {"sum": segment_sum, "mean": segment_mean, "max": segment_max, "min": segment_min}


def aggregate(
    messages: Shaped[Array, "E *shape"], receivers: Integer[Array, "E"], n: int, how: Aggregate
) -> Shaped[Array, "..."]:
    """What each of `n` nodes receives: the sum, mean, max or min of its messages, `[E, ...]` to `[n, ...]`, 0 if none.

    >>> aggregate(jnp.array([[1.0], [3.0]]), jnp.array([0, 0]), 2, "mean").tolist()
    [[2.0], [0.0]]

    Raises:
      ValueError: `how` is none of these words.
    """
    if how not in _HOW:
        raise ValueError(f"aggregate got {how!r}; expected one of {', '.join(map(repr, _HOW))}")
    return _HOW[how](messages, receivers, n)


def pool_set(
    x: Float[Array, "*lead N d"], mask: Bool[Array, "*lead N"] | None = None, how: Aggregate = "sum"
) -> Float[Array, "*lead d"]:
    """The sum, mean, max or min over the N members of a set that `mask` calls real (all without): 0 for an empty set.

    Equal extremes share the gradient. Sums are taken in float32 or wider.

    >>> pool_set(jnp.array([[1.0], [3.0], [9.0]]), jnp.array([True, True, False]), "mean").tolist()
    [2.0]

    Raises:
      ValueError: `how` is none of these words; a mask of another shape than `x.shape[:-1]`.
    """
    if how not in _HOW:
        raise ValueError(f"pool_set got {how!r}; expected one of {', '.join(map(repr, _HOW))}")
    if x.ndim < 2 or (mask is not None and mask.shape != x.shape[:-1]):
        masked = "" if mask is None else f" and mask {list(mask.shape)}"
        raise ValueError(f"pool_set: x is {list(x.shape)}{masked}; want x [..., N, d] and mask [..., N]")
    there = jnp.ones(x.shape[:-1], bool) if mask is None else mask
    held = x.astype(wide_dtype(x.dtype))
    if how in ("sum", "mean"):
        y = jnp.sum(jnp.where(there[..., None], held, jnp.zeros_like(held)), axis=-2)
        if how == "mean":
            count = jnp.maximum(jnp.sum(there, axis=-1, dtype=jnp.int32), 1)
            y = y / count[..., None].astype(y.dtype)
        return y.astype(x.dtype)
    worst = jnp.asarray(-jnp.inf if how == "max" else jnp.inf, held.dtype)
    reduce = jnp.max if how == "max" else jnp.min
    y = reduce(jnp.where(there[..., None], held, worst), axis=-2, initial=worst)
    return jnp.where(there.any(-1)[..., None], y, jnp.zeros_like(y)).astype(x.dtype)


def gcn_propagate(
    x: Float[Array, "N d"],
    senders: Integer[Array, "E"],
    receivers: Integer[Array, "E"],
    weights: Float[Array, "E"] | None = None,
    *,
    self_loops: bool = True,
) -> Float[Array, "N d"]:
    """`y = D^(-1/2) (A + I) D^(-1/2) x`, A_ij the summed weight of the edges from j to i, D the row sums of A + I.

    Without `self_loops`, `+ I` is left out, and a node that receives nothing gets 0 (where a row sum is not positive,
    `D^(-1/2)` is taken as 0). An edge from a node to itself counts beside the one that I adds; torch_geometric leaves
    I out at such nodes.

    >>> gcn_propagate(jnp.array([[1.0], [3.0]]), jnp.array([0, 1]), jnp.array([1, 0])).round(5).tolist()
    [[2.0], [2.0]]

    Raises:
      ValueError: x is not `[N, d]`.

    Reference: Kipf and Welling, Semi-supervised classification with graph convolutional networks, ICLR 2017.
    """
    step = _normalized("gcn_propagate", x, senders, receivers, weights, self_loops)
    return step(x.astype(wide_dtype(x.dtype)), None, 0.0).astype(x.dtype)


def appnp_propagate(
    x: Float[Array, "N d"],
    senders: Integer[Array, "E"],
    receivers: Integer[Array, "E"],
    weights: Float[Array, "E"] | None = None,
    *,
    hops: int,
    alpha: float = 0.0,
    self_loops: bool = True,
    key: PRNGKey | None = None,
    rate: float = 0.0,
) -> Float[Array, "N d"]:
    """`hops` steps of `z <- (1 - alpha) P z + alpha x` from z = x, P the matrix of `gcn_propagate`: `[N, d]`.

    With alpha above 0 it tends to personalized PageRank, `alpha (I - (1 - alpha) P)^(-1) x` (APPNP); with alpha 0 it is
    `P^hops x` (SGC). With a `key` each entry of P is dropped with probability `rate`, else divided by `1 - rate`, in
    every step anew. Between the steps z stays in float32 or wider.

    >>> appnp_propagate(jnp.array([[1.0], [3.0]]), jnp.array([0, 1]), jnp.array([1, 0]), hops=9, alpha=0.5).round(2)
    Array([[1.5],
           [2.5]], dtype=float32)

    Raises:
      ValueError: x is not `[N, d]`; fewer than 0 hops; alpha or rate outside [0, 1].

    References: Gasteiger, Bojchevski and Günnemann, Predict then propagate, 2018, arXiv:1810.05997, equations 5 and 6;
    Wu et al., Simplifying graph convolutional networks, 2019, arXiv:1902.07153.
    """
    if hops < 0 or not 0 <= alpha <= 1:
        raise ValueError(f"appnp_propagate: hops is {hops}, alpha {alpha}; want hops >= 0 and 0 <= alpha <= 1")
    check_rate("appnp_propagate", rate)
    step = _normalized("appnp_propagate", x, senders, receivers, weights, self_loops)
    wide = x.astype(wide_dtype(x.dtype))

    def hop(z: Array, key: PRNGKey | None) -> tuple[Array, None]:
        y = step(z, key, rate)
        return (1 - alpha) * y + alpha * wide if alpha else y, None

    keys = None if key is None or rate == 0 else jax.random.split(key, hops)
    return lax.scan(hop, wide, keys, length=hops)[0].astype(x.dtype)


def _normalized(
    who: str, x: Array, senders: Array, receivers: Array, weights: Array | None, self_loops: bool
) -> Callable[[Array, PRNGKey | None, float], Array]:
    """`step(z, key, rate)`, `z` to `P z`, with entries of P dropped where there is a key."""
    if x.ndim != 2:
        raise ValueError(f"{who}: x is {list(x.shape)}; want features of nodes [N, d]")
    n, wide = x.shape[0], wide_dtype(x.dtype)
    w = jnp.ones(senders.shape, wide) if weights is None else weights.astype(wide)
    row = segment_sum(w, receivers, n) + (1 if self_loops else 0)
    positive = row > 0
    inv = jnp.where(positive, lax.rsqrt(jnp.where(positive, row, jnp.ones_like(row))), jnp.zeros_like(row))[:, None]

    def step(z: Array, key: PRNGKey | None, rate: float) -> Array:
        # Scaling the nodes before and after is the same as scaling each edge, and there are fewer of them.
        scaled = inv * z
        sent, itself = take_rows(scaled, senders), scaled
        if key is not None:
            of_edges, of_loops = jax.random.split(key)
            sent = sent * dropout(of_edges, w, rate)[:, None]
            itself = itself * dropout(of_loops, jnp.ones_like(inv), rate)
        elif weights is not None:
            sent = sent * w[:, None]
        y = segment_sum(sent, receivers, n)
        return inv * (y + itself if self_loops else y)

    return step
