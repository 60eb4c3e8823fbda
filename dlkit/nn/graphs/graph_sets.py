"""Networks on differences to neighbours, and on sets."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.functional import Graph
from dlkit.functional.graphs.propagate import Aggregate
from dlkit.nn.checks import check_float, check_rank, describe
from dlkit.nn.combinators import _Combinator
from dlkit.nn.graphs.graph import check_aggregate, real_graph, with_nodes
from dlkit.nn.layer import Layer, child_state
from dlkit.nn.mode import Mode

__all__ = ["DeepSets", "EdgeConv"]


@dataclass(frozen=True)
class EdgeConv(_Combinator):
    """`y_i = aggregate over j -> i of inner([x_i, x_j - x_i])`: `Graph` to `Graph`, nodes `[N, d]` to `[N, d_out]`.

    `inner` is any layer from 2 d to d_out features, an MLP mostly; it sees where a node is and how its neighbours
    differ, which suits clouds of points. `aggregate` is `"max"`, `"sum"`, `"mean"` or `"min"`, 0 for a node that
    receives nothing. Weights and features of edges are not looked at. Parameters: `inner`. torch_geometric: `EdgeConv`.

    >>> from dlkit import nn
    >>> layer = EdgeConv(nn.Chain(nn.Linear(2 * 3, 8), nn.Relu(), nn.Linear(8, 4)))
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)))
    >>> layer(layer.init(jax.random.key(0)), graph).nodes.shape
    (2, 4)

    Raises:
      TypeError: x is no `Graph`.
      ValueError: an unknown `aggregate`.

    Reference: Wang et al., Dynamic graph CNN for learning on point clouds, 2018, arXiv:1801.07829.
    """

    inner: Layer
    aggregate: Aggregate = "max"

    def __post_init__(self) -> None:
        check_aggregate(self, self.aggregate)

    def apply(self, params: Any, state: Any, x: Graph, mode: Mode) -> tuple[Graph, Any]:
        graph = real_graph(self, x)
        got, sent = (functional.take_rows(graph.nodes, ids) for ids in (graph.receivers, graph.senders))
        pairs = jnp.concatenate([got, sent - got], axis=-1)
        messages, after = self.inner.apply(params["inner"], child_state(state, "inner"), pairs, mode.at("inner"))
        y = functional.aggregate(messages, graph.receivers, graph.nodes.shape[0], self.aggregate)
        return with_nodes(x, y), None if after is None else {"inner": after}


@dataclass(frozen=True)
class DeepSets(_Combinator):
    """`y = outer(pool over the members of inner(x_i))`, a function of a set: x `[..., N, d]` to y `[..., d_out]`.

    The order of the N members does not matter. `inner` and `outer` are any layers (φ and ρ in the paper); `pool` is
    `"sum"`, `"mean"`, `"max"` or `"min"`, 0 for an empty set. Keyword of `apply`: `mask` `[..., N]`, True for members;
    what else x holds, NaN too, changes no output and no gradient. Parameters: `inner`, `outer`.

    For sets of very different sizes, a `Graph` without edges: `Chain(OnNodes(inner), GraphPool("sum"), outer)`.
    torch_geometric: `DeepSetsAggregation(local_nn, global_nn)`.

    >>> from dlkit import nn
    >>> layer = DeepSets(nn.Chain(nn.Linear(3, 8), nn.Relu()), nn.Linear(8, 2))
    >>> params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 5, 3))
    >>> y = layer(params, x)
    >>> y.shape, bool(jnp.allclose(layer(params, x[:, ::-1]), y, atol=1e-6))
    ((4, 2), True)

    Raises:
      TypeError: x is not floating point.
      ValueError: x without an axis of members; a mask of another shape; an unknown `pool`.

    Reference: Zaheer et al., Deep sets, 2017, arXiv:1703.06114, theorem 2.
    """

    inner: Layer
    outer: Layer
    pool: Aggregate = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self, self.pool)

    def apply(self, params: Any, state: Any, x: Array, mode: Mode, *, mask: Array | None = None) -> tuple[Array, Any]:
        check_float(self, x)
        check_rank(self, x, "[..., N, d]", 2, "a set has N members")
        if mask is not None:
            if mask.shape != x.shape[:-1]:
                raise ValueError(
                    f"{describe(self)} got a mask of shape {mask.shape} for x of shape {x.shape}: expected "
                    f"{x.shape[:-1]}, one boolean a member"
                )
            x = jnp.where(mask[..., None], x, jnp.zeros_like(x))  # before `inner`, whose gradient would keep NaN
        h, inner = self.inner.apply(params["inner"], child_state(state, "inner"), x, mode.at("inner"))
        pooled = functional.pool_set(h, mask, self.pool)
        y, outer = self.outer.apply(params["outer"], child_state(state, "outer"), pooled, mode.at("outer"))
        remembered = {name: held for name, held in (("inner", inner), ("outer", outer)) if held is not None}
        return y, remembered or None
