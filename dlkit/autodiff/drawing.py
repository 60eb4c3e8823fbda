"""Graphs as pictures: SVG and DOT, written here, so that nothing need be installed to see them."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from dlkit import tree
from dlkit.autodiff.formulas import assignment, symbol
from dlkit.autodiff.graph import Graph, Operation
from dlkit.autodiff.layout import Edge, Layout, arrange
from dlkit.autodiff.propagation import adjoints, as_graph, tangents
from dlkit.autodiff.table import brief

__all__ = ["Drawing", "draw_graph"]

CHAR, LINE, PAD, MOST = 7.3, 16.0, 9.0, 44
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# Okabe and Ito's colours, which the colour-blind tell apart.
INK, VALUE, TANGENT, ADJOINT, LINE_COLOUR = "#1a1a1a", "#555555", "#0072b2", "#c04a00", "#8a8a8a"
FILL = {"input": "#dcebf7", "constant": "#f0f0f0", "output": "#fdeccd", "computed": "#ffffff", "operation": "#ffffff"}

Style = Literal["ops", "vars"]
Line = tuple[str, str]  # text and colour


@dataclass(frozen=True)
class _Box:
    lines: tuple[Line, ...]
    kind: str
    round: bool

    @property
    def size(self) -> tuple[float, float]:
        width = max((len(text) for text, _ in self.lines), default=1) * CHAR + 2 * PAD
        return max(width, 34.0), len(self.lines) * LINE + PAD


@dataclass(frozen=True)
class Drawing:
    """A drawn graph: `svg` and `dot` are its texts; a notebook shows it; `save` writes it."""

    svg: str
    dot: str

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg}</div>'

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write `.svg`, `.dot` or `.html`, by the ending of `path`.

        Raises:
          ValueError: another ending.
        """
        path = Path(path)
        texts = {".svg": self.svg, ".dot": self.dot, ".html": f"<!doctype html><meta charset=utf-8>{self.svg}"}
        if path.suffix not in texts:
            raise ValueError(f"a drawing is saved as {', '.join(texts)}, got {path.name!r}")
        path.write_text(texts[path.suffix], encoding="utf-8")
        return path


def draw_graph(
    fn: Any,
    *args: Any,
    style: Style = "vars",
    values: bool = True,
    tangents_in: Any = None,
    adjoints_of: Any = False,
    constants: bool = True,
    fold: int = 0,
    hide: str | Sequence[str] = (),
    **options: Any,
) -> Drawing:
    """Draw the computational graph of `fn(*args)`, or a `Graph`.

    Args:
      fn: a function of `args`, or a `Graph`.
      args: its arguments, arrays or `jax.ShapeDtypeStruct`s.
      style: "vars": variables are nodes, and each says how it is computed. "ops": operations are nodes, and variables
        are the edges between them.
      values: show the forward values, where the graph has any.
      tangents_in: a direction, a tree like `args`: show the tangents along it, in blue.
      adjoints_of: True shows the derivative of the scalar output with respect to every variable, in orange; a tree of
        cotangents does so where the output is not one scalar.
      constants: draw constants as leaves of their own.
      fold: so many levels of `jax.named_scope` become single operations (see `Graph.fold`); 0 shows every operation.
      hide: globs over the names of inputs (see `dlkit.tree`) that are left out, such as "params/**": the operations
        that use them say how many.
      options: those of `trace_graph`.

    Inputs are blue boxes, constants grey and dashed, outputs yellow. Arrays of more than six elements, or of several
    axes, are shown by their norm.

    >>> import jax.numpy as jnp
    >>> picture = draw_graph(lambda x1, x2: jnp.sin(x1) + x1 * x2, 2.0, 3.0, adjoints_of=True)
    >>> picture.svg.startswith("<svg") and picture.dot.startswith("digraph")
    True

    Raises:
      ValueError: an unknown style; a glob that matches no input; derivatives of a graph of shapes; tangents or
      cotangents that do not fit.
    """
    if style not in ("ops", "vars"):
        raise ValueError(f'style is {style!r}, wanted "ops" (operations as nodes) or "vars" (variables as nodes)')
    graph = as_graph(fn, args, **options)
    if fold:
        graph = graph.fold(fold)
    notes = _notes(graph, values, tangents_in, adjoints_of)
    left_out = _hidden(graph, hide) | {
        i for i, v in enumerate(graph.variables) if v.kind == "constant" and not constants
    }
    boxes, edges, labels = (_variables if style == "vars" else _operations)(graph, notes, left_out)
    layout = arrange([box.size for box in boxes], edges)
    return Drawing(_svg(boxes, edges, labels, layout), _dot(boxes, edges, labels))


