"""Networks for the nodes of a graph: GCN, GAT, GraphSAGE, with the settings of their papers."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.functional import Graph
from dlkit.nn import Mode
from dlkit.nn.checks import describe

__all__ = ["NodeOutputs", "gat", "gcn", "graph_sage"]


@dataclass(frozen=True)
class NodeOutputs(nn.Layer[Any, Any]):
    """A network on graphs, given as arrays: `(x [B, N, d], senders [B, E], receivers [B, E])` to `[B, N, c]`.

    For training on batches of arrays: an example is a whole graph of N nodes and E edges, its targets are `[B, N]`, and
    the batch's weights `[B, N]` say which nodes count. `body` maps a `Graph` to a `Graph`; parameters are those of
    `body`, which must not remember anything.

    >>> model = NodeOutputs(gcn(3, 2))
    >>> graph = (jnp.ones((1, 2, 3)), jnp.array([[0, 1]]), jnp.array([[1, 0]]))
    >>> model.apply(model.init(jax.random.key(0)), None, graph, nn.EVAL)[0].shape
    (1, 2, 2)

    Raises:
      ValueError: x is no such tuple.
    """

    body: nn.Layer

    def children(self) -> dict[str, nn.Layer]:
        return {"": self.body}

    def init(self, key: Any) -> Any:
        return self.body.init(key)

    def init_state(self) -> Any:
        return self.body.init_state()

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Float[Array, "B N c"], Any]:
        if not isinstance(x, tuple) or len(x) != 3 or jnp.ndim(x[0]) != 3:
            raise ValueError(f"{describe(self)} wants (x [B, N, d], senders [B, E], receivers [B, E])")

        def one(nodes: Array, senders: Array, receivers: Array, mode: Mode) -> Array:
            n_node, n_edge = (jnp.full(1, len(a), jnp.int32) for a in (nodes, senders))
            graph = Graph(nodes, senders, receivers, n_node, n_edge)
            return self.body.apply(params, state, graph, mode)[0].nodes

        if x[0].shape[0] == 1:  # one graph, as in transductive learning: segments are sums without a batch axis
            nodes, senders, receivers = x
            return one(nodes[0], senders[0], receivers[0], mode.at(0))[None], state
        return jax.vmap(one)(*x, mode.split(x[0].shape[0])), state


def gcn(d_in: int, classes: int, *, hidden: int = 16, dropout: float = 0.5) -> nn.Chain:
    """Two `nn.GCNConv` with a ReLU between and dropout in front of each: nodes `[N, d_in]` to `[N, classes]`.

    Args: `hidden` units; `dropout` is the probability of dropping a feature.

    >>> gcn(1433, 7).names
    ('dropout1', 'conv1', 'relu', 'dropout2', 'conv2')

    Reference: Kipf and Welling, Semi-supervised classification with graph convolutional networks, 2016,
    arXiv:1609.02907.
    """
    drop = nn.OnNodes(nn.Dropout(dropout))
    return nn.Chain(
        dropout1=drop, conv1=nn.GCNConv(d_in, hidden), relu=nn.OnNodes(nn.Relu()),
        dropout2=drop, conv2=nn.GCNConv(hidden, classes),
    )  # fmt: skip


def gat(
    d_in: int, classes: int, *, hidden: int = 8, heads: int = 8, out_heads: int = 1, dropout: float = 0.6
) -> nn.Chain:
    """Two `nn.GATConv` with an ELU between: `heads` side by side in the first, the mean of `out_heads` in the second.

    Args: `hidden` units of a head; `dropout` of features and of the attention's weights.

    >>> gat(1433, 7)["conv2"].d_in
    64

    Reference: Velickovic et al., Graph attention networks, 2017, arXiv:1710.10903.
    """
    drop = nn.OnNodes(nn.Dropout(dropout))
    return nn.Chain(
        dropout1=drop, conv1=nn.GATConv(d_in, hidden, heads, rate=dropout), elu=nn.OnNodes(nn.Elu()),
        dropout2=drop, conv2=nn.GATConv(heads * hidden, classes, out_heads, concat=False, rate=dropout),
    )  # fmt: skip


def graph_sage(d_in: int, classes: int, *, hidden: int = 64, dropout: float = 0.5) -> nn.Chain:
    """Two `nn.SAGEConv` (means of neighbours) with a ReLU between, dropout in front of each.

    All neighbours are used, where the paper draws some of them.

    >>> graph_sage(1433, 7)["conv1"].d_out
    64

    Reference: Hamilton, Ying and Leskovec, Inductive representation learning on large graphs, 2017, arXiv:1706.02216.
    """
    drop = nn.OnNodes(nn.Dropout(dropout))
    return nn.Chain(
        dropout1=drop, conv1=nn.SAGEConv(d_in, hidden), relu=nn.OnNodes(nn.Relu()),
        dropout2=drop, conv2=nn.SAGEConv(hidden, classes),
    )  # fmt: skip
