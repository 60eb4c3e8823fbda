"""Graph attention: each node weighs its neighbours by a softmax over what comes in."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional import Graph
from dlkit.nn.checks import check_rate, describe
from dlkit.nn.graphs.graph import real_graph, with_nodes
from dlkit.nn.initializers import Initializer, Zeros, glorot_uniform
from dlkit.nn.layer import Layer
from dlkit.nn.linear import LinearParams
from dlkit.nn.mode import Mode, fold_name

__all__ = ["GATConv", "GATConvParams", "GATv2Conv", "GATv2ConvParams"]


class GATConvParams(TypedDict):
    w: Float[Array, "d_in heads*d_out"]
    a_sender: Float[Array, "heads d_out"]
    a_receiver: Float[Array, "heads d_out"]
    b: NotRequired[Float[Array, "d"]]


@dataclass(frozen=True)
class GATConv(Layer[GATConvParams, None]):
    """A weighted mean over the neighbours: `Graph` to `Graph`, nodes `[N, d_in]` to `[N, heads d_out]`.

        h_i = x_i w                                            one for each head
        l_ji = leaky_relu(a_sender . h_j + a_receiver . h_i)   for the edges j -> i, and i -> i
        p_ji = softmax over j of l_ji
        y_i = sum over j of p_ji h_j + b

    The heads stand side by side, or with `concat=False` y is their mean, `[N, d_out]`. With `self_loops` each node is
    its own neighbour, once, whether the graph has that edge or not. In training each p_ji is dropped with probability
    `rate` (drawn from `mode.rng("attention")`). Weights and features of edges are not looked at.

    Parameters: `w` `[d_in, heads d_out]`, `a_sender` and `a_receiver` `[heads, d_out]`, all with Glorot's uniform, and
    `b` from 0 unless `bias=False`. torch_geometric computes the same (`lin`, `att_src`, `att_dst`).

    >>> layer = GATConv(3, 8, heads=2)
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)))
    >>> from dlkit.nn import EVAL
    >>> layer.apply(layer.init(jax.random.key(0)), None, graph, EVAL)[0].nodes.shape
    (2, 16)

    Raises:
      TypeError: x is no `Graph`, or its nodes are not of the weights' dtype.
      ValueError: the last axis of the nodes is not `d_in`; fewer than one head; a rate outside [0, 1].

    Reference: Velickovic et al., Graph attention networks, 2017, arXiv:1710.10903.
    """

    d_in: int
    d_out: int
    heads: int = 1
    concat: bool = True
    rate: float = 0.0
    negative_slope: float = 0.2
    self_loops: bool = True
    bias: bool = True
    w_init: Initializer = glorot_uniform()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        _check(self)

    def init(self, key: Any) -> GATConvParams:
        params: Any = {"w": self.w_init(fold_name(key, "w"), (self.d_in, self.heads * self.d_out))}
        for name in ("a_sender", "a_receiver"):
            params[name] = _init_vector(key, self, name)
        return params | _init_bias(key, self)

    def apply(self, params: GATConvParams, state: None, x: Graph, mode: Mode) -> tuple[Graph, None]:
        h, logits, senders, receivers = self._score(params, x)
        return with_nodes(x, _attend(self, params, logits, h, senders, receivers, mode)), None

    def attention(self, params: GATConvParams, x: Graph) -> tuple[Array, Array, Array]:
        """Who looks at whom, and how much: senders `[E]`, receivers `[E]` and p `[E, heads]`, without dropout.

        The p of the edges into one node add up to 1. With `self_loops` the edge of each node to itself comes last, N of
        them. A receiver of N stands for an edge that is not used: padding, or a self loop that the graph had already.
        """
        _, logits, senders, receivers = self._score(params, x)
        return senders, receivers, functional.segment_softmax(logits, receivers, x.nodes.shape[0])

    def _score(self, params: GATConvParams, x: Graph) -> tuple[Array, Array, Array, Array]:
        graph = real_graph(self, x, self.d_in, params["w"])
        senders, receivers = _ends(self, graph)
        h = functional.linear(graph.nodes, params["w"]).reshape(-1, self.heads, self.d_out)
        sent = jnp.sum(h * params["a_sender"][None], axis=-1)
        got = jnp.sum(h * params["a_receiver"][None], axis=-1)
        logits = functional.take_rows(sent, senders) + functional.take_rows(got, receivers)
        return h, functional.leaky_relu(logits, self.negative_slope), senders, receivers


class GATv2ConvParams(TypedDict):
    sender: LinearParams
    receiver: LinearParams
    a: Float[Array, "heads d_out"]
    b: NotRequired[Float[Array, "d"]]


@dataclass(frozen=True)
class GATv2Conv(Layer[GATv2ConvParams, None]):
    """`GATConv` with weights that rank the neighbours of each node in an order of its own.

        s_j = x_j w_sender + b_sender,   r_i = x_i w_receiver + b_receiver     one for each head
        l_ji = a . leaky_relu(s_j + r_i)                                       for the edges j -> i, and i -> i
        p_ji = softmax over j of l_ji
        y_i = sum over j of p_ji s_j + b

    In `GATConv` the node that gets the highest weight is the same for every receiver. Fields as there. Parameters:
    `sender` and `receiver`, each `w` `[d_in, heads d_out]` and `b` `[heads d_out]`, `a` `[heads, d_out]`, `b`; no `b`
    with `bias=False`. torch_geometric computes the same (`lin_l`, `lin_r`, `att`).

    >>> layer = GATv2Conv(3, 8, heads=2, concat=False)
    >>> graph = Graph.from_edges([0, 1], [1, 0], jnp.ones((2, 3)))
    >>> from dlkit.nn import EVAL
    >>> layer.apply(layer.init(jax.random.key(0)), None, graph, EVAL)[0].nodes.shape
    (2, 8)

    Raises:
      TypeError: x is no `Graph`, or its nodes are not of the weights' dtype.
      ValueError: the last axis of the nodes is not `d_in`; fewer than one head; a rate outside [0, 1].

    Reference: Brody, Alon and Yahav, How attentive are graph attention networks?, 2021, arXiv:2105.14491.
    """

    d_in: int
    d_out: int
    heads: int = 1
    concat: bool = True
    rate: float = 0.0
    negative_slope: float = 0.2
    self_loops: bool = True
    bias: bool = True
    w_init: Initializer = glorot_uniform()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        _check(self)

    def init(self, key: Any) -> GATv2ConvParams:
        shape = (self.d_in, self.heads * self.d_out)
        params: Any = {"a": _init_vector(key, self, "a")}
        for name in ("sender", "receiver"):
            below = fold_name(key, name)
            params[name] = {"w": self.w_init(fold_name(below, "w"), shape)}
            if self.bias:
                params[name]["b"] = self.b_init(fold_name(below, "b"), shape[1:], fans=shape)
        return params | _init_bias(key, self)

    def apply(self, params: GATv2ConvParams, state: None, x: Graph, mode: Mode) -> tuple[Graph, None]:
        sent, logits, senders, receivers = self._score(params, x)
        return with_nodes(x, _attend(self, params, logits, sent, senders, receivers, mode)), None

    def attention(self, params: GATv2ConvParams, x: Graph) -> tuple[Array, Array, Array]:
        """Who looks at whom, and how much: senders `[E]`, receivers `[E]`, p `[E, heads]`, as `GATConv.attention`."""
        _, logits, senders, receivers = self._score(params, x)
        return senders, receivers, functional.segment_softmax(logits, receivers, x.nodes.shape[0])

    def _score(self, params: GATv2ConvParams, x: Graph) -> tuple[Array, Array, Array, Array]:
        graph = real_graph(self, x, self.d_in, params["sender"]["w"])
        senders, receivers = _ends(self, graph)

        def heads(held: LinearParams) -> Array:
            return functional.linear(graph.nodes, held["w"], held.get("b")).reshape(-1, self.heads, self.d_out)

        sent, got = heads(params["sender"]), heads(params["receiver"])
        pairs = functional.take_rows(sent, senders) + functional.take_rows(got, receivers)
        logits = jnp.sum(functional.leaky_relu(pairs, self.negative_slope) * params["a"][None], axis=-1)
        return sent, logits, senders, receivers


def _check(layer: GATConv | GATv2Conv) -> None:
    if layer.heads < 1:
        raise ValueError(f"{describe(layer)}: expected at least one head")
    check_rate(layer)


def _init_vector(key: Any, layer: GATConv | GATv2Conv, name: str) -> Array:
    # A head's vector is the weight of a map from d_out features to one number.
    return layer.w_init(fold_name(key, name), (layer.heads, layer.d_out), fans=(layer.d_out, 1))


def _init_bias(key: Any, layer: GATConv | GATv2Conv) -> dict[str, Array]:
    d = layer.heads * layer.d_out if layer.concat else layer.d_out
    return {"b": layer.b_init(fold_name(key, "b"), (d,), fans=(layer.d_in, d))} if layer.bias else {}


def _ends(layer: GATConv | GATv2Conv, graph: Graph) -> tuple[Array, Array]:
    """Senders and receivers, with one edge from each real node to itself where the layer has self loops."""
    if not layer.self_loops:
        return graph.senders, graph.receivers
    n = graph.nodes.shape[0]
    itself = jnp.where(graph.node_mask, jnp.arange(n, dtype=graph.senders.dtype), n)
    receivers = jnp.where(graph.senders == graph.receivers, n, graph.receivers)
    return jnp.concatenate([graph.senders, itself]), jnp.concatenate([receivers, itself])


def _attend(
    layer: GATConv | GATv2Conv, params: Any, logits: Array, values: Array, senders: Array, receivers: Array, mode: Mode
) -> Array:
    """logits `[E, heads]`, values `[N, heads, d_out]`: the weighted sums, with the heads joined, `[N, d]`."""
    n = values.shape[0]
    p = functional.segment_softmax(logits, receivers, n)
    p = functional.dropout(mode.rng("attention") if layer.rate > 0 else None, p, layer.rate)
    y = functional.segment_sum(p[..., None] * functional.take_rows(values, senders), receivers, n)
    y = y.reshape(n, -1) if layer.concat else y.mean(axis=1)
    return y + params["b"][None] if "b" in params else y
