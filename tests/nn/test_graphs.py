"""Graph layers: the published formulas, values and gradients; padding and order change nothing.

The formulas are in `support/graph_formulas.py`. Tolerances: float32 1e-5, sums of at most a hundred terms; float64
1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import graph_formulas as formulas
from support.reference import reference

from dlkit import functional, nn, tree
from dlkit.functional import Graph, batch_graphs, pad_graph, unbatch_graphs

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def one(n, ends, seed, dtype):
    rng = np.random.default_rng(seed)
    senders, receivers = np.array(ends).T
    return Graph.from_edges(
        senders,
        receivers,
        rng.standard_normal((n, 5)).astype(dtype),
        edges=rng.standard_normal((len(ends), 3)).astype(dtype),
        weights=rng.uniform(0.5, 2, len(ends)).astype(dtype),
        context=rng.standard_normal(2).astype(dtype),
    )


def graphs(dtype):
    """Directed, with an isolated node (4), one that only sends (0), a self loop (2) and an edge that is there twice;
    and an undirected one."""
    directed = one(5, [(0, 1), (1, 2), (2, 2), (3, 1), (3, 1), (2, 3), (0, 3)], 1, dtype)
    undirected = one(3, [(0, 1), (1, 0), (1, 2), (2, 1)], 2, dtype)
    return batch_graphs([directed, undirected])


def joined(layer, params, x):
    """The new features in one array: those of the nodes, of edges and context too where the layer changes them."""
    y, _ = layer.apply(params, None, x, nn.EVAL)
    if not isinstance(y, Graph):
        return y
    if isinstance(layer, nn.GraphNetwork):
        return jnp.concatenate([y.nodes.ravel(), y.edges.ravel(), y.context.ravel()])
    return y.nodes


CASES = {
    "gcn": (nn.GCNConv(5, 4), formulas.gcn()),
    "gcn_wider": (nn.GCNConv(5, 7, bias=False), formulas.gcn()),
    "gcn_no_loops": (nn.GCNConv(5, 4, self_loops=False), formulas.gcn(self_loops=False)),
    "sgc": (nn.SGConv(5, 4, hops=3), formulas.gcn(hops=3)),
    "sgc_wider": (nn.SGConv(5, 7, self_loops=False, bias=False), formulas.gcn(self_loops=False, hops=2)),
    "appnp": (nn.APPNP(4, alpha=0.2), formulas.appnp(4, 0.2)),
    "edge_conv_max": (nn.EdgeConv(nn.Linear(10, 4)), formulas.edge_conv("max")),
    "edge_conv_mean": (nn.EdgeConv(nn.Linear(10, 4), "mean"), formulas.edge_conv("mean")),
    "sage_mean": (nn.SAGEConv(5, 4), formulas.sage("mean")),
    "sage_sum": (nn.SAGEConv(5, 6, "sum"), formulas.sage("sum")),
    "sage_max": (nn.SAGEConv(5, 4, "max", root=False), formulas.sage("max", root=False)),
    "gin": (nn.GINConv(nn.Linear(5, 4), eps=0.3), formulas.gin),
    "gine": (nn.GINEConv(nn.Linear(5, 4), edge=nn.Linear(3, 5)), formulas.gine),
    "gat": (nn.GATConv(5, 4, heads=2), formulas.attention(2, True, v2=False)),
    "gat_mean": (nn.GATConv(5, 4, heads=3, concat=False), formulas.attention(3, False, v2=False)),
    "gat_no_loops": (nn.GATConv(5, 4, self_loops=False), formulas.attention(1, True, v2=False, self_loops=False)),
    "gatv2": (nn.GATv2Conv(5, 4, heads=2), formulas.attention(2, True, v2=True)),
    "messages_sum": (nn.MessagePassing(nn.Linear(13, 6), nn.Linear(11, 4)), formulas.message_passing("sum")),
    "messages_max": (nn.MessagePassing(nn.Linear(13, 6), nn.Linear(11, 4), "max"), formulas.message_passing("max")),
    "graph_network": (
        nn.GraphNetwork(nn.Linear(15, 6), nn.Linear(13, 4), nn.Linear(12, 3), "mean"),
        formulas.graph_network("mean"),
    ),
    "pool_sum": (nn.GraphPool("sum"), formulas.pool("sum")),
    "pool_mean": (nn.GraphPool("mean"), formulas.pool("mean")),
    "pool_max": (nn.GraphPool("max"), formulas.pool("max")),
    "norm": (nn.GraphNorm(5), formulas.norm),
}
# Other options of what a case before them has shown.
AGAIN = ("sgc_wider", "edge_conv_mean")
NAMES = [pytest.param(name, marks=pytest.mark.thorough) if name in AGAIN else name for name in CASES]


def draw(layer, dtype):
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(layer.init, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape).astype(dtype)), shapes)


def run(layer, params, graph, c):
    """Output and gradients, with respect to parameters and nodes, of a weighted sum of the output."""

    def loss(params, nodes):
        y = joined(layer, params, graph._replace(nodes=nodes))
        return jnp.sum(y * c), y

    (_, y), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, graph.nodes)
    return {"y": y, "dx": dx, **{f"d{path}": g for path, g in tree.flatten(dp).items()}}


def weigh(layer, params, graph, dtype):
    shape = jax.eval_shape(lambda: joined(layer, params, graph)).shape
    return np.cos(1 + np.arange(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_published_formula(name, dtype):
    layer, formula = CASES[name]
    with jax.enable_x64(dtype == np.float64):
        graph, params = graphs(dtype), draw(layer, dtype)
        c = weigh(layer, params, graph, dtype)
        got = run(layer, params, graph, c)
        held = jax.tree.map(np.asarray, graph)

        def compute():
            import torch

            p = {path: torch.tensor(np.asarray(v), requires_grad=True) for path, v in tree.flatten(params).items()}
            g = formulas.tensors(torch, held)
            y = formula(torch, p, g)
            (y * torch.tensor(c)).sum().backward()
            gradients = {f"d{path}": v.grad.numpy() for path, v in p.items()}
            return {"y": y.detach().numpy(), "dx": g.x.grad.numpy(), **gradients}

        want = reference(f"graphs/{name}_{np.dtype(dtype).name}", compute)
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].dtype == dtype, key
        bound = TOLERANCE[dtype] * max(1.0, np.abs(value).max(initial=0))
        np.testing.assert_allclose(got[key], value, rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing_whatever_it_holds(name):
    layer, _ = CASES[name]
    graph, params = graphs(np.float32), draw(layer, np.float32)
    padded = pad_graph(graph, n_node=11, n_edge=16, n_graph=4)
    spoiled = padded._replace(
        nodes=jnp.where(padded.node_mask[:, None], padded.nodes, jnp.nan),
        edges=jnp.where(padded.edge_mask[:, None], padded.edges, jnp.nan),
        weights=jnp.where(padded.edge_mask, padded.weights, jnp.nan),
        context=jnp.where(padded.graph_mask[:, None], padded.context, jnp.nan),
        senders=jnp.where(padded.edge_mask, padded.senders, 0),  # into the real ones
        receivers=jnp.where(padded.edge_mask, padded.receivers, 1),
    )
    want = run(layer, params, graph, weigh(layer, params, graph, np.float32))
    n, e, g = 8, 11, 2

    def on_real(y):
        """The real rows, in the order of `joined`."""
        if isinstance(layer, nn.GraphPool):
            return y[:g]
        if not isinstance(layer, nn.GraphNetwork):
            return y[:n]
        nodes, edges, context = jnp.split(y, [11 * 4, 11 * 4 + 16 * 6])
        return jnp.concatenate([nodes[: n * 4], edges[: e * 6], context[: g * 3]])

    c = weigh(layer, params, graph, np.float32)

    @jax.jit
    def both(params, graph):
        def loss(params):
            y = joined(layer, params, graph)
            return jnp.sum(on_real(y) * c), y

        return jax.value_and_grad(loss, has_aux=True)(params)

    for held in (padded, spoiled):
        (_, y), dp = both(params, held)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(on_real(y), want["y"], rtol=0, atol=1e-6 * max(1, np.abs(want["y"]).max()))
        for path, grad in tree.flatten(dp).items():
            # The sums over rows are longer by zeros, so they round in another order.
            bound = 1e-5 * max(1, np.abs(want[f"d{path}"]).max())
            np.testing.assert_allclose(grad, want[f"d{path}"], rtol=0, atol=bound, err_msg=path)
    if not isinstance(layer, nn.GraphPool | nn.GraphNetwork):
        assert not np.asarray(y[n:]).any()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "graph_network"])
def test_order_of_nodes_and_edges(name):
    """Nodes in another order: the outputs in that order. Edges in another order: no change."""
    layer, _ = CASES[name]
    graph, params = unbatch_graphs(graphs(np.float32))[0], draw(layer, np.float32)
    apply = jax.jit(lambda graph: joined(layer, params, graph))
    y = apply(graph)
    rng = np.random.default_rng(0)
    for _ in range(5):
        nodes, edges = rng.permutation(5), rng.permutation(7)
        place = np.argsort(nodes)  # where node i went
        moved = graph._replace(
            nodes=graph.nodes[nodes],
            senders=jnp.asarray(place)[graph.senders[edges]].astype(jnp.int32),
            receivers=jnp.asarray(place)[graph.receivers[edges]].astype(jnp.int32),
            edges=graph.edges[edges],
            weights=graph.weights[edges],
        )
        expected = y if isinstance(layer, nn.GraphPool) else y[nodes]
        np.testing.assert_allclose(apply(moved), expected, rtol=0, atol=1e-5 * max(1, np.abs(y).max()))


@pytest.mark.parametrize("name", ["gat", "graph_network", "norm", "pool_max"])
def test_graphs_of_a_batch_do_not_see_each_other(name):
    layer, _ = CASES[name]
    params, batch = draw(layer, np.float32), graphs(np.float32)
    apply = jax.jit(lambda graph: layer.apply(params, None, graph, nn.EVAL)[0])
    whole, each = apply(batch), [apply(graph) for graph in unbatch_graphs(batch)]
    if not isinstance(whole, Graph):
        np.testing.assert_allclose(whole, jnp.concatenate(each), rtol=0, atol=1e-5)
        return
    for a, b in zip(unbatch_graphs(whole), each, strict=True):
        for field, value in b._asdict().items():
            np.testing.assert_allclose(getattr(a, field), value, rtol=0, atol=1e-4, err_msg=field)


def test_attention_dropout_follows_the_key_and_keeps_the_mean():
    layer, graph = nn.GATConv(5, 4, rate=0.5), graphs(np.float32)
    params = layer.init(jax.random.key(0))

    @jax.jit
    @jax.vmap
    def draws(key):
        return layer.apply(params, None, graph, nn.training(key))[0].nodes

    ys = np.asarray(draws(jax.random.split(jax.random.key(1), 4000)), np.float64)
    assert not np.array_equal(ys[0], ys[1])
    want = layer.apply(params, None, graph, nn.EVAL)[0].nodes
    assert (np.abs(ys.mean(0) - want) <= 6 * ys.std(0) / np.sqrt(len(ys)) + 1e-5).all()


def test_dropped_edges_of_appnp_follow_the_key_and_keep_the_mean():
    """Of two hops too, as each draws for itself: the mean of a product of independent matrices."""
    layer, graph = nn.APPNP(2, alpha=0.3, rate=0.5), graphs(np.float32)

    @jax.jit
    @jax.vmap
    def draws(key):
        return layer.apply({}, None, graph, nn.training(key))[0].nodes

    ys = np.asarray(draws(jax.random.split(jax.random.key(1), 4000)), np.float64)
    assert not np.array_equal(ys[0], ys[1])
    want = layer.apply({}, None, graph, nn.EVAL)[0].nodes
    assert (np.abs(ys.mean(0) - want) <= 6 * ys.std(0) / np.sqrt(len(ys)) + 1e-5).all()


def test_many_steps_are_personalized_pagerank():
    """The fixed point, `alpha (I - (1 - alpha) P)^(-1) x`: 60 steps are within 0.8^60 = 2e-6 of it."""
    graph = unbatch_graphs(graphs(np.float32))[1]
    ends = (graph.senders, graph.receivers, graph.weights)
    p = functional.gcn_propagate(jnp.eye(3), *ends)
    want = 0.2 * np.linalg.solve(np.eye(3) - 0.8 * np.asarray(p, np.float64), graph.nodes)
    got = functional.appnp_propagate(graph.nodes, *ends, hops=60, alpha=0.2)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_what_layers_inside_remember_comes_back():
    layer = nn.GINConv(nn.Chain(nn.Linear(5, 4), nn.BatchNorm(4)))
    state = layer.init_state()
    _, after = layer.apply(layer.init(jax.random.key(0)), state, graphs(np.float32), nn.training(None))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert not np.array_equal(after["inner"]["batch_norm1"]["mean"], state["inner"]["batch_norm1"]["mean"])


def test_a_model_on_graphs_of_atoms():
    """Integers as nodes, an embedding, two layers, one vector a graph: called like any model, as all of it is pure."""
    model = nn.Chain(
        nn.OnNodes(nn.Embedding(10, 5)), nn.GCNConv(5, 8), nn.OnNodes(nn.Relu()), nn.GraphPool("mean"), nn.Linear(8, 2)
    )
    atoms = Graph.from_edges([0, 1], [1, 0], np.array([6, 8]))
    batch = pad_graph(batch_graphs([atoms, atoms]), n_graph=3)
    y = model(model.init(jax.random.key(0)), batch)
    assert y.shape == (3, 2)
    np.testing.assert_array_equal(y[0], y[1])


def test_shortcuts_and_stacks_of_blocks():
    graph = pad_graph(graphs(np.float32))
    block = nn.Residual(nn.Chain(nn.GCNConv(5, 5), nn.OnNodes(nn.Tanh())))
    stack = nn.Stack(block, 3)
    params = stack.init(jax.random.key(0))
    x = graph
    for i in range(3):
        inner = block(jax.tree.map(lambda w: w[i], params), x)  # noqa: B023
        gcn = nn.GCNConv(5, 5)(jax.tree.map(lambda w: w[i], params["body"]["gcnconv1"]), x)  # noqa: B023
        np.testing.assert_allclose(inner.nodes, x.nodes + jnp.tanh(gcn.nodes), rtol=0, atol=1e-6)
        x = inner
    y, _ = jax.jit(stack.apply)(params, None, graph, nn.EVAL)
    np.testing.assert_allclose(y.nodes, x.nodes, rtol=0, atol=1e-6)
    assert not np.asarray(y.nodes)[8:].any()
    wider = nn.Residual(nn.GCNConv(5, 4))
    with pytest.raises(ValueError, match="give it a shortcut"):
        wider(wider.init(jax.random.key(0)), graph)


@pytest.mark.parametrize(
    ("layer", "change", "error", "words"),
    [
        (nn.GCNConv(4, 2), {}, ValueError, ["GCNConv(d_in=4, d_out=2)", "nodes", "size 4", "got 5"]),
        (nn.GCNConv(5, 2), {"nodes": jnp.ones((2, 5, 5))}, ValueError, ["[N, d]", "batch_graphs"]),
        (nn.GATConv(5, 2), {"nodes": jnp.ones((5, 5), int)}, TypeError, ["int32", "floating point"]),
        (nn.GINEConv(nn.Linear(5, 2)), {"edges": None}, ValueError, ["without edge features"]),
        (nn.GINEConv(nn.Linear(5, 2)), {}, ValueError, ["edges of shape (7, 3)", "edge=nn.Linear(d_edge, 5)"]),
    ],
)
def test_errors_of_layers(layer, change, error, words, unchecked):
    graph = unbatch_graphs(graphs(np.float32))[0]._replace(**change)
    with pytest.raises(error) as info:
        layer.apply(layer.init(jax.random.key(0)), None, graph, nn.EVAL)
    for word in words:
        assert word in str(info.value)


def test_errors_of_definitions_and_inputs(unchecked):
    layer = nn.SAGEConv(5, 2)
    with pytest.raises(TypeError, match=r"got x of type ArrayImpl: expected a Graph.*from_edges"):
        layer(layer.init(jax.random.key(0)), jnp.ones((3, 5)))
    with pytest.raises(ValueError, match="at least one head"):
        nn.GATConv(5, 2, heads=0)
    with pytest.raises(ValueError, match="rate"):
        nn.GATv2Conv(5, 2, rate=1.5)
    for make in (nn.GraphPool, lambda how: nn.SAGEConv(5, 2, how), lambda how: nn.GraphNetwork(aggregate=how)):
        with pytest.raises(ValueError, match="'sum', 'mean', 'max', 'min', got 'prod'"):
            make("prod")
    with pytest.raises(ValueError, match="'sum', 'mean', 'max', 'min', got 'prod'"):
        nn.EdgeConv(nn.Linear(10, 2), "prod")
    with pytest.raises(ValueError, match=r"SGConv\(d_in=5, d_out=2, hops=0\): expected at least one hop"):
        nn.SGConv(5, 2, hops=0)
    with pytest.raises(ValueError, match=r"alpha in \[0, 1\]"):
        nn.APPNP(alpha=1.5)
    with pytest.raises(ValueError, match=r"hops is 1, alpha -1.0; want hops >= 0 and 0 <= alpha <= 1"):
        functional.appnp_propagate(jnp.ones((2, 1)), jnp.array([0]), jnp.array([1]), hops=1, alpha=-1.0)
    with pytest.raises(ValueError, match="finite eps"):
        nn.GINConv(nn.Linear(5, 2), eps=float("nan")).init(jax.random.key(0))
