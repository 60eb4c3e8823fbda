"""What the graph layers share: how a `Graph` comes in, and how features go out; a layer on the nodes alone.

A graph layer maps a `Graph` to a `Graph` with other `nodes`, so that graph layers stand in a `Chain`. Rows of padding
are replaced by zeros on the way in, so that whatever they hold, NaN too, reaches neither outputs nor gradients, and are
zeros on the way out.
"""

from dataclasses import dataclass
from typing import Any, get_args

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.functional import Graph
from dlkit.functional.graphs.propagate import Aggregate
from dlkit.nn.checks import check_axis, check_float, check_rank, describe
from dlkit.nn.combinators import _Combinator
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode

__all__ = ["OnNodes", "check_aggregate", "masked", "need_edges", "real_graph", "with_nodes"]


def _check_graph(layer: Layer, x: Any) -> None:
    if not isinstance(x, Graph):
        raise TypeError(
            f"{describe(layer)} got x of type {type(x).__name__}: expected a Graph; make one with "
            f"Graph.from_edges(senders, receivers, nodes)"
        )


def check_aggregate(layer: Layer, how: str) -> None:
    if how not in get_args(Aggregate):
        raise ValueError(f"{describe(layer)}: expected one of {', '.join(map(repr, get_args(Aggregate)))}, got {how!r}")


def masked(x: Any, mask: Array) -> Array:
    """`x` `[n, ...]` with zeros where `mask` `[n]` is False."""
    x = jnp.asarray(x)
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), x, jnp.zeros_like(x))


def real_graph(layer: Layer, x: Any, d_in: int | None = None, like: Any = None, *, edges: bool = False) -> Graph:
    """The graph with zeros as the features of padding nodes, and indices that point at no node as the ends of padding
    edges; with `edges`, those features too.

    Raises:
      TypeError: x is no `Graph`; or its nodes are not floating point, or not of the dtype of the weight `like`.
      ValueError: the last axis of the nodes is not `d_in`.
    """
    _check_graph(layer, x)
    fix = "for several graphs, use batch_graphs"
    check_rank(layer, x.nodes, "[N, d]", 2, "a node is a row", most=2, name="nodes", fix=fix)
    if d_in is not None:
        check_axis(layer, x.nodes, -1, d_in, f"d_in={d_in}", name="nodes")
    check_float(layer, x.nodes, like, name="nodes")
    n, there = jnp.shape(x.nodes)[0], x.edge_mask
    return x._replace(
        nodes=masked(x.nodes, x.node_mask),
        senders=jnp.where(there, x.senders, n),
        receivers=jnp.where(there, x.receivers, n),
        weights=None if x.weights is None else masked(x.weights, there),
        edges=masked(x.edges, there) if edges and x.edges is not None else x.edges,
    )


def need_edges(layer: Layer, graph: Graph) -> Array:
    """The features of the edges.

    Raises:
      ValueError: the graph has none.
    """
    if graph.edges is None:
        raise ValueError(f"{describe(layer)} got a graph without edge features: expected `edges` [E, d_edge]")
    return graph.edges


def with_nodes(graph: Graph, nodes: Array) -> Graph:
    """`graph` as it was given, with these nodes; zeros at padding."""
    return graph._replace(nodes=masked(nodes, graph.node_mask))


@dataclass(frozen=True)
class OnNodes(_Combinator):
    """A layer on the features of the nodes: `Graph` to `Graph`, nodes `layer(nodes)`; the graph does not matter.

    For activations, `Dropout`, `Linear` or a norm between graph layers in a `Chain`, and for an `Embedding` in front of
    them where the nodes are integers `[N]`. Parameters and state are those of
    `layer`, without another name around them. A `BatchNorm` here would count rows of padding: see `GraphNorm`.

    >>> from dlkit import nn
    >>> model = nn.Chain(nn.GCNConv(3, 8), OnNodes(nn.Relu()), nn.GCNConv(8, 2))
    >>> graph = Graph.from_edges([0, 1, 1, 2], [1, 0, 2, 1], jnp.ones((3, 3)))
    >>> model(model.init(jax.random.key(0)), graph).nodes.shape
    (3, 2)

    Raises:
      TypeError: x is no `Graph`.
    """

    layer: Layer

    def children(self) -> dict[str, Layer]:
        return {"": self.layer}

    def init(self, key: Any) -> Any:
        return self.layer.init(key)

    def init_state(self) -> Any:
        return self.layer.init_state()

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        return self.layer.init_cache(batch, length, dtype)

    def apply(self, params: Any, state: Any, x: Graph, mode: Mode) -> tuple[Graph, Any]:
        _check_graph(self, x)
        check_rank(self, x.nodes, "[N, ...]", 1, "a node is a row", name="nodes")
        nodes, after = self.layer.apply(params, state, masked(x.nodes, x.node_mask), mode)
        before, behind = jnp.shape(x.nodes), jnp.shape(nodes)
        if before[:1] != behind[:1]:
            raise ValueError(
                f"{describe(self)} got nodes of shape {before}: expected {describe(self.layer)} to keep their number "
                f"because the graph stays as it is, got {behind}"
            )
        return with_nodes(x, nodes), after
