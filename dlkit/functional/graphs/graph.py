"""A graph, or many of them side by side, as one tree of arrays; batching and padding to static shapes.

    message of edge e:  from node senders[e] to node receivers[e]

Several graphs are one big graph without edges between them: their nodes and edges stand one after another, and `n_node`
and `n_edge` say how many belong to each. Whatever stands after `sum(n_node)` nodes and `sum(n_edge)` edges is padding,
and so are graphs at the end without nodes. So no mask has to be carried along, and none can be forgotten:

>>> a = Graph.from_edges([0, 1], [1, 2], nodes=np.ones((3, 4), np.float32))
>>> b = Graph.from_edges([0], [1], nodes=np.zeros((2, 4), np.float32))
>>> both = pad_graph(batch_graphs([a, b]), n_node=8, n_edge=4, n_graph=3)
>>> both.nodes.shape, both.n_node.tolist(), both.node_mask.tolist()
((8, 4), [3, 2, 0], [True, True, True, True, True, False, False, False])
>>> both.senders.tolist(), both.receivers.tolist()  # the padding edge points at no node: 8 is not in 0 .. 7
([0, 1, 3, 8], [1, 2, 4, 8])
>>> [graph.nodes.shape for graph in unbatch_graphs(both)]
[(3, 4), (2, 4)]

jraph (`GraphsTuple`) keeps the padding in one more graph at the end, which padding edges point into; torch_geometric
(`Data`, `Batch`) does not pad, holds the ids of the graphs (`batch`, here `graph_ids`) and stacks senders over
receivers as `edge_index`.

What makes and changes graphs here runs in NumPy, before tracing: sizes are shapes. Layers and masks run inside jit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

__all__ = ["Graph", "batch_graphs", "pad_graph", "size_bucket", "unbatch_graphs"]


class Graph(NamedTuple):
    """`G` graphs with `N` nodes and `E` edges, padding included.

    | field | shape | |
    |---|---|---|
    | `nodes` | `[N, d]` | features of the nodes |
    | `senders`, `receivers` | `[E]` integers | edge e goes from node `senders[e]` to node `receivers[e]` |
    | `n_node`, `n_edge` | `[G]` integers | how many nodes and edges each graph has |
    | `edges` | `[E, d_e]` or None | features of the edges |
    | `weights` | `[E]` or None | one weight an edge, as in `GCNConv` |
    | `context` | `[G, d_g]` or None | features of each graph as a whole |

    Make one with `Graph.from_edges`, which checks it; change a field with `graph._replace(nodes=...)`.
    """

    nodes: Any
    senders: Any
    receivers: Any
    n_node: Any
    n_edge: Any
    edges: Any = None
    weights: Any = None
    context: Any = None

    @classmethod
    def from_edges(
        cls,
        senders: Any,
        receivers: Any,
        nodes: Any,
        *,
        edges: Any = None,
        weights: Any = None,
        context: Any = None,
    ) -> "Graph":
        """One graph, checked. `nodes` are features `[N, d]`; `context` is `[d_g]`.

        An undirected graph has each edge in both directions: see `to_undirected`.

        >>> Graph.from_edges([0, 1], [1, 0], np.eye(2)).n_edge
        Array([2], dtype=int32)

        Raises:
          ValueError: an index outside `0 .. N - 1`, arrays of lengths that do not belong together, or no node.
          TypeError: indices that are not integers.
        """
        nodes = np.asarray(nodes)
        if nodes.ndim < 1 or len(nodes) == 0:
            raise ValueError(f"Graph: nodes is {list(nodes.shape)}; want features [N, d] of at least one node")
        ends = {}
        for name, given in (("senders", senders), ("receivers", receivers)):
            ids = np.asarray(given)
            ids = ids.astype(np.int32) if ids.size == 0 else ids
            if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
                raise TypeError(f"Graph: {name} is {ids.dtype}{list(ids.shape)}; want integers [E], the node numbers")
            if ids.size and not (ids.min() >= 0 and ids.max() < len(nodes)):
                worst = int(ids.max() if ids.max() >= len(nodes) else ids.min())
                raise ValueError(
                    f"Graph: {name} has the index {worst} at edge {int(np.argmax(ids == worst))}, but there are "
                    f"{len(nodes)} nodes; want 0 .. {len(nodes) - 1} (do the numbers start at 1? subtract 1)"
                )
            ends[name] = ids.astype(np.int32)
        count = len(ends["senders"])
        for name, value in (("receivers", ends["receivers"]), ("edges", edges), ("weights", weights)):
            if value is not None and (np.ndim(value) < 1 or len(value) != count):
                raise ValueError(
                    f"Graph: {name} is {list(np.shape(value))}, but senders has {count} edges; want one each"
                )
        if weights is not None and np.ndim(weights) != 1:
            raise ValueError(f"Graph: weights is {list(np.shape(weights))}; want [E]; features of edges go to `edges`")
        return _arrays(
            cls(
                nodes,
                **ends,
                n_node=np.array([len(nodes)], np.int32),
                n_edge=np.array([count], np.int32),
                edges=edges,
                weights=weights,
                context=None if context is None else np.asarray(context)[None],
            )
        )

    @property
    def node_mask(self) -> Bool[Array, "N"]:
        """`[N]`: True where a node is real, False where it is padding."""
        return jnp.arange(jnp.shape(self.nodes)[0], dtype=jnp.int32) < jnp.sum(
            jnp.asarray(self.n_node), dtype=jnp.int32
        )

    @property
    def edge_mask(self) -> Bool[Array, "E"]:
        """`[E]`: True where an edge is real."""
        return jnp.arange(jnp.shape(self.senders)[0], dtype=jnp.int32) < jnp.sum(
            jnp.asarray(self.n_edge), dtype=jnp.int32
        )

    @property
    def graph_mask(self) -> Bool[Array, "G"]:
        """`[G]`: True where a graph is real: it has a node."""
        return jnp.asarray(self.n_node) > 0

    @property
    def graph_ids(self) -> Int[Array, "N"]:
        """`[N]`: the graph that each node belongs to; G at padding. torch_geometric: `batch`."""
        return _owners(self.n_node, jnp.shape(self.nodes)[0])

    @property
    def edge_graph_ids(self) -> Int[Array, "E"]:
        """`[E]`: the graph that each edge belongs to; G at padding."""
        return _owners(self.n_edge, jnp.shape(self.senders)[0])


def _owners(counts: Any, total: int) -> Array:
    ends = jnp.cumsum(jnp.asarray(counts), dtype=jnp.int32)
    return jnp.searchsorted(ends, jnp.arange(total, dtype=jnp.int32), side="right").astype(jnp.int32)


def _arrays(graph: Graph) -> Graph:
    return Graph(*(None if leaf is None else jnp.asarray(leaf) for leaf in graph))


def _numpy(graph: Graph) -> Graph:
    return Graph(*(None if leaf is None else np.asarray(leaf) for leaf in graph))


def _unpadded(graph: Graph) -> Graph:
    """The real part, in NumPy."""
    held = _numpy(graph)
    n, e = int(held.n_node.sum()), int(held.n_edge.sum())
    g = int(np.flatnonzero(held.n_node)[-1]) + 1 if n else 0
    if n > len(held.nodes) or e > len(held.senders):
        raise ValueError(
            f"Graph: n_node sums to {n} and n_edge to {e}, but there are {len(held.nodes)} nodes and "
            f"{len(held.senders)} edges"
        )
    cut = {"nodes": n, "senders": e, "receivers": e, "n_node": g, "n_edge": g, "edges": e, "weights": e, "context": g}
    return Graph(**{k: None if v is None else v[: cut[k]] for k, v in held._asdict().items()})


def batch_graphs(graphs: Sequence[Graph]) -> Graph:
    """One `Graph` that holds all of them, side by side, without their padding. jraph: `batch`.

    >>> one = Graph.from_edges([0], [1], np.ones((2, 3), np.float32))
    >>> batch_graphs([one, one]).receivers
    Array([1, 3], dtype=int32)

    Raises:
      ValueError: no graphs; some with edge features, weights or context and some without; or of other widths.
    """
    if not graphs:
        raise ValueError("batch_graphs got no graphs; want at least one")
    parts = [_unpadded(graph) for graph in graphs]
    fields: dict[str, Any] = {}
    for name in Graph._fields:
        held = [getattr(part, name) for part in parts]
        if all(value is None for value in held):
            fields[name] = None
            continue
        shapes = [None if value is None else value.shape[1:] for value in held]
        if odd := [i for i, shape in enumerate(shapes) if shape != shapes[0]]:
            say = ["none" if s is None else f"[..., {', '.join(map(str, s))}]" for s in (shapes[0], shapes[odd[0]])]
            raise ValueError(
                f"batch_graphs: graph 0 has {name} {say[0]}, graph {odd[0]} has {say[1]}; want the same for all graphs"
            )
        fields[name] = np.concatenate(held)
    starts = np.cumsum([0, *(len(part.nodes) for part in parts[:-1])])
    for name in ("senders", "receivers"):
        moved = [getattr(part, name) + start for part, start in zip(parts, starts, strict=True)]
        fields[name] = np.concatenate(moved).astype(np.int32)
    return _arrays(Graph(**fields))


def unbatch_graphs(graph: Graph) -> list[Graph]:
    """The real graphs one by one, without padding: the inverse of `batch_graphs`.

    >>> one = Graph.from_edges([0], [1], np.ones((2, 3), np.float32))
    >>> [g.receivers.tolist() for g in unbatch_graphs(batch_graphs([one, one]))]
    [[1], [1]]
    """
    held = _unpadded(graph)
    n, e = (np.cumsum([0, *counts], dtype=np.int32) for counts in (held.n_node, held.n_edge))
    graphs = []
    for i in range(len(held.n_node)):
        own = {"nodes": slice(n[i], n[i + 1]), "n_node": slice(i, i + 1), "n_edge": slice(i, i + 1)}
        own |= dict.fromkeys(("senders", "receivers", "edges", "weights"), slice(e[i], e[i + 1]))
        own["context"] = slice(i, i + 1)
        fields = {k: None if v is None else v[own[k]] for k, v in held._asdict().items()}
        fields["senders"], fields["receivers"] = fields["senders"] - n[i], fields["receivers"] - n[i]
        graphs.append(_arrays(Graph(**fields)))
    return graphs


def size_bucket(n: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... (`2^k` and `3 2^k`) that is at least `n`.

    Less than a third of it is padding.

    >>> [size_bucket(n) for n in (1, 5, 7, 9, 100)]
    [1, 6, 8, 12, 128]
    """
    power = 1 << max(n - 1, 0).bit_length()
    return power // 4 * 3 if power >= 4 and n <= power // 4 * 3 else power


