"""Graph layers under copied weights: torch_geometric's own numbers, values and gradients.

torch_geometric is heavy and not in the `test` extra, so its results are in `tests/golden/graphs_pyg.npz`. Where it is
installed (2.8.1 with torch 2.13 wrote the file) the comparison runs live, and this writes the file anew:

    pytest -n 0 --write-golden tests/nn/test_graphs_pyg.py

Tolerance: float32 1e-5, sums of a handful of terms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, tree
from dlkit.functional import Graph, batch_graphs

# name: the layer, torch_geometric's class with its arguments, and what our parameters are called there ("T":
# transposed, "H": with an axis in front).
CASES = {
    "gcn": (nn.GCNConv(5, 4), ("GCNConv", (5, 4), {}), {"w": "lin.weight T", "b": "bias"}),
    "sage_mean": (
        nn.SAGEConv(5, 4),
        ("SAGEConv", (5, 4), {}),
        {"w": "lin_l.weight T", "b": "lin_l.bias", "w_root": "lin_r.weight T"},
    ),
    "sage_max": (
        nn.SAGEConv(5, 4, "max", root=False),
        ("SAGEConv", (5, 4), {"aggr": "max", "root_weight": False}),
        {"w": "lin_l.weight T", "b": "lin_l.bias"},
    ),
    "gat": (
        nn.GATConv(5, 4, heads=2),
        ("GATConv", (5, 4), {"heads": 2}),
        {"w": "lin.weight T", "a_sender": "att_src H", "a_receiver": "att_dst H", "b": "bias"},
    ),
    "gat_mean": (
        nn.GATConv(5, 4, heads=3, concat=False, self_loops=False),
        ("GATConv", (5, 4), {"heads": 3, "concat": False, "add_self_loops": False}),
        {"w": "lin.weight T", "a_sender": "att_src H", "a_receiver": "att_dst H", "b": "bias"},
    ),
    "gatv2": (
        nn.GATv2Conv(5, 4, heads=2),
        ("GATv2Conv", (5, 4), {"heads": 2}),
        {
            "sender/w": "lin_l.weight T",
            "sender/b": "lin_l.bias",
            "receiver/w": "lin_r.weight T",
            "receiver/b": "lin_r.bias",
            "a": "att H",
            "b": "bias",
        },
    ),
    "gin": (
        nn.GINConv(nn.Linear(5, 4), eps=0.3),
        ("GINConv", (("Linear", 5, 4),), {"eps": 0.3, "train_eps": True}),
        {"inner/w": "nn.weight T", "inner/b": "nn.bias", "eps": "eps H"},
    ),
    "gine": (
        nn.GINEConv(nn.Linear(5, 4), nn.Linear(3, 5), learn_eps=False),
        ("GINEConv", (("Linear", 5, 4),), {"edge_dim": 3}),
        {"inner/w": "nn.weight T", "inner/b": "nn.bias", "edge/w": "lin.weight T", "edge/b": "lin.bias"},
    ),
    "sgc": (
        nn.SGConv(5, 4, hops=3),
        ("SGConv", (5, 4), {"K": 3}),
        {"w": "lin.weight T", "b": "lin.bias"},
    ),
    "appnp": (nn.APPNP(4, alpha=0.2), ("APPNP", (), {"K": 4, "alpha": 0.2}), {}),
    "edge_conv": (
        nn.EdgeConv(nn.Linear(10, 4)),
        ("EdgeConv", (("Linear", 10, 4),), {}),
        {"inner/w": "nn.weight T", "inner/b": "nn.bias"},
    ),
    "norm": (
        nn.GraphNorm(5),
        ("GraphNorm", (5,), {}),
        {"scale": "weight", "shift": "bias", "mean_scale": "mean_scale"},
    ),
}


def graphs(name):
    """Two graphs: one directed, with a node apart (4) and, where both libraries mean the same, a self loop."""
    rng = np.random.default_rng(4)
    ends = [[(0, 1), (1, 2), (3, 1), (2, 3), (0, 3)], [(0, 1), (1, 0), (1, 2), (2, 1)]]
    if name not in ("gcn", "sgc", "appnp"):
        ends[0].append((2, 2))
    held = []
    for n, pairs in zip((5, 3), ends, strict=True):
        senders, receivers = np.array(pairs).T
        nodes, edges = rng.standard_normal((n, 5)), rng.standard_normal((len(pairs), 3))
        weights = rng.uniform(0.5, 2, len(pairs)).astype(np.float32)
        held.append(
            Graph.from_edges(
                senders, receivers, nodes.astype(np.float32), edges=edges.astype(np.float32), weights=weights
            )
        )
    return batch_graphs(held)


def theirs(name, params, graph, c):
    """The layer of torch_geometric with our weights."""
    import torch
    import torch_geometric.nn as pyg

    _, (cls, arguments, keywords), names = CASES[name]
    made = [getattr(torch.nn, a[0])(*a[1:]) if isinstance(a, tuple) else a for a in arguments]
    module = getattr(pyg, cls)(*made, **keywords)
    held = dict(module.named_parameters())
    assert {n.split()[0] for n in names.values()} == held.keys()
    with torch.no_grad():
        for path, there in names.items():
            value = params[path].T if there.endswith(" T") else params[path]
            held[there.split()[0]].copy_(
                torch.tensor(np.ascontiguousarray(value)).reshape(held[there.split()[0]].shape)
            )
    x = torch.tensor(graph.nodes, requires_grad=True)
    index = torch.tensor(np.stack([graph.senders, graph.receivers]).astype(np.int64))
    extra = {
        **dict.fromkeys(("GCNConv", "SGConv", "APPNP"), (index, torch.tensor(graph.weights))),
        "GINEConv": (index, torch.tensor(graph.edges)),
        "GraphNorm": (torch.tensor(np.repeat(np.arange(len(graph.n_node)), graph.n_node)),),
    }
    y = module(x, *extra.get(cls, (index,)))
    (y * torch.tensor(c)).sum().backward()
    gradients = {}
    for path, there in names.items():
        grad = held[there.split()[0]].grad.numpy()
        gradients[f"d{path}"] = grad.T if there.endswith(" T") else grad.reshape(params[path].shape)
    return {"y": y.detach().numpy(), "dx": x.grad.numpy(), **gradients}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # as torch_geometric is imported
@pytest.mark.parametrize("name", CASES)
def test_equals_torch_geometric(name):
    layer, _, _ = CASES[name]
    graph = graphs(name)
    rng = np.random.default_rng(6)
    shapes = jax.eval_shape(layer.init, jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape).astype(np.float32)), shapes)
    out = jax.eval_shape(lambda: layer.apply(params, None, graph, nn.EVAL)[0].nodes).shape
    c = np.cos(1 + np.arange(np.prod(out))).reshape(out).astype(np.float32)

    def loss(params, nodes):
        y = layer.apply(params, None, graph._replace(nodes=nodes), nn.EVAL)[0].nodes
        return jnp.sum(y * c), y

    (_, y), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, graph.nodes)
    got = {"y": y, "dx": dx, **{f"d{path}": g for path, g in tree.flatten(dp).items()}}
    held = {path: np.asarray(v) for path, v in tree.flatten(params).items()}
    compute = lambda: theirs(name, held, jax.tree.map(np.asarray, graph), c)  # noqa: E731
    want = reference(f"graphs_pyg/{name}", compute, needs="torch_geometric")
    assert got.keys() == want.keys()
    for key, value in want.items():
        bound = 1e-5 * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[key], value, rtol=0, atol=bound, err_msg=key)
