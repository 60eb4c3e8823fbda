"""Graph layers and memory."""

import jax.numpy as jnp
import numpy as np

from dlkit import nn
from dlkit.functional import Graph
from rows.row import Row, normal

# Two graphs, 4 + 3 nodes, 8 edges, and padding: one node, one edge, one graph.
GRAPH = Graph(
    nodes=normal(8, 16),
    senders=np.array([0, 1, 1, 2, 4, 6, 5, 5, 8], np.int32),
    receivers=np.array([1, 0, 2, 1, 5, 5, 6, 4, 8], np.int32),
    n_node=np.array([4, 3, 0], np.int32),
    n_edge=np.array([4, 4, 0], np.int32),
    edges=normal(9, 4),
    weights=np.linspace(0.5, 1.5, 9, dtype=np.float32),
    context=normal(3, 2),
)
PLAIN = GRAPH._replace(edges=None, weights=None, context=None)
# Nodes see each other, and the output is no array.
OPTIONS = {"batched": False, "unbiased": False}

ROWS = [
    Row(nn.GCNConv(16, 8), GRAPH, {"b": (8,), "w": (16, 8)}, options=OPTIONS),
    Row(nn.GCNConv(16, 24, bias=False, self_loops=False), PLAIN, {"w": (16, 24)}, options=OPTIONS),
    Row(nn.SGConv(16, 8), GRAPH, {"b": (8,), "w": (16, 8)}, options=OPTIONS, composed=True),
    Row(nn.APPNP(3, rate=0.4), GRAPH, options=OPTIONS, composed=True),
    Row(nn.EdgeConv(nn.Linear(32, 8)), PLAIN, {"inner/b": (8,), "inner/w": (32, 8)}, options=OPTIONS),
    Row(
        nn.DeepSets(nn.Chain(nn.Linear(16, 8), nn.Relu()), nn.Linear(8, 4)),
        normal(3, 5, 16),
        {"inner/linear1/b": (8,), "inner/linear1/w": (16, 8), "outer/b": (4,), "outer/w": (8, 4)},
        options={"inputs": {"mask": jnp.ones((3, 5), bool)}},
    ),
    Row(nn.SAGEConv(16, 8), PLAIN, {"b": (8,), "w": (16, 8), "w_root": (16, 8)}, options=OPTIONS),
    Row(nn.SAGEConv(16, 8, "max", root=False), PLAIN, {"b": (8,), "w": (16, 8)}, options=OPTIONS),
    Row(nn.GINConv(nn.Linear(16, 8)), PLAIN, {"eps": (), "inner/b": (8,), "inner/w": (16, 8)}, options=OPTIONS),
    Row(
        nn.GINEConv(nn.Linear(16, 8), edge=nn.Linear(4, 16), learn_eps=False),
        GRAPH,
        {"edge/b": (16,), "edge/w": (4, 16), "inner/b": (8,), "inner/w": (16, 8)},
        options=OPTIONS,
    ),
    Row(
        nn.GATConv(16, 8, heads=2, rate=0.4),
        PLAIN,
        {"a_receiver": (2, 8), "a_sender": (2, 8), "b": (16,), "w": (16, 16)},
        options=OPTIONS,
    ),
    Row(
        nn.GATv2Conv(16, 8, heads=2, concat=False),
        PLAIN,
        {
            "a": (2, 8),
            "b": (8,),
            "receiver/b": (16,),
            "receiver/w": (16, 16),
            "sender/b": (16,),
            "sender/w": (16, 16),
        },
        options=OPTIONS,
    ),
    Row(
        nn.MessagePassing(nn.Linear(36, 8), nn.Linear(24, 8), "mean"),
        GRAPH,
        {"message/b": (8,), "message/w": (36, 8), "update/b": (8,), "update/w": (24, 8)},
        options=OPTIONS,
    ),
    Row(
        nn.GraphNetwork(nn.Linear(38, 5), nn.Linear(23, 6), nn.Linear(13, 7)),
        GRAPH,
        {
            "context/b": (7,),
            "context/w": (13, 7),
            "edge/b": (5,),
            "edge/w": (38, 5),
            "node/b": (6,),
            "node/w": (23, 6),
        },
        options=OPTIONS,
    ),
    Row(nn.OnNodes(nn.Linear(16, 8)), PLAIN, {"b": (8,), "w": (16, 8)}, options=OPTIONS),
    Row(nn.GraphNorm(16), PLAIN, {"mean_scale": (16,), "scale": (16,), "shift": (16,)}, options=OPTIONS),
    Row(nn.GraphPool("mean"), PLAIN, options=OPTIONS),
    Row(
        nn.Chain(nn.GCNConv(16, 8), nn.OnNodes(nn.Dropout(0.5)), nn.GraphPool("max"), head=nn.Linear(8, 2)),
        PLAIN,
        {"gcnconv1/b": (8,), "gcnconv1/w": (16, 8), "head/b": (2,), "head/w": (8, 2)},
        options=OPTIONS,
    ),
    Row(
        nn.NTM(16, 8, hidden=12, slots=6, width=5),
        normal(2, 4, 16),
        {
            "controller/hidden/w": (12, 48),
            "controller/input/b": (48,),
            "controller/input/w": (21, 48),
            "heads/b": (32,),
            "heads/w": (12, 32),
            "output/b": (8,),
            "output/w": (17, 8),
        },
    ),
]
