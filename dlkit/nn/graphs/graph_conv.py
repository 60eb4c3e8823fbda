"""Graph convolutions: each node becomes a function of itself and of the sum, mean or maximum of its neighbours."""

import math
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional import Graph
from dlkit.functional.graphs.propagate import Aggregate
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.combinators import _Combinator
from dlkit.nn.graphs.graph import check_aggregate, need_edges, real_graph, with_nodes
from dlkit.nn.initializers import Initializer, Zeros, glorot_uniform
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.linear import LinearParams, init_affine
from dlkit.nn.mode import Mode, fold_name

__all__ = ["GCNConv", "GINConv", "GINEConv", "SAGEConv", "SAGEConvParams"]


@dataclass(frozen=True)
class GCNConv(Pure[LinearParams]):
    """`y = D^(-1/2) (A + I) D^(-1/2) x w + b`: `Graph` to `Graph`, nodes `[N, d_in]` to `[N, d_out]`.

    A_ij is the weight of the edges from node j to node i (`graph.weights`; 1 without), D the row sums of A + I.
    `self_loops=False` leaves I out. Features of edges are not looked at.

    Parameters: `w` `[d_in, d_out]` with Glorot's uniform, `b` `[d_out]` from 0 unless `bias=False`. In torch_geometric
    a node that already has an edge to itself gets no second one from I; the rest is the same.

    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.array([[1.0], [3.0]]))
    >>> GCNConv(1, 1, bias=False)({"w": jnp.ones((1, 1))}, graph).nodes.round(5).tolist()
    [[2.0], [2.0]]

    Raises:
      TypeError: x is no `Graph`, or its nodes are not of the weights' dtype.
      ValueError: the last axis of the nodes is not `d_in`.

    Reference: Kipf and Welling, Semi-supervised classification with graph convolutional networks, 2016,
    arXiv:1609.02907.
    """

    d_in: int
    d_out: int
    bias: bool = True
    self_loops: bool = True
    w_init: Initializer = glorot_uniform()
    b_init: Initializer = Zeros()

    def init(self, key: Any) -> LinearParams:
        return init_affine(key, self, (self.d_in, self.d_out), (self.d_in, self.d_out))

    def __call__(self, params: LinearParams, x: Graph) -> Graph:
        w, b = params["w"], params.get("b")
        graph = real_graph(self, x, self.d_in, w)

        def propagate(h: Array) -> Array:
            return functional.gcn_propagate(
                h, graph.senders, graph.receivers, graph.weights, self_loops=self.self_loops
            )

        # The two products commute: the features travel along the edges where they are fewer.
        if self.d_out <= self.d_in:
            y = propagate(functional.linear(graph.nodes, w))
        else:
            y = functional.linear(propagate(graph.nodes), w)
        return with_nodes(x, y if b is None else y + b[None])


class SAGEConvParams(TypedDict):
    w: Float[Array, "d_in d_out"]
    w_root: NotRequired[Float[Array, "d_in d_out"]]
    b: NotRequired[Float[Array, "d_out"]]


@dataclass(frozen=True)
class SAGEConv(Pure[SAGEConvParams]):
    """`y_i = x_i w_root + aggregate(x_j, j -> i) w + b`: `Graph` to `Graph`, nodes `[N, d_in]` to `[N, d_out]`.

    `aggregate` is `"mean"`, `"max"`, `"sum"` or `"min"`, 0 for a node that receives nothing. `root=False` leaves the
    first term out. Weights and features of edges are not looked at.

    Parameters: `w` and `w_root` `[d_in, d_out]` with Glorot's uniform, `b` `[d_out]` from 0. torch_geometric has the
    same under the names `lin_l` and `lin_r`, drawn as torch's linear layers are (`init_preset`).

    >>> layer = SAGEConv(3, 8, aggregate="max")
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)))
    >>> layer(layer.init(jax.random.key(0)), graph).nodes.shape
    (2, 8)

    Raises:
      TypeError: x is no `Graph`, or its nodes are not of the weights' dtype.
      ValueError: the last axis of the nodes is not `d_in`; an unknown `aggregate`.

    Reference: Hamilton, Ying and Leskovec, Inductive representation learning on large graphs, 2017, arXiv:1706.02216.
    """

    d_in: int
    d_out: int
    aggregate: Aggregate = "mean"
    root: bool = True
    bias: bool = True
    w_init: Initializer = glorot_uniform()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        check_aggregate(self, self.aggregate)

    def init(self, key: Any) -> SAGEConvParams:
        shape = (self.d_in, self.d_out)
        params = init_affine(key, self, shape, shape)
        if self.root:
            params["w_root"] = self.w_init(fold_name(key, "w_root"), shape, fans=shape)
        return params

    def __call__(self, params: SAGEConvParams, x: Graph) -> Graph:
        graph = real_graph(self, x, self.d_in, params["w"])
        nodes, n = graph.nodes, graph.nodes.shape[0]

        def gather(h: Array) -> Array:
            return functional.aggregate(functional.take_rows(h, graph.senders), graph.receivers, n, self.aggregate)

        if self.aggregate in ("sum", "mean") and self.d_out < self.d_in:  # linear: fewer features travel
            y = gather(functional.linear(nodes, params["w"]))
        else:
            y = functional.linear(gather(nodes), params["w"])
        if "w_root" in params:
            y = y + functional.linear(nodes, params["w_root"])
        return with_nodes(x, y + params["b"][None] if "b" in params else y)


