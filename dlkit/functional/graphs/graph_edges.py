"""Changing which edges a graph has: both directions, self loops. In NumPy, before tracing."""

from typing import Any

import numpy as np

from dlkit.functional.graphs.graph import Graph, batch_graphs, unbatch_graphs

__all__ = ["add_self_loops", "to_undirected"]


def to_undirected(graph: Graph) -> Graph:
    """The graph with the reverse of every edge that has none yet, which takes that edge's features and weight.

    Edges that go both ways, and self loops, stay as they are. Padding is cut off: pad last. torch_geometric's
    `to_undirected` also merges what is there twice, and adds up features of the two directions.

    >>> graph = Graph.from_edges([0, 1, 1, 2], [1, 0, 2, 2], np.ones((3, 1), np.float32))
    >>> there = to_undirected(graph)
    >>> list(zip(there.senders.tolist(), there.receivers.tolist()))
    [(0, 1), (1, 0), (1, 2), (2, 2), (2, 1)]
    """

    def both_ways(one: Graph) -> Graph:
        senders, receivers, n = np.asarray(one.senders), np.asarray(one.receivers), len(one.nodes)
        missing = ~np.isin(receivers.astype(np.int64) * n + senders, senders.astype(np.int64) * n + receivers)
        edges, weights = (None if v is None else np.asarray(v)[missing] for v in (one.edges, one.weights))
        return _append(one, receivers[missing], senders[missing], edges, weights)

    return batch_graphs([both_ways(one) for one in unbatch_graphs(graph)])


def add_self_loops(graph: Graph, weight: float = 1.0, fill: float = 0.0) -> Graph:
    """The graph with an edge from each node to itself where there is none: of that `weight`, with features `fill`.

    For layers that leave a node itself out of its neighbours. `GCNConv`, `GATConv` and `GATv2Conv` have self loops of
    their own. Padding is cut off: pad last.

    >>> graph = Graph.from_edges([0, 1], [1, 1], np.ones((2, 1), np.float32))
    >>> there = add_self_loops(graph)
    >>> list(zip(there.senders.tolist(), there.receivers.tolist()))
    [(0, 1), (1, 1), (0, 0)]
    """

    def looped(one: Graph) -> Graph:
        senders, receivers = np.asarray(one.senders), np.asarray(one.receivers)
        lonely = np.setdiff1d(np.arange(len(one.nodes)), senders[senders == receivers]).astype(np.int32)
        held = None if one.edges is None else np.asarray(one.edges)
        edges = None if held is None else np.full((len(lonely), *held.shape[1:]), fill, held.dtype)
        weights = None if one.weights is None else np.full(len(lonely), weight, np.asarray(one.weights).dtype)
        return _append(one, lonely, lonely, edges, weights)

    return batch_graphs([looped(one) for one in unbatch_graphs(graph)])


def _append(graph: Graph, senders: Any, receivers: Any, edges: Any, weights: Any) -> Graph:
    def joined(old: Any, new: Any) -> Any:
        return None if old is None else np.concatenate([np.asarray(old), new])

    return graph._replace(
        senders=joined(graph.senders, senders),
        receivers=joined(graph.receivers, receivers),
        n_edge=np.asarray(graph.n_edge) + np.int32(len(senders)),
        edges=joined(graph.edges, edges),
        weights=joined(graph.weights, weights),
    )
