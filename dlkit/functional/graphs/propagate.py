"""One step of information along the edges of a graph: `E` edges from nodes `senders` to nodes `receivers`, both `[E]`.

An edge whose receiver is no node (an index outside `0 .. N - 1`) carries nothing: that is how padding is written.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer, Shaped

from dlkit.functional.graphs.segments import segment_max, segment_mean, segment_min, segment_sum, take_rows
from dlkit.functional.precision import wide_dtype

__all__ = ["Aggregate", "aggregate", "gcn_propagate"]

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
    if x.ndim != 2:
        raise ValueError(f"gcn_propagate: x is {list(x.shape)}; want features of nodes [N, d]")
    n = x.shape[0]
    wide = x.astype(wide_dtype(x.dtype))
    w = jnp.ones(senders.shape, wide.dtype) if weights is None else weights.astype(wide.dtype)
    row = segment_sum(w, receivers, n) + (1 if self_loops else 0)
    positive = row > 0
    inv = jnp.where(positive, lax.rsqrt(jnp.where(positive, row, jnp.ones_like(row))), jnp.zeros_like(row))[:, None]
    # Scaling the nodes before and after is the same as scaling each edge, and there are fewer of them.
    scaled = inv * wide
    y = segment_sum(
        take_rows(scaled, senders) * w[:, None] if weights is not None else take_rows(scaled, senders), receivers, n
    )
    return (inv * (y + scaled if self_loops else y)).astype(x.dtype)
