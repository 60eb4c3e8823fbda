"""Graphs as arrays: what is checked, batching, padding, both directions, self loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit import functional as F
from dlkit.functional import Graph


def random_graph(rng, n, e, *, full=True):
    return Graph.from_edges(
        rng.integers(0, n, e),
        rng.integers(0, n, e),
        rng.standard_normal((n, 3)).astype(np.float32),
        edges=rng.standard_normal((e, 2)).astype(np.float32) if full else None,
        weights=rng.uniform(size=e).astype(np.float32) if full else None,
        context=rng.standard_normal(4).astype(np.float32) if full else None,
    )


def assert_same(a, b):
    for name, value in a._asdict().items():
        other = getattr(b, name)
        assert (value is None) == (other is None), name
        if value is not None:
            assert value.dtype == other.dtype, name
            np.testing.assert_array_equal(value, other, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=4),
    full=st.booleans(),
)
def test_unbatch_undoes_batch_and_padding(seed, sizes, full):
    rng = np.random.default_rng(seed)
    graphs = [random_graph(rng, n, e, full=full) for n, e in sizes]
    batch = F.batch_graphs(graphs)
    n, e, g = sum(n for n, _ in sizes), sum(e for _, e in sizes), len(sizes)
    padded = F.pad_graph(batch, 24, 36, 4)  # one shape: the masks are compiled once
    for held in (batch, padded, F.pad_graph(padded), F.pad_graph(F.pad_graph(batch))):
        for a, b in zip(F.unbatch_graphs(held), graphs, strict=True):
            assert_same(a, b)
    assert padded.node_mask.sum() == n
    assert padded.edge_mask.sum() == e
    assert padded.graph_mask.sum() == g
    owners = np.repeat(np.arange(g), [s[0] for s in sizes]).tolist()
    assert padded.graph_ids.tolist() == owners + [4] * (24 - n)
    assert padded.edge_graph_ids.tolist()[:e] == np.repeat(np.arange(g), [s[1] for s in sizes]).tolist()


def test_masks_inside_jit_and_few_shapes():
    """Graphs of many sizes in one bucket are traced once."""
    rng = np.random.default_rng(0)
    traces = []

    @jax.jit
    def total(graph):
        traces.append(1)
        return jnp.sum(jnp.where(graph.node_mask[:, None], graph.nodes, 0.0))

    for n, e in ((5, 9), (6, 12), (5, 10)):
        graph = F.pad_graph(random_graph(rng, n, e))
        np.testing.assert_allclose(total(graph), np.sum(graph.nodes[:n]), rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("n", range(1, 70))
def test_buckets_waste_less_than_a_third(n):
    size = F.size_bucket(n)
    assert n <= size < max(2, 1.5 * n)
    assert F.size_bucket(size) == size


def test_indices_stay_int32(x64):
    rng = np.random.default_rng(1)
    batch = F.batch_graphs([random_graph(rng, 4, 6), random_graph(rng, 3, 4)])
    for held in (batch, F.pad_graph(batch), F.to_undirected(batch), F.add_self_loops(batch), *F.unbatch_graphs(batch)):
        for name in ("senders", "receivers", "n_node", "n_edge"):
            assert getattr(held, name).dtype == jnp.int32, name
        assert held.nodes.dtype == jnp.float32
        assert held.graph_ids.dtype == held.edge_graph_ids.dtype == jnp.int32


def test_both_directions_and_loops_keep_graphs_apart():
    rng = np.random.default_rng(1)
    graphs = [random_graph(rng, 4, 6), random_graph(rng, 3, 4)]
    for change in (F.to_undirected, F.add_self_loops):
        together = F.unbatch_graphs(change(F.pad_graph(F.batch_graphs(graphs))))
        for one, graph in zip(together, graphs, strict=True):
            assert_same(one, change(graph))
    for one in graphs:
        both = F.to_undirected(one)
        pairs = set(zip(both.senders.tolist(), both.receivers.tolist(), strict=True))
        assert all((j, i) in pairs for i, j in pairs)
        looped = F.add_self_loops(one, weight=2.0)
        loops = looped.senders == looped.receivers
        assert set(looped.senders[loops].tolist()) == set(range(len(one.nodes)))
        new = np.arange(len(loops)) >= len(one.senders)
        assert set(looped.weights[new].tolist()) <= {2.0}
        assert not np.asarray(looped.edges)[new].any()


def test_reverse_edges_take_features_and_weights_along():
    one = Graph.from_edges([0, 2], [1, 2], np.ones((3, 1)), edges=np.array([[5.0], [6.0]]), weights=[0.5, 0.25])
    both = F.to_undirected(one)
    assert both.senders.tolist() == [0, 2, 1]
    assert both.receivers.tolist() == [1, 2, 0]
    assert both.edges.tolist() == [[5], [6], [5]]
    assert both.weights.tolist() == [0.5, 0.25, 0.5]


X = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Graph.from_edges([0, 1], [1, 3], X), ValueError, ["receivers has the index 3 at edge 1", "0 .. 2"]),
        (lambda: Graph.from_edges([0, -1], [1, 2], X), ValueError, ["senders has the index -1 at edge 1"]),
        (lambda: Graph.from_edges([0.0], [1], X), TypeError, ["senders is float64[1]", "integers"]),
        (lambda: Graph.from_edges([0], [1, 2], X), ValueError, ["receivers is [2]", "1 edges"]),
        (lambda: Graph.from_edges([0], [1], X, edges=X), ValueError, ["edges is [3, 2]", "1 edges"]),
        (lambda: Graph.from_edges([0], [1], X, weights=X[:1]), ValueError, ["weights is [1, 2]", "`edges`"]),
        (lambda: Graph.from_edges([], [], X[:0]), ValueError, ["at least one node"]),
        (lambda: F.batch_graphs([]), ValueError, ["no graphs"]),
        (
            lambda: F.batch_graphs([Graph.from_edges([0], [1], X), Graph.from_edges([0], [1], X, weights=[1.0])]),
            ValueError,
            ["graph 0 has weights none", "graph 1"],
        ),
        (
            lambda: F.batch_graphs([Graph.from_edges([0], [1], X), Graph.from_edges([0], [1], X[:, :1])]),
            ValueError,
            ["nodes [..., 2]", "graph 1 has [..., 1]"],
        ),
        (
            lambda: F.pad_graph(Graph.from_edges([0], [1], X), n_node=2),
            ValueError,
            ["n_node=2", "3 nodes", "at least 3"],
        ),
        (lambda: F.pad_graph(Graph.from_edges([0, 1], [1, 0], X), n_edge=1), ValueError, ["n_edge=1", "2 edges"]),
        (lambda: F.pad_graph(Graph.from_edges([0], [1], X), n_graph=0), ValueError, ["n_graph=0", "1 graphs"]),
    ],
)
def test_errors(make, error, words, unchecked):
    with pytest.raises(error) as info:
        make()
    for word in words:
        assert word in str(info.value)