def _notes(graph: Graph, values: bool, tangents_in: Any, adjoints_of: Any) -> list[tuple[Line, ...]]:
    """What is written below the name of each variable."""
    held = graph.values() if values and graph.args is not None else None
    moved = tangents(graph, jax.tree.leaves(tangents_in)) if tangents_in is not None else None
    given = None if adjoints_of is True else jax.tree.leaves(adjoints_of)
    pulled = None if adjoints_of is False else adjoints(graph, given)
    output = graph.variables[graph.outputs[0]].name if len(set(graph.outputs)) == 1 else "L"
    notes = []
    for i, v in enumerate(graph.variables):
        lines: list[Line] = []
        if held is None and v.kind != "constant":
            lines.append((f"{v.dtype}{list(v.shape)}", VALUE))
        elif held is not None and not (v.kind == "constant" and v.shape == ()):
            text = brief(held[i], 5)
            lines.append((text if " norm " in text else f"= {text}", VALUE))
        if moved is not None and moved[i] is not None and v.kind != "constant":
            lines.append((f"{v.name}' = {brief(moved[i], 5)}", TANGENT))
        if pulled is not None and pulled[i] is not None:
            lines.append((f"d{output}/d{v.name} = {brief(pulled[i], 5)}", ADJOINT))
        notes.append(tuple(lines))
    return notes


def _kind(graph: Graph, i: int) -> str:
    return "output" if i in graph.outputs else graph.variables[i].kind


def _variables(
    graph: Graph, notes: list[tuple[Line, ...]], left_out: set[int]
) -> tuple[list[_Box], list[Edge], list[tuple[Line, ...]]]:
    made = {i: op for op in graph.operations for i in op.outputs}
    shown = [i for i in range(len(graph.variables)) if i not in left_out]
    shown = [i for i in shown if i in made or any(i in op.inputs for op in graph.operations) or i in graph.outputs]
    at = {i: n for n, i in enumerate(shown)}
    boxes = []
    for i in shown:
        op, name = made.get(i), graph.variables[i].name
        lines = [name] if op is None else _steps(graph, op, left_out)
        boxes.append(_Box((*((text, INK) for text in lines), *notes[i]), _kind(graph, i), True))
    pairs = [(i, out, symbol(op)) for op in graph.operations for out in op.outputs for i in dict.fromkeys(op.inputs)]
    pairs = [(i, out, text) for i, out, text in pairs if i in at]
    edges = [Edge(at[i], at[out]) for i, out, _ in pairs]
    return boxes, edges, [() for _ in edges]


def _operations(
    graph: Graph, notes: list[tuple[Line, ...]], left_out: set[int]
) -> tuple[list[_Box], list[Edge], list[tuple[Line, ...]]]:
    boxes: list[_Box] = []
    node: dict[int, int] = {}
    for i, v in enumerate(graph.variables):
        used = any(i in op.inputs for op in graph.operations) or i in graph.outputs
        if v.kind != "computed" and used and i not in left_out:
            node[i] = len(boxes)
            boxes.append(_Box(((v.name, INK), *notes[i]), _kind(graph, i), True))
    for op in graph.operations:
        for i in op.outputs:
            node[i] = len(boxes)
        lines = [_short(symbol(op)), *_unseen(graph, op, left_out)]
        boxes.append(_Box(tuple((text, INK) for text in lines), "operation", True))
    edges, labels = [], []
    for op in graph.operations:
        for i in dict.fromkeys(op.inputs):
            if i in node:
                computed = graph.variables[i].kind == "computed"
                text: tuple[Line, ...] = ((graph.variables[i].name, INK), *notes[i]) if computed else ()
                edges.append(Edge(node[i], node[op.outputs[0]], _Box(text, "", False).size if text else (0.0, 0.0)))
                labels.append(text)
    for i in dict.fromkeys(graph.outputs):  # an output is the edge to a node of its own
        boxes.append(_Box(((graph.variables[i].name, INK), *notes[i]), "output", True))
        edges.append(Edge(node[i], len(boxes) - 1))
        labels.append(())
    return boxes, edges, labels


def _hidden(graph: Graph, globs: str | Sequence[str]) -> set[int]:
    if not globs:
        return set()
    chosen = tree.select({graph.variables[i].name: i for i in graph.inputs}, globs)
    return set(chosen.values())


