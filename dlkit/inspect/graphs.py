"""Pictures of graphs: where to put the nodes, and what is known of nodes and edges drawn on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dlkit.functional import Graph
from dlkit.inspect.paths import COLORS, MARKERS
from dlkit.inspect.plots import FAINT, INK, _figure, _save

__all__ = ["graph_layout", "graph_plot"]


def _one(who: str, graph: Graph) -> tuple[int, np.ndarray, np.ndarray]:
    if not isinstance(graph, Graph):
        raise TypeError(f"{who} wants a Graph, got {type(graph).__name__}: Graph.from_edges(senders, receivers, nodes)")
    if np.shape(graph.n_node) != (1,):
        raise ValueError(f"{who} wants one graph, got {np.shape(graph.n_node)[0]}: unbatch_graphs(graph) gives them")
    n, e = int(np.asarray(graph.n_node)[0]), int(np.asarray(graph.n_edge)[0])
    return n, np.asarray(graph.senders)[:e], np.asarray(graph.receivers)[:e]


def _distances(n: int, senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    """The number of edges between two nodes, either way around; between parts that are apart, one more than any."""
    d = np.full((n, n), np.inf)
    d[senders, receivers] = d[receivers, senders] = 1
    np.fill_diagonal(d, 0)
    for k in range(n):
        d = np.minimum(d, d[:, k, None] + d[None, k])
    return np.where(np.isfinite(d), d, d[np.isfinite(d)].max() + 1)


def graph_layout(graph: Graph, *, steps: int = 200) -> Float[np.ndarray, "N 2"]:
    r"""Places in the plane whose distances are those in the graph, as far as they can be: `[N, 2]`, always the same.

    .. math:: \min_x \sum_{i < j} d_{ij}^{-2} (\lVert x_i - x_j \rVert - d_{ij})^2

    d counts the edges of the shortest way; directions and weights are not looked at. Starts from classical scaling,
    then `steps` of majorization, none of which makes the sum larger. O(N^3): for graphs of up to some hundred nodes.

    >>> path = Graph.from_edges([0, 1, 2], [1, 2, 3], np.eye(4))
    >>> places = graph_layout(path)
    >>> np.linalg.norm(places[0] - places[3]).round(3).tolist()      # a line of four nodes is three edges long
    3.0

    Raises:
      TypeError: no `Graph`.
      ValueError: several graphs.

    Reference: Gansner, Koren and North, Graph drawing by stress majorization, 2004.
    """
    n, senders, receivers = _one("graph_layout", graph)
    if n == 1:
        return np.zeros((1, 2))
    d = _distances(n, senders, receivers)
    centred = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centred @ np.square(d) @ centred / 2)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(n)])  # the same on every machine
    x = ((vectors * signs) * np.sqrt(np.maximum(values, 0)))[:, -1:-3:-1]
    # Nodes that classical scaling puts on one place would stay there.
    turn = 2 * np.pi * np.arange(n) / n
    x = x + 1e-3 * np.stack([np.cos(turn), np.sin(turn)], 1)
    weight = np.divide(1, np.square(d), out=np.zeros_like(d), where=d > 0)
    inverse = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    for _ in range(steps):
        apart = np.linalg.norm(x[:, None] - x[None], axis=-1)
        pull = -weight * np.divide(d, apart, out=np.zeros_like(d), where=apart > 0)
        np.fill_diagonal(pull, -pull.sum(1))
        x = inverse @ (pull @ x)
    return x - x.mean(0)


def graph_plot(
    graph: Graph,
    places: Any = None,
    *,
    nodes: Any = None,
    edges: Any = None,
    classes: Sequence[str] | None = None,
    marked: Sequence[int] = (),
    label: str = "",
    title: str = "",
    axes: Any = None,
    path: str | Path | None = None,
) -> Any:
    """A graph with its nodes' numbers: classes or values of the nodes as colours, values of the edges as widths.

    Args:
      graph: one graph.
      places: `[N, 2]`; by default `graph_layout(graph)`.
      nodes: `[N]`. Integers are classes, told apart by colour and by shape; numbers have a scale from dark to light.
      edges: `[E]` values of at least 0: the width and darkness of each. Of two opposite edges the larger one is seen.
      classes: names for the legend.
      marked: nodes with a thick rim.
      label: of the scale; `title`: the heading.
      axes: matplotlib axes to draw on; by default a new figure.
      path: where the picture is written too.

    Returns:
      The matplotlib figure.

    >>> triangle = Graph.from_edges([0, 1, 2], [1, 2, 0], np.eye(3))
    >>> figure = graph_plot(triangle, nodes=[0, 0, 1], classes=("left", "right"))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['left', 'right']

    Raises:
      TypeError: no `Graph`.
      ValueError: several graphs; places, nodes or edges of other lengths; more than seven classes.
      ImportError: matplotlib is missing.
    """
    n, senders, receivers = _one("graph_plot", graph)
    places = graph_layout(graph) if places is None else np.asarray(places, np.float64)
    nodes = np.zeros(n) if nodes is None else np.asarray(nodes)
    widths = np.full(len(senders), 0.4) if edges is None else np.asarray(edges, np.float64)
    for name, value, want in (
        ("places", places, (n, 2)),
        ("nodes", nodes, (n,)),
        ("edges", widths, (len(senders),)),
    ):
        if value.shape != want:
            raise ValueError(f"graph_plot: {name} has shape {value.shape}, want {want}")
    if edges is not None and widths.size:
        widths = widths / (widths.max() or 1)
    figure = _figure(6.4, 5.0) if axes is None else axes.figure
    axes = figure.subplots() if axes is None else axes
    from matplotlib.collections import LineCollection

    order = np.argsort(widths, kind="stable")
    lines = np.stack([places[senders], places[receivers]], axis=1)[order]
    shade = [(0.3, 0.3, 0.3, 0.12 + 0.8 * w) for w in widths[order]]
    axes.add_collection(LineCollection(list(lines), linewidths=0.4 + 3 * widths[order], colors=shade, zorder=1))
    rims = np.isin(np.arange(n), np.asarray(marked, int))
    style: dict[str, Any] = {"s": 190, "zorder": 2}
    if np.issubdtype(nodes.dtype, np.integer):
        found = np.unique(nodes)
        if len(found) > len(COLORS):
            raise ValueError(f"graph_plot tells {len(COLORS)} classes apart, got {len(found)}: give values instead")
        for i, each in enumerate(found):
            own = nodes == each
            name = str(each) if classes is None else classes[int(each)]
            axes.scatter(
                *places[own].T, color=COLORS[i], marker=MARKERS[i], label=name, edgecolors=INK,
                linewidths=np.where(rims[own], 2.6, 0.4), **style,
            )  # fmt: skip
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, markerscale=0.7)
        ink = ["white"] * n
    else:
        drawn = axes.scatter(
            *places.T, c=nodes, cmap="cividis", edgecolors=INK, linewidths=np.where(rims, 2.6, 0.4), **style
        )
        if np.ptp(nodes) > 0:
            bar = figure.colorbar(drawn, ax=axes, fraction=0.045, pad=0.02)
            bar.set_label(label, color=INK, fontsize=9)
            bar.ax.tick_params(colors=FAINT, labelsize=8)
        middle = (nodes.max() + nodes.min()) / 2 if np.ptp(nodes) > 0 else np.inf
        ink = ["black" if v > middle else "white" for v in nodes]
    for i, place in enumerate(places):
        axes.text(*place, str(i), ha="center", va="center", fontsize=7, color=ink[i], zorder=3)
    axes.set_aspect("equal")
    axes.margins(0.08)
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=11, color=INK)
    if path is not None:
        _save(figure, path)
    return figure