def pad_graph(graph: Graph, n_node: int | None = None, n_edge: int | None = None, n_graph: int | None = None) -> Graph:
    """The same graphs in arrays of `n_node` nodes, `n_edge` edges and `n_graph` graphs. jraph: `pad_with_graphs`.

    A compiled function is compiled again for every new shape, so graphs of many sizes are padded to few. A size that is
    not given is rounded up to the next `size_bucket`. Padding holds zeros; its edges have `senders = receivers =
    n_node`, which is no node. The layers of `dlkit.nn` give the same numbers with any padding, whatever it holds.

    >>> graph = Graph.from_edges([0, 1, 2, 3, 4], [1, 2, 3, 4, 0], np.ones((5, 3), np.float32))
    >>> padded = pad_graph(graph)
    >>> padded.nodes.shape, padded.senders.shape
    ((6, 3), (6,))

    Raises:
      ValueError: the graphs need more than the given size.
    """
    held = _unpadded(graph)
    sizes = {}
    for name, unit, given, need in (
        ("n_node", "nodes", n_node, len(held.nodes)),
        ("n_edge", "edges", n_edge, len(held.senders)),
        ("n_graph", "graphs", n_graph, len(held.n_node)),
    ):
        if given is not None and given < need:
            raise ValueError(
                f"pad_graph: {name}={given}, but there are {need} {unit}; want {name} of at least {need} "
                f"({size_bucket(need)}, say), or fewer graphs in the batch"
            )
        sizes[name] = size_bucket(need) if given is None else given

    def grow(value: Any, size: int, fill: int = 0) -> Any:
        if value is None:
            return None
        width = [(0, size - len(value)), *[(0, 0)] * (value.ndim - 1)]
        return np.pad(value, width, constant_values=fill)

    n, e, g = sizes["n_node"], sizes["n_edge"], sizes["n_graph"]
    return _arrays(
        Graph(
            nodes=grow(held.nodes, n),
            senders=grow(held.senders, e, n),
            receivers=grow(held.receivers, e, n),
            n_node=grow(held.n_node, g),
            n_edge=grow(held.n_edge, g),
            edges=grow(held.edges, e),
            weights=grow(held.weights, e),
            context=grow(held.context, g),
        )
    )