def _unseen(graph: Graph, op: Operation, left_out: set[int]) -> list[str]:
    hidden = [i for i in dict.fromkeys(op.inputs) if i in left_out and graph.variables[i].kind == "input"]
    count = sum(int(np.prod(graph.variables[i].shape, dtype=np.int64)) for i in hidden)
    return [f"+ {len(hidden)} {'input' if len(hidden) == 1 else 'inputs'} of {count:,}"] if hidden else []


def _steps(graph: Graph, op: Operation, left_out: set[int]) -> list[str]:
    """The formula; without the hidden inputs where the operation is written as a call."""
    text = assignment(graph, op)
    if "folded" in op.params or len(text) > MOST:
        seen = [graph.variables[i].name for i in dict.fromkeys(op.inputs) if i not in left_out]
        names = ", ".join(graph.variables[i].name for i in op.outputs)
        text = f"{names} = {symbol(op)}({', '.join(seen)})"
    return [_short(text), *_unseen(graph, op, left_out)]


def _short(text: str, most: int = MOST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(boxes: list[_Box], edges: list[Edge], labels: list[tuple[Line, ...]], layout: Layout) -> str:
    width, height = layout.width, layout.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONT}" font-size="12">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE_COLOUR}"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    line = f'fill="none" stroke="{LINE_COLOUR}" stroke-width="1.2" marker-end="url(#tip)"'
    parts += [f'<path d="{_curve(route)}" {line}/>' for route in layout.routes]
    for (x, y), lines in zip(layout.labels, labels, strict=True):
        if lines:
            box = _Box(lines, "", False)
            w, h = box.size[0] - PAD, box.size[1] - PAD / 2
            parts.append(
                f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" fill="#ffffff"/>'
            )
            parts += _text(lines, x, y)
    for (x, y), box in zip(layout.centres, boxes, strict=True):
        w, h = box.size
        dash = ' stroke-dasharray="4 3"' if box.kind == "constant" else ""
        corner = 10 if box.round else 2
        parts.append(
            f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{corner}" '
            f'fill="{FILL[box.kind]}" stroke="#444444"{dash}/>'
        )
        parts += _text(box.lines, x, y)
    return "\n".join([*parts, "</svg>"])


def _text(lines: tuple[Line, ...], x: float, y: float) -> list[str]:
    top = y - (len(lines) - 1) * LINE / 2 + 4
    return [
        f'<text x="{x:.1f}" y="{top + k * LINE:.1f}" fill="{colour}" text-anchor="middle">{html.escape(text)}</text>'
        for k, (text, colour) in enumerate(lines)
    ]


def _curve(route: tuple[tuple[float, float], ...]) -> str:
    """A smooth line through the points: vertical at its ends, along its neighbours' direction in between."""
    slopes = [0.0]
    for (x0, y0), (x, _), (x1, y1) in zip(route, route[1:], route[2:], strict=False):
        slopes.append(0.0 if x in (x0, x1) else (x1 - x0) / max(y1 - y0, 1.0))
    slopes.append(0.0)
    path = f"M{route[0][0]:.1f},{route[0][1]:.1f}"
    for (x0, y0), (x1, y1), s0, s1 in zip(route, route[1:], slopes, slopes[1:], strict=False):
        third = (y1 - y0) / 3 if s0 or s1 else (y1 - y0) / 2
        path += f" C{x0 + s0 * third:.1f},{y0 + third:.1f} {x1 - s1 * third:.1f},{y1 - third:.1f} {x1:.1f},{y1:.1f}"
    return path


def _dot(boxes: list[_Box], edges: list[Edge], labels: list[tuple[Line, ...]]) -> str:
    def quoted(lines: tuple[Line, ...]) -> str:
        return '"' + "\\n".join(t.replace("\\", "\\\\").replace('"', '\\"') for t, _ in lines) + '"'

    out = ["digraph computation {", '  node [shape=box, fontname="monospace"];', '  edge [fontname="monospace"];']
    for n, box in enumerate(boxes):
        style = "filled,dashed" if box.kind == "constant" else "filled,rounded"
        out.append(f'  n{n} [label={quoted(box.lines)}, style="{style}", fillcolor="{FILL[box.kind]}"];')
    for edge, lines in zip(edges, labels, strict=True):
        label = f" [label={quoted(lines)}]" if lines else ""
        out.append(f"  n{edge.source} -> n{edge.target}{label};")
    return "\n".join([*out, "}"])
