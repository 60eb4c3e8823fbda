"""Layouts whose distances can be exact, and pictures that hold the numbers they were given."""

import jax
import numpy as np
import pytest

from dlkit import functional, inspect, nn
from dlkit.functional import Graph

RNG = np.random.default_rng(0)


def stress(graph, places, d):
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return (np.square(apart - d)[d > 0] / np.square(d)[d > 0]).sum() / 2


def test_graphs_that_fit_into_the_plane_are_drawn_to_scale():
    n = 7
    path = Graph.from_edges(np.arange(n - 1), np.arange(1, n), np.eye(n))
    places = inspect.graph_layout(path)
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.testing.assert_allclose(gaps, np.abs(np.subtract.outer(np.arange(n), np.arange(n))), atol=1e-3)
    ring = Graph.from_edges(np.arange(n), (np.arange(n) + 1) % n, np.eye(n))
    places = inspect.graph_layout(ring)
    radii = np.linalg.norm(places, axis=1)
    np.testing.assert_allclose(radii, radii.mean(), rtol=1e-3)  # a regular polygon
    # No step makes the stress larger, and what is apart is put apart.
    two = Graph.from_edges([0, 1, 2, 4], [1, 2, 3, 5], np.eye(6))
    d = np.array([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]])
    d = np.block([[d, np.full((4, 2), 4)], [np.full((2, 4), 4), np.array([[0, 1], [1, 0]])]])
    sums = [stress(two, inspect.graph_layout(two, steps=k), d) for k in (1, 2, 5, 20, 100)]
    assert np.all(np.diff(sums) <= 1e-9)


def test_pictures_of_graphs(tmp_path):
    graph = Graph.from_edges([0, 1, 2, 0], [1, 2, 0, 3], np.eye(4))
    places = RNG.random((4, 2))
    edges = np.array([1.0, 4.0, 2.0, 0.0])
    figure = inspect.graph_plot(
        graph, places, nodes=[0, 1, 1, 0], edges=edges, classes=("a", "b"), marked=[2], path=tmp_path / "g.png"
    )
    lines, first, second = figure.axes[0].collections
    ends = np.stack([places[[0, 1, 2, 0]], places[[1, 2, 0, 3]]], 1)
    order = np.argsort(edges)
    np.testing.assert_array_equal(np.stack(lines.get_segments()), ends[order])  # the heaviest on top
    np.testing.assert_allclose(lines.get_linewidths(), 0.4 + 3 * edges[order] / 4)
    np.testing.assert_array_equal(first.get_offsets(), places[[0, 3]])
    assert list(second.get_linewidths()) == [0.4, 2.6]
    assert (tmp_path / "g.png").stat().st_size > 5_000
    figure = inspect.graph_plot(graph, nodes=np.linspace(0, 1, 4), label="share")
    assert figure.axes[1].get_ylabel() == "share"
    both = functional.batch_graphs([graph, graph])
    for call, match in (
        (lambda: inspect.graph_plot(graph, nodes=[1, 2]), r"nodes has shape \(2,\), want \(4,\)"),
        (lambda: inspect.graph_plot(graph, edges=[1.0]), r"edges has shape \(1,\), want \(4,\)"),
        (lambda: inspect.graph_layout(both), r"one graph, got 2: unbatch_graphs"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(TypeError, match="wants a Graph, got ndarray"):
        inspect.graph_plot(np.eye(3))


@pytest.mark.parametrize("kind", [nn.GATConv, nn.GATv2Conv])
def test_attention_is_what_the_layer_weighs_by(kind):
    """The output is the sum of the neighbours' features by these weights; they add up to 1 over what comes in."""
    layer = kind(3, 4, heads=2, bias=False, rate=0.5)
    params = layer.init(jax.random.key(0))
    x = np.asarray(RNG.standard_normal((5, 3)), np.float32)
    graph = Graph.from_edges([0, 1, 2, 3], [1, 2, 2, 0], x)  # one of them from a node to itself
    senders, receivers, p = (np.asarray(a) for a in layer.attention(params, graph))
    used = receivers < 5
    assert used.sum() == 3 + 5
    w = params["w"] if kind is nn.GATConv else params["sender"]["w"]
    h = (x @ np.asarray(w)).reshape(5, 2, 4)
    y, sums = np.zeros((5, 2, 4)), np.zeros((5, 2))
    np.add.at(y, receivers[used], p[used][..., None] * h[senders[used]])
    np.add.at(sums, receivers[used], p[used])
    np.testing.assert_allclose(sums, 1, rtol=1e-6)
    np.testing.assert_allclose(layer.apply(params, None, graph, nn.EVAL)[0].nodes, y.reshape(5, 8), atol=1e-5)
