"""Every worked example of the lecture slides, with their numbers: float64 against closed forms, to 1e-9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name as named

from dlkit import autodiff

pytestmark = pytest.mark.usefixtures("x64")


def steps(table):
    return [row[0] for row in table]


def test_five_x1_plus_sin_of_x2_plus_pi():
    def y(x1, x2):
        z1, z2 = named(5.0 * x1, "z1"), named(x2 + jnp.pi, "z2")
        return named(z1 + jnp.sin(z2), "z3")

    graph = autodiff.trace_graph(y, 3.0, 2.0)
    order = autodiff.toposort(graph)
    assert [n for n in order if n.startswith("z")] == ["z1", "z2", "z3"]
    found = autodiff.evaluate_adjoints(graph)
    assert float(found["x1"]) == 5
    np.testing.assert_allclose(found["x2"], 0.4161468365, atol=1e-10)
    assert (
        str(autodiff.symbolic_grad(lambda x1, x2: 5 * x1 + jnp.sin(x2 + jnp.pi), argnums=(0, 1))) == "0: 5\n1: -cos(x2)"
    )
    text = str(autodiff.trace_adjoints(graph))
    assert "dz3/dz1 += dz3/dz3 dz3/dz1" in text
    assert "dz1/dx1 = 5" in text
    # The leaves of the drawn graph say which are variables and which constants.
    dot = autodiff.draw_graph(graph).dot
    assert dot.count('style="filled,dashed"') == 2
    assert "π" in dot


def test_x1_x2_plus_sin_x1_step_by_step():
    def f(x1, x2):
        return jnp.sin(x1) + x1 * x2

    graph = autodiff.trace_graph(f, 2.0, 3.0, names=("w1", "w2", "w3"))
    assert str(graph) == "w1 = sin(x1)\nw2 = x1 · x2\nw3 = w1 + w2"
    forward = autodiff.trace_tangents(graph, tangents_in=(1.0, 0.0))
    assert forward.column("tangent")[2:] == ("w1' = cos(x1) x1'", "w2' = x2 x1' + x1 x2'", "w3' = w1' + w2'")
    assert [float(v) for v in forward.column("tangent value")] == pytest.approx(
        [1, 0, np.cos(2), 3, np.cos(2) + 3], abs=1e-5
    )
    backward = autodiff.trace_adjoints(graph)
    assert steps(backward)[-1] == "dw3/dx1 += dw3/dw1 dw1/dx1"
    assert float(backward.column("sum so far")[-1]) == pytest.approx(3 + np.cos(2), abs=1e-5)
    paths = autodiff.sum_over_paths(graph)
    assert [str(p) for p in paths.paths] == ["x1 -> w1 -> w3", "x1 -> w2 -> w3"]
    np.testing.assert_allclose(paths.total, 3 + np.cos(2), atol=1e-15)
    np.testing.assert_allclose(
        autodiff.minigrad.grad(lambda a, b: autodiff.minigrad.sin(a) + a * b)(2.0, 3.0), [3 + np.cos(2), 2]
    )


def test_cos_of_sin_x_squared_plus_3_x_squared():
    def f(x):
        t = named(x**2, "t")
        u1, u2 = named(jnp.sin(t), "u1"), named(3 * t, "u2")
        return named(jnp.cos(named(u1 + u2, "u")), "J")

    graph = autodiff.trace_graph(f, 2.0)
    values, adjoints = autodiff.evaluate_graph(graph), autodiff.evaluate_adjoints(graph)
    assert list(values) == ["x", "t", "u1", "u2", "u", "J"]
    np.testing.assert_allclose(values["J"], 0.2451003682, atol=1e-10)
    np.testing.assert_allclose(adjoints["x"], 9.0991485448, atol=1e-10)
    u = np.sin(4) + 12
    by_hand = {"u": -np.sin(u), "u1": -np.sin(u), "u2": -np.sin(u), "t": -np.sin(u) * (np.cos(4) + 3), "J": 1.0}
    for name, value in by_hand.items():
        np.testing.assert_allclose(adjoints[name], value, atol=1e-14)
    table = autodiff.trace_adjoints(graph)
    assert table.column("local derivative")[1:] == (
        "dJ/du = -sin(u)", "du/du1 = 1", "du/du2 = 1", "du2/dt = 3", "du1/dt = cos(t)", "dt/dx = 2 x",
    )  # fmt: skip
    assert float(table.column("sum so far")[-1]) == pytest.approx(9.0991485448, abs=1e-5)


def hw0(x):
    inner = jnp.maximum(x[0], x[1]) * x[2] / x[3] - (x[4] + x[5])
    return jax.nn.sigmoid(jnp.log(5 * inner) + 0.5)


HW0 = (5.0, -1.0, 6.0, 12.0, 7.0, -5.0)
HW0_GRADIENT = (0.15712362, 0, 0.13093635, -0.06546818, -0.31424724, -0.31424724)


def test_hw0_function():
    x = jnp.array(HW0)
    graph = autodiff.trace_graph(hw0, x)
    np.testing.assert_allclose(autodiff.evaluate_graph(graph)["y"], 0.8047562615, atol=1e-10)
    np.testing.assert_allclose(autodiff.evaluate_adjoints(graph)["x"], HW0_GRADIENT, atol=1e-8)
    formula = autodiff.symbolic_grad(hw0, x, simplify=False)
    np.testing.assert_allclose(formula(x), HW0_GRADIENT, atol=1e-8)
    np.testing.assert_allclose(autodiff.finite_difference(hw0, x), HW0_GRADIENT, atol=1e-8)
    mg = autodiff.minigrad

    def by_tape(x1, x2, x3, x4, x5, x6):
        u = mg.log(5 * (mg.maximum(x1, x2) * x3 / x4 - (x5 + x6))) + 0.5
        return 1 / (1 + mg.exp(-u))

    np.testing.assert_allclose(mg.grad(by_tape)(*HW0), HW0_GRADIENT, atol=1e-8)


def test_logistic_regression_as_a_cascade():
    def loss(w, x):
        u = named(w @ x, "u")
        p = named(jax.nn.sigmoid(u), "p")
        return named(-named(jnp.log(p), "l"), "L")

    w, x = jnp.array([0.5, -1.0, 2.0]), jnp.array([1.0, 2.0, -0.5])
    table = autodiff.trace_adjoints(loss, w, x)
    local = table.column("local derivative")
    assert local[1:4] == ("dL/dl = -1", "dl/dp = 1/p", "dp/du = p (1 - p)")
    p = 1 / (1 + np.exp(-float(w @ x)))
    adjoints = autodiff.evaluate_adjoints(loss, w, x)
    for name, value in (("p", -1 / p), ("u", -(1 - p)), ("w", -(1 - p) * np.asarray(x))):
        np.testing.assert_allclose(adjoints[name], value, atol=1e-14)


def test_logistic_regression_by_hand_is_stable_and_passes_the_check():
    """log(1 + exp(-y w.x)) and its gradient -y x sigmoid(-y w.x), at margins up to 1000."""

    def loss(w, x, y):
        return jnp.logaddexp(jnp.zeros(()), -y * (w @ x))

    def by_hand(w, x, y):
        s = jax.nn.sigmoid(-y * (w @ x))
        return -s * y * x, -s * y * w, -s * (w @ x)

    w, x = jnp.array([0.5, -1.0]), jnp.array([1.0, 2.0])
    manual = autodiff.manual(loss, by_hand, check_at=(w, x, 1.0))
    for margin in (-1000.0, 1000.0):
        at = (jnp.array([margin, 0.0]), jnp.array([1.0, 0.0]), 1.0)
        np.testing.assert_allclose(manual(*at), max(-margin, 0.0))
        np.testing.assert_allclose(jax.grad(manual)(*at), [-1.0 if margin < 0 else 0.0, 0.0])


def test_gradient_table_of_the_slide():
    w = jnp.array([0.34, -1.11, 0.78, 0.12, 0.55, 2.81, -3.1, -1.5, 0.33])
    slopes = jnp.array([-2.5, 0.6, 0.0, 0.2, 0.7, -0.5, 1.1, 1.3, -2.1])
    # The slide gives losses alone: 1.25347 at W, 1.25322, 1.25353, 1.25347 when the first three weights are moved.
    table = autodiff.gradient_table(lambda v: 1.25347 + slopes @ (v - w), w, h=1e-4, digits=6)
    assert table.title == "f(W) = 1.25347, h = 0.0001"
    assert table.columns == ("weight", "W", "W + h", "f(W + h)", "dW", "reverse mode")
    assert table.column("W + h")[:3] == ("0.3401", "-1.1099", "0.7801")
    assert table.column("f(W + h)")[:3] == ("1.25322", "1.25353", "1.25347")
    assert [round(float(d), 6) for d in table.column("dW")[:3]] == [-2.5, 0.6, 0.0]
    short = autodiff.gradient_table(lambda v: 1.25347 + slopes @ (v - w), w, most=3, exact=False)
    assert (len(short), short.note) == (3, "and 6 more weights")


def test_x_sin_5x_formula_and_numbers():
    formula = autodiff.symbolic_grad(lambda x: x * jnp.sin(5 * x))
    assert str(formula) == "5*x*cos(5*x) + sin(5*x)"
    assert formula.latex() == r"5 x \cos{\left(5 x \right)} + \sin{\left(5 x \right)}"
    points = np.random.default_rng(0).normal(size=100)
    exact = jax.jit(jax.vmap(jax.grad(lambda x: x * jnp.sin(5 * x))))(points)
    np.testing.assert_allclose(jax.jit(jax.vmap(formula))(points), exact, atol=1e-12)
