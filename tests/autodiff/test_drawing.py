"""Pictures: well-formed, nothing overlaps, every label fits its box; DOT says the same graph."""

import itertools
import re
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import autodiff, nn
from dlkit.autodiff.layout import Edge, arrange

SVG = "{http://www.w3.org/2000/svg}"
CHAR = 7.23  # the widest advance of the named fonts at 12 px: DejaVu Sans Mono


def two_inputs(x1, x2):
    return jnp.sin(x1) + x1 * x2


def transformer(params, x):
    return jnp.sum(BLOCK.apply(params, None, x, nn.EVAL)[0] ** 2)


BLOCK = nn.transformer_block(8, 2, causal=True)


def boxes_and_texts(svg):
    root = ET.fromstring(svg)
    size = float(root.get("width")), float(root.get("height"))
    rects = [r for r in root.iter(f"{SVG}rect") if r.get("stroke")]
    boxes = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in rects]
    texts = [(float(t.get("x")), float(t.get("y")), t.text) for t in root.iter(f"{SVG}text")]
    return size, boxes, texts


def drawings():
    shapes = jax.eval_shape(BLOCK.init, jax.random.key(0)), jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)
    block = autodiff.trace_graph(transformer, *shapes)
    for style in ("vars", "ops"):
        yield autodiff.draw_graph(two_inputs, 2.0, 3.0, style=style, adjoints_of=True, tangents_in=(1.0, 0.0))
        yield autodiff.draw_graph(block, style=style, fold=2)
    yield autodiff.draw_graph(block)


def test_nothing_overlaps_and_every_label_fits():
    for drawing in drawings():
        (width, height), boxes, texts = boxes_and_texts(drawing.svg)
        for (x0, y0, w0, h0), (x1, y1, w1, h1) in itertools.combinations(boxes, 2):
            assert x0 + w0 <= x1 or x1 + w1 <= x0 or y0 + h0 <= y1 or y1 + h1 <= y0
        for x, y, w, h in boxes:
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= y + h <= height
        for x, y, text in texts:
            left, right = x - CHAR * len(text) / 2, x + CHAR * len(text) / 2
            inside = [b for b in boxes if b[0] <= x <= b[0] + b[2] and b[1] <= y <= b[1] + b[3]]
            for bx, _, bw, _ in inside:
                assert bx <= left
                assert right <= bx + bw
            if not inside:  # a label of an edge: it covers no box
                assert not [
                    b for b in boxes if b[0] < right and left < b[0] + b[2] and b[1] < y and y - 9 < b[1] + b[3]
                ]
                assert left >= 0
                assert right <= width


def test_edges_go_downwards_and_touch_no_box_on_their_way():
    shapes = jax.eval_shape(BLOCK.init, jax.random.key(0)), jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)
    drawing = autodiff.draw_graph(autodiff.trace_graph(transformer, *shapes), fold=2, hide="params/**")
    _, boxes, _ = boxes_and_texts(drawing.svg)
    for path in re.findall(r'<path d="(M[^"]+)" fill="none"', drawing.svg):
        numbers = np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
        points = [numbers[0]]
        for a, b, c, d in zip(numbers[0::3], numbers[1::3], numbers[2::3], numbers[3::3], strict=False):
            t = np.linspace(0, 1, 20)[:, None]
            points += list((1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d)
        ys = [p[1] for p in points]
        assert all(b >= a - 1e-6 for a, b in itertools.pairwise(ys))
        for x, y in points[2:-2]:
            assert not [b for b in boxes if b[0] < x < b[0] + b[2] and b[1] < y < b[1] + b[3]]


def test_both_notations_of_one_function():
    variables = autodiff.draw_graph(two_inputs, 2.0, 3.0)
    operations = autodiff.draw_graph(two_inputs, 2.0, 3.0, style="ops")
    for drawing, nodes, edges in ((variables, 5, 5), (operations, 6, 6)):
        assert len(re.findall(r"^  n\d+ \[", drawing.dot, re.MULTILINE)) == nodes
        assert drawing.dot.count(" -> ") == edges
    assert "w1 = sin(x1)" in variables.dot
    assert '"sin"' in operations.dot
    assert 'label="w1\\n= 0.9093"' in operations.dot  # a variable on an edge
    assert variables == autodiff.draw_graph(two_inputs, 2.0, 3.0)


def test_values_tangents_and_adjoints_are_written_on_the_nodes():
    svg = autodiff.draw_graph(two_inputs, 2.0, 3.0, adjoints_of=True, tangents_in=(1.0, 0.0)).svg
    for text in ("= 6.9093", "y&#x27; = 2.5839", "dy/dx1 = 2.5839", "dy/dx2 = 2"):
        assert text in svg


def test_folded_transformer_is_readable():
    params, x = BLOCK.init(jax.random.key(0)), jnp.ones((1, 3, 8))
    svg = autodiff.draw_graph(transformer, params, x, fold=2, hide="params/**", constants=False).svg
    _, boxes, texts = boxes_and_texts(svg)
    assert len(boxes) == 9
    shown = [text for _, _, text in texts]
    for name in ("norm1(x)", "attention(", "norm2(", "mlp("):
        assert [t for t in shown if name in t]
    assert "+ 8 inputs of 288" in shown  # 4 (8 x 8 + 8)


def test_saving_and_errors(tmp_path, unchecked):
    drawing = autodiff.draw_graph(jnp.sin, 1.0)
    for name in ("a.svg", "a.dot", "a.html"):
        assert drawing.save(tmp_path / name).read_text(encoding="utf-8")
    assert drawing.svg in drawing._repr_html_()
    assert autodiff.trace_graph(jnp.sin, 1.0)._repr_html_() == drawing._repr_html_()
    with pytest.raises(ValueError, match=r"saved as .svg, .dot, .html, got 'a.png'"):
        drawing.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="style is 'boxes'"):
        autodiff.draw_graph(jnp.sin, 1.0, style="boxes")
    with pytest.raises(ValueError, match="matches none"):
        autodiff.draw_graph(jnp.sin, 1.0, hide="params/**")


def test_layout_of_a_diamond_is_symmetric():
    layout = arrange([(40.0, 20.0)] * 4, [Edge(0, 1), Edge(0, 2), Edge(1, 3), Edge(2, 3)])
    (top, _), (left, y1), (right, y2), (bottom, _) = layout.centres
    assert y1 == y2
    np.testing.assert_allclose([top, bottom], (left + right) / 2, atol=0.5)
