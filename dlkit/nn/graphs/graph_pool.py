"""From nodes to graphs: pooling to one vector a graph, and a normalization over the nodes of each graph."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional import Graph
from dlkit.functional.graphs.propagate import Aggregate
from dlkit.nn.graphs.graph import check_aggregate, real_graph, with_nodes
from dlkit.nn.initializers import Initializer, Ones, Zeros
from dlkit.nn.layer import Pure
from dlkit.nn.mode import fold_name
from dlkit.nn.normalization.norms import init_norm

__all__ = ["GraphNorm", "GraphNormParams", "GraphPool"]


@dataclass(frozen=True)
class GraphPool(Pure[Any]):
    """The sum, mean, max or min over the nodes of each graph: `Graph` to an array `[G, d]`; 0 for graphs of padding.

    torch_geometric: `global_add_pool`, `global_mean_pool`, `global_max_pool`. With a graph without edges for each set,
    `Chain(OnNodes(phi), GraphPool("sum"), rho)` is Deep Sets (Zaheer et al. 2017, arXiv:1703.06114).

    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.array([[1.0, 2.0], [3.0, 0.0]]))
    >>> GraphPool("max")({}, graph).tolist()
    [[3.0, 2.0]]

    Raises:
      TypeError: x is no `Graph`.
      ValueError: an unknown `how`.
    """

    how: Aggregate = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self, self.how)

    def __call__(self, params: Any, x: Graph) -> Float[Array, "G d"]:
        graph = real_graph(self, x)
        return functional.aggregate(graph.nodes, graph.graph_ids, jnp.shape(graph.n_node)[0], self.how)


class GraphNormParams(TypedDict):
    scale: NotRequired[Float[Array, "d"]]
    shift: NotRequired[Float[Array, "d"]]
    mean_scale: Float[Array, "d"]


@dataclass(frozen=True)
class GraphNorm(Pure[GraphNormParams]):
    """`c = x - mean_scale mean`, `y = c / sqrt(mean(c^2) + eps) * scale + shift`, means over the nodes of each graph.

    Parameters `[d]`: `scale` from 1 and `shift` from 0, unless `affine=False`; `mean_scale` from 1: how much of the
    mean is taken away, as the mean may tell graphs apart. Computed in float32 or wider.

    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.array([[1.0], [3.0]]))
    >>> layer = GraphNorm(1)
    >>> layer(layer.init(jax.random.key(0)), graph).nodes.round(3).tolist()
    [[-1.0], [1.0]]

    Raises:
      TypeError: x is no `Graph`.
      ValueError: the last axis of the nodes is not `d`.

    Reference: Cai et al., GraphNorm: a principled approach to accelerating graph neural network training, 2020,
    arXiv:2009.03294.
    """

    d: int
    eps: float = 1e-5
    affine: bool = True
    scale_init: Initializer = Ones()
    shift_init: Initializer = Zeros()

    def init(self, key: Any) -> GraphNormParams:
        return init_norm(key, self) | {"mean_scale": Ones()(fold_name(key, "mean_scale"), (self.d,))}

    def __call__(self, params: GraphNormParams, x: Graph) -> Graph:
        graph = real_graph(self, x, self.d)
        nodes = graph.nodes.astype(functional.wide_dtype(graph.nodes.dtype))
        ids, n_graph = graph.graph_ids, jnp.shape(graph.n_node)[0]

        def mean(a: Array) -> Array:
            return functional.take_rows(functional.segment_mean(a, ids, n_graph), ids)

        centered = nodes - params["mean_scale"].astype(nodes.dtype)[None] * mean(nodes)
        y = centered * lax.rsqrt(mean(jnp.square(centered)) + self.eps)
        for name, combine in (("scale", jnp.multiply), ("shift", jnp.add)):
            if name in params:
                y = combine(y, params[name].astype(y.dtype)[None])
        return with_nodes(x, y.astype(graph.nodes.dtype))
