"""Where the boxes of a drawn graph stand: layers from top to bottom, few crossings, nothing that overlaps.

Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", 1981: layers by longest
path, edges over several layers made of chains of points, an order in each layer by barycentres, then positions. The
positions minimize the squared distance to the neighbours under the wanted gaps, layer by layer: an isotonic regression,
solved exactly by pooling adjacent violators. The label of an edge is a box in a layer of its own, so it overlaps
nothing.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Edge", "Layout", "arrange"]

GAP_X, GAP_Y, MARGIN = 22.0, 30.0, 16.0


@dataclass(frozen=True)
class Edge:
    """From one box to another, by position; the size of its label is (0, 0) where it has none."""

    source: int
    target: int
    size: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Layout:
    """The centre of each box, the points each edge passes, the centre of each edge's label, and the whole size."""

    centres: tuple[tuple[float, float], ...]
    routes: tuple[tuple[tuple[float, float], ...], ...]
    labels: tuple[tuple[float, float], ...]
    width: float
    height: float


def arrange(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Lay out boxes of these sizes (width, height). Edges must not form a cycle."""
    step = 2 if any(e.size[0] for e in edges) else 1
    rank = [r * step for r in _ranks(len(sizes), edges)]
    sizes, chains, label_at = list(sizes), [], []
    ranks = list(rank)
    for edge in edges:
        inner = range(rank[edge.source] + 1, rank[edge.target])
        # The label stands nearest the end where the edges of a busy node have spread out: in the middle.
        middle = inner[len(inner) // 2] if inner and edge.size[0] else None
        if middle is not None and middle % 2 == 0:
            middle -= 1
        chain = [edge.source]
        for r in inner:
            sizes.append(edge.size if r == middle else (4.0, 0.0))
            ranks.append(r)
            chain.append(len(sizes) - 1)
        chain.append(edge.target)
        chains.append(chain)
        label_at.append(next((n for n in chain[1:-1] if ranks[n] == middle), chain[len(chain) // 2]))
    up: list[list[int]] = [[] for _ in sizes]
    down: list[list[int]] = [[] for _ in sizes]
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            down[a].append(b)
            up[b].append(a)
    layers = _ordered(ranks, up, down)
    x = _across(layers, sizes, up, down)
    y, tall, height = _downwards(layers, sizes, ranks)
    left = min((x[n] - sizes[n][0] / 2 for n in range(len(sizes))), default=0.0) - MARGIN
    right = max((x[n] + sizes[n][0] / 2 for n in range(len(sizes))), default=0.0) + MARGIN
    points = [(x[n] - left, y[n]) for n in range(len(sizes))]
    routes = []
    for chain in chains:
        a, b = chain[0], chain[-1]
        start = (points[a][0], points[a][1] + sizes[a][1] / 2)
        end = (points[b][0], points[b][1] - sizes[b][1] / 2)
        passed = []
        for n in chain[1:-1]:  # straight through a layer, so that no box of it is touched
            (across, middle), half = points[n], max(tall[n], sizes[n][1]) / 2
            passed += [(across, middle - half), (across, middle + half)] if half else [(across, middle)]
        routes.append((start, *passed, end))
    count = len(rank)
    return Layout(tuple(points[:count]), tuple(routes), tuple(points[n] for n in label_at), right - left, height)


def _ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    parents: list[list[int]] = [[] for _ in range(count)]
    children: list[list[int]] = [[] for _ in range(count)]
    for e in edges:
        parents[e.target].append(e.source)
        children[e.source].append(e.target)
    order, waits = [n for n in range(count) if not parents[n]], [len(p) for p in parents]
    for node in order:
        for child in children[node]:
            waits[child] -= 1
            if waits[child] == 0:
                order.append(child)
    rank = [0] * count
    for node in order:
        rank[node] = max((rank[p] + 1 for p in parents[node]), default=0)
    loose = [False] * count  # chains that begin at a leaf hang right above where they are used first
    for node in order:
        loose[node] = len(parents[node]) <= 1 and all(loose[p] for p in parents[node])
    for node in reversed(order):
        if loose[node] and children[node]:
            rank[node] = min(rank[c] for c in children[node]) - 1
    least = min(rank, default=0)
    return [r - least for r in rank]


def _ordered(ranks: Sequence[int], up: list[list[int]], down: list[list[int]]) -> list[list[int]]:
    """The order inside each layer: the best of several sweeps of barycentres, by the number of crossings."""
    layers: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for node, r in enumerate(ranks):
        layers[r].append(node)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, down)
    for sweep in range(12):
        rows = layers if sweep % 2 == 0 else layers[::-1]
        near = up if sweep % 2 == 0 else down
        place = {node: i for layer in layers for i, node in enumerate(layer)}
        for layer in rows:

            def mean(node: int, place: dict[int, int] = place, near: list[list[int]] = near) -> float:
                held = near[node]
                return sum(place[n] for n in held) / len(held) if held else float(place[node])

            layer.sort(key=mean)
            place.update({node: i for i, node in enumerate(layer)})
        count = _crossings(layers, down)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def _crossings(layers: list[list[int]], down: list[list[int]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(layers):
        place = {node: i for i, node in enumerate(lower)}
        ends = [place[n] for node in upper for n in sorted(down[node], key=lambda n: place[n])]
        tree = [0] * (len(lower) + 1)  # a Fenwick tree: how many ends so far lie to the right
        for seen, end in enumerate(ends):
            i, before = end + 1, 0
            while i > 0:
                before, i = before + tree[i], i - (i & -i)
            total += seen - before
            i = end + 1
            while i <= len(lower):
                tree[i], i = tree[i] + 1, i + (i & -i)
    return total


def _across(
    layers: list[list[int]], sizes: Sequence[tuple[float, float]], up: list[list[int]], down: list[list[int]]
) -> list[float]:
    x = [0.0] * len(sizes)
    for layer in layers:
        at = 0.0
        for node in layer:
            x[node] = at + sizes[node][0] / 2
            at += sizes[node][0] + GAP_X
    for sweep in range(24):
        near = (up, down)[sweep % 2] if sweep < 16 else None
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            wanted, weights = [], []
            for node in layer:
                held = near[node] if near is not None else up[node] + down[node]
                wanted.append(sum(x[n] for n in held) / len(held) if held else x[node])
                weights.append(0.1 if not held else 4.0 if sizes[node][1] == 0 else 1.0)
            for node, place in zip(layer, _spread(layer, wanted, weights, sizes), strict=True):
                x[node] = place
    return x


def _spread(
    layer: list[int], wanted: Sequence[float], weights: Sequence[float], sizes: Sequence[tuple[float, float]]
) -> list[float]:
    """The places nearest to `wanted` that keep the order and the gaps."""
    offset, offsets = 0.0, [0.0]
    for a, b in itertools.pairwise(layer):
        offset += (sizes[a][0] + sizes[b][0]) / 2 + GAP_X
        offsets.append(offset)
    blocks: list[list[float]] = []  # [weight, weighted sum, members]
    for want, weight, shift in zip(wanted, weights, offsets, strict=False):
        blocks.append([weight, weight * (want - shift), 1])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][0] >= blocks[-1][1] / blocks[-1][0]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    means = [total / weight for weight, total, members in blocks for _ in range(int(members))]
    return [mean + shift for mean, shift in zip(means, offsets, strict=False)]


def _downwards(
    layers: list[list[int]], sizes: Sequence[tuple[float, float]], ranks: Sequence[int]
) -> tuple[list[float], list[float], float]:
    at, centre, heights = MARGIN, [], []
    for layer in layers:
        tall = max((sizes[n][1] for n in layer), default=0.0)
        centre.append(at + tall / 2)
        heights.append(tall)
        at += tall + (GAP_Y if tall else GAP_Y / 3)
    return [centre[r] for r in ranks], [heights[r] for r in ranks], at - GAP_Y + MARGIN
