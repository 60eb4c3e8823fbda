"""Message passing in general: layers that say what a message is and what a node makes of what it gets."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.functional import Graph
from dlkit.functional.graphs.propagate import Aggregate
from dlkit.nn.checks import describe
from dlkit.nn.combinators import _Combinator
from dlkit.nn.graphs.graph import check_aggregate, masked, real_graph, with_nodes
from dlkit.nn.layer import Layer, child_state
from dlkit.nn.mode import Mode

__all__ = ["GraphNetwork", "MessagePassing"]


@dataclass(frozen=True)
class MessagePassing(_Combinator):
    """Messages along the edges, their aggregate, and an update of the nodes: `Graph` to `Graph`.

        m_e = message([x_sender, x_receiver, edge_e])      over the edges, [E, 2 d (+ d_e)] to [E, d_m]
        y_i = update([x_i, aggregate of m_e over e -> i])   over the nodes, [N, d + d_m] to [N, d_out]

    `message` and `update` are any layers; features of edges are left out where the graph has none. `aggregate` is
    `"sum"`, `"mean"`, `"max"` or `"min"`, 0 for a node that receives nothing.

    >>> from dlkit import nn
    >>> layer = MessagePassing(nn.Linear(2 * 3, 8), nn.Linear(3 + 8, 4))
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)))
    >>> layer(layer.init(jax.random.key(0)), graph).nodes.shape
    (2, 4)

    Raises:
      TypeError: x is no `Graph`.
      ValueError: an unknown `aggregate`.

    Reference: Gilmer et al., Neural message passing for quantum chemistry, 2017, arXiv:1704.01212.
    """

    message: Layer
    update: Layer
    aggregate: Aggregate = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self, self.aggregate)

    def apply(self, params: Any, state: Any, x: Graph, mode: Mode) -> tuple[Graph, Any]:
        graph = real_graph(self, x, edges=True)
        run = _Runner(self, params, state, mode)
        messages = run("message", [*_both_ends(graph), graph.edges])
        received = functional.aggregate(messages, graph.receivers, graph.nodes.shape[0], self.aggregate)
        return with_nodes(x, run("update", [graph.nodes, received])), run.remembered or None


@dataclass(frozen=True)
class GraphNetwork(_Combinator):
    """The full block of a graph network: `Graph` to `Graph` with new edges, nodes and context.

        e'_k = edge([e_k, v_receiver, v_sender, u])              for each edge, u the context of its graph
        v'_i = node([aggregate of e'_k over k -> i, v_i, u])     for each node
        u'   = context([aggregate of e', aggregate of v', u])    for each graph

    `edge`, `node` and `context` are any layers; where one is None its features stay as they are, and what the graph has
    not is left out of the brackets. jraph's `GraphNetwork` also gives nodes the aggregate of what they send.

    >>> from dlkit import nn
    >>> layer = GraphNetwork(nn.Linear(2 + 3 + 3, 5), nn.Linear(5 + 3, 6), nn.Linear(5 + 6, 7))
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)), edges=jnp.ones((2, 2)))
    >>> y = layer(layer.init(jax.random.key(0)), graph)
    >>> y.edges.shape, y.nodes.shape, y.context.shape
    ((2, 5), (2, 6), (1, 7))

    Raises:
      TypeError: x is no `Graph`.
      ValueError: an unknown `aggregate`.

    Reference: Battaglia et al., Relational inductive biases, deep learning, and graph networks, 2018, arXiv:1806.01261.
    """

    edge: Layer | None = None
    node: Layer | None = None
    context: Layer | None = None
    aggregate: Aggregate = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self, self.aggregate)

    def apply(self, params: Any, state: Any, x: Graph, mode: Mode) -> tuple[Graph, Any]:
        graph = real_graph(self, x, edges=True)
        n, g = graph.nodes.shape[0], jnp.shape(graph.n_node)[0]
        run = _Runner(self, params, state, mode)
        edges, nodes = graph.edges, graph.nodes
        context = None if graph.context is None else masked(graph.context, graph.graph_mask)
        of_nodes, of_edges = graph.graph_ids, graph.edge_graph_ids

        def of_graph(ids: Array) -> Array | None:
            return None if context is None else functional.take_rows(context, ids)

        if self.edge is not None:
            sent, got = _both_ends(graph)
            edges = masked(run("edge", [edges, got, sent, of_graph(of_edges)]), graph.edge_mask)
        if self.node is not None:
            received = None if edges is None else functional.aggregate(edges, graph.receivers, n, self.aggregate)
            nodes = masked(run("node", [received, nodes, of_graph(of_nodes)]), graph.node_mask)
        if self.context is not None:
            all_edges = None if edges is None else functional.aggregate(edges, of_edges, g, self.aggregate)
            all_nodes = functional.aggregate(nodes, of_nodes, g, self.aggregate)
            context = masked(run("context", [all_edges, all_nodes, context]), graph.graph_mask)
        return x._replace(edges=edges, nodes=nodes, context=context), run.remembered or None


def _both_ends(graph: Graph) -> tuple[Array, Array]:
    return functional.take_rows(graph.nodes, graph.senders), functional.take_rows(graph.nodes, graph.receivers)


class _Runner:
    """Runs children by name on joined features, and keeps what they remember."""

    def __init__(self, layer: Layer, params: Any, state: Any, mode: Mode) -> None:
        self.layer, self.params, self.state, self.mode = layer, params, state, mode
        self.remembered: dict[str, Any] = {}

    def __call__(self, name: str, features: list[Any]) -> Array:
        features = [f for f in features if f is not None]
        if len(dtypes := dict.fromkeys(str(f.dtype) for f in features)) > 1:
            raise TypeError(
                f"{describe(self.layer)} got features of dtypes {' and '.join(dtypes)} for {name}: expected one dtype "
                f"because they are joined and nothing is promoted silently; cast nodes, edges or context"
            )
        x = jnp.concatenate(features, axis=-1)
        child = getattr(self.layer, name)
        y, after = child.apply(self.params[name], child_state(self.state, name), x, self.mode.at(name))
        if after is not None:
            self.remembered[name] = after
        return y
