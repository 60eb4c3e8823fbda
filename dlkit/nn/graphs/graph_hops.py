"""Several steps of propagation without weights between them: SGC before a linear map, APPNP after a network."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.functional import Graph
from dlkit.nn.checks import check_rate, describe
from dlkit.nn.graphs.graph import real_graph, with_nodes
from dlkit.nn.initializers import Initializer, Zeros, glorot_uniform
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.linear import LinearParams, init_affine
from dlkit.nn.mode import Mode

__all__ = ["APPNP", "SGConv"]


@dataclass(frozen=True)
class SGConv(Pure[LinearParams]):
    """`y = P^hops x w + b`, P = `D^(-1/2) (A + I) D^(-1/2)` as in `GCNConv`: a linear model on smoothed features.

    `Graph` to `Graph`, nodes `[N, d_in]` to `[N, d_out]`. It is `hops` layers of a GCN without anything nonlinear
    between them, their weights one matrix. Parameters as in `GCNConv`. Features of edges are not looked at.

    torch_geometric: `SGConv(K=hops)`. `P^hops x` does not depend on parameters: to train on it many times, compute it
    once, `functional.appnp_propagate(x, ..., hops=hops)`, and put a `Linear` after it.

    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.array([[1.0], [3.0]]))
    >>> SGConv(1, 1, hops=3, bias=False)({"w": jnp.ones((1, 1))}, graph).nodes.round(5).tolist()
    [[2.0], [2.0]]

    Raises:
      TypeError: x is no `Graph`, or its nodes are not of the weights' dtype.
      ValueError: the last axis of the nodes is not `d_in`; fewer than one hop.

    Reference: Wu et al., Simplifying graph convolutional networks, 2019, arXiv:1902.07153.
    """

    d_in: int
    d_out: int
    hops: int = 2
    bias: bool = True
    self_loops: bool = True
    w_init: Initializer = glorot_uniform()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        _check_hops(self)

    def init(self, key: Any) -> LinearParams:
        return init_affine(key, self, (self.d_in, self.d_out), (self.d_in, self.d_out))

    def __call__(self, params: LinearParams, x: Graph) -> Graph:
        w, b = params["w"], params.get("b")
        graph = real_graph(self, x, self.d_in, w)

        def propagate(h: Array) -> Array:
            ends = (graph.senders, graph.receivers, graph.weights)
            return functional.appnp_propagate(h, *ends, hops=self.hops, self_loops=self.self_loops)

        # The products commute: the features travel along the edges where they are fewer.
        if self.d_out <= self.d_in:
            y = propagate(functional.linear(graph.nodes, w))
        else:
            y = functional.linear(propagate(graph.nodes), w)
        return with_nodes(x, y if b is None else y + b[None])


@dataclass(frozen=True)
class APPNP(Layer[Any, None]):
    """`hops` steps of `z <- (1 - alpha) P z + alpha x` from z = x: personalized PageRank of what a network predicts.

    `Graph` to `Graph`, nodes `[N, d]` to `[N, d]`, no parameters; P as in `GCNConv`. It stands after the layers with
    weights, `Chain(OnNodes(mlp), APPNP())`: far nodes are heard without a deeper network, and `alpha` keeps each node
    near its own prediction. In training each entry of P is dropped with probability `rate`, in every step anew (drawn
    from `mode.rng("edges")`). Features of edges are not looked at.

    torch_geometric: `APPNP(K=hops, alpha, dropout=rate)`.

    >>> from dlkit.nn import EVAL
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.array([[1.0], [3.0]]))
    >>> APPNP(alpha=0.5).apply({}, None, graph, EVAL)[0].nodes.round(2).tolist()
    [[1.5], [2.5]]

    Raises:
      TypeError: x is no `Graph`, or its nodes are not floating point.
      ValueError: fewer than one hop; `alpha` or `rate` outside [0, 1]; training without a key, unless `rate` is 0.

    Reference: Gasteiger, Bojchevski and Günnemann, Predict then propagate: graph neural networks meet personalized
    PageRank, 2018, arXiv:1810.05997.
    """

    hops: int = 10
    alpha: float = 0.1
    rate: float = 0.0
    self_loops: bool = True

    def __post_init__(self) -> None:
        _check_hops(self)
        check_rate(self)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"{describe(self)}: expected alpha in [0, 1], the share of a node's own prediction")

    def init(self, key: Any) -> Any:
        return {}

    def apply(self, params: Any, state: None, x: Graph, mode: Mode) -> tuple[Graph, None]:
        graph = real_graph(self, x)
        z = functional.appnp_propagate(
            jnp.asarray(graph.nodes),
            graph.senders,
            graph.receivers,
            graph.weights,
            hops=self.hops,
            alpha=self.alpha,
            self_loops=self.self_loops,
            key=mode.rng("edges") if self.rate > 0 else None,
            rate=self.rate,
        )
        return with_nodes(x, z), None


def _check_hops(layer: SGConv | APPNP) -> None:
    if layer.hops < 1:
        raise ValueError(f"{describe(layer)}: expected at least one hop, got {layer.hops}")