@dataclass(frozen=True)
class GINConv(_Combinator):
    """`y_i = inner((1 + ε) x_i + sum of x_j over j -> i)`: `Graph` to `Graph`; `inner` is any layer, an MLP mostly.

    Parameters: those of `inner`, and `eps`, the number ε, from the field `eps`; fixed at it with `learn_eps=False`,
    which is torch_geometric's default (`train_eps=False`).

    >>> from dlkit import nn
    >>> layer = GINConv(nn.Chain(nn.Linear(3, 8), nn.Relu(), nn.Linear(8, 8)))
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)))
    >>> layer(layer.init(jax.random.key(0)), graph).nodes.shape
    (2, 8)

    Raises:
      TypeError: x is no `Graph`.

    Reference: Xu, Hu, Leskovec and Jegelka, How powerful are graph neural networks?, 2018, arXiv:1810.00826.
    """

    inner: Layer
    eps: float = 0.0
    learn_eps: bool = True

    def init(self, key: Any) -> Any:
        return {**super().init(key), **_init_eps(self)}

    def apply(self, params: Any, state: Any, x: Graph, mode: Mode) -> tuple[Graph, Any]:
        graph = real_graph(self, x)
        nodes = graph.nodes
        received = functional.aggregate(
            functional.take_rows(nodes, graph.senders), graph.receivers, nodes.shape[0], "sum"
        )
        return _through_inner(self, params, state, x, nodes, received, mode)


@dataclass(frozen=True)
class GINEConv(_Combinator):
    """`y_i = inner((1 + ε) x_i + sum of max(x_j + e_ji, 0) over j -> i)`: `GINConv` that sees the features of edges.

    `edge` is a layer that maps them to the width of the nodes, `Linear(d_e, d)` mostly; without it they must have it.

    >>> from dlkit import nn
    >>> layer = GINEConv(nn.Linear(3, 8), edge=nn.Linear(2, 3))
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)), edges=jnp.ones((2, 2)))
    >>> layer(layer.init(jax.random.key(0)), graph).nodes.shape
    (2, 8)

    Raises:
      TypeError: x is no `Graph`, or its edges are not of the dtype of the nodes.
      ValueError: the graph has no edge features, or of another width than the nodes.

    Reference: Hu et al., Strategies for pre-training graph neural networks, 2019, arXiv:1905.12265.
    """

    inner: Layer
    edge: Layer | None = None
    eps: float = 0.0
    learn_eps: bool = True

    def init(self, key: Any) -> Any:
        return {**super().init(key), **_init_eps(self)}

    def apply(self, params: Any, state: Any, x: Graph, mode: Mode) -> tuple[Graph, Any]:
        graph = real_graph(self, x, edges=True)
        nodes, edges = graph.nodes, need_edges(self, graph)
        remembered = {}
        if self.edge is not None:
            edges, after = self.edge.apply(params["edge"], child_state(state, "edge"), edges, mode.at("edge"))
            remembered = {} if after is None else {"edge": after}
        because = f"the nodes have {nodes.shape[-1]} features (edge=nn.Linear(d_edge, {nodes.shape[-1]}) maps them)"
        check_axis(self, edges, -1, nodes.shape[-1], because, name="edges")
        check_float(self, edges, nodes, name="edges")
        messages = functional.relu(functional.take_rows(nodes, graph.senders) + edges)
        received = functional.aggregate(messages, graph.receivers, nodes.shape[0], "sum")
        y, after = _through_inner(self, params, state, x, nodes, received, mode)
        remembered |= after or {}
        return y, remembered or None


def _init_eps(layer: GINConv | GINEConv) -> dict[str, Array]:
    if not math.isfinite(layer.eps):
        raise ValueError(f"{describe(layer)}: expected a finite eps")
    return {"eps": jnp.asarray(layer.eps, jnp.float32)} if layer.learn_eps else {}


def _through_inner(
    layer: GINConv | GINEConv, params: Any, state: Any, x: Graph, nodes: Array, received: Array, mode: Mode
) -> tuple[Graph, Any]:
    eps = params["eps"].astype(nodes.dtype) if "eps" in params else jnp.asarray(layer.eps, nodes.dtype)
    mixed = (1 + eps) * nodes + received
    y, after = layer.inner.apply(params["inner"], child_state(state, "inner"), mixed, mode.at("inner"))
    return with_nodes(x, y), None if after is None else {"inner": after}
