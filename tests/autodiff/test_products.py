"""Products, Jacobians, Hessians, residuals, costs, five ways, and the tape: against JAX and closed forms."""

import ast
import inspect
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import autodiff
from dlkit.autodiff import minigrad

A = jnp.array([[1.0, 2.0, -1.0], [0.5, -0.3, 2.0]])


def energy(p):
    return jnp.sum(jnp.sin(p["x"]) ** 2) * p["s"] + p["s"] ** 3


P = {"x": jnp.array([0.3, -1.0, 2.0]), "s": jnp.array(1.5)}


def test_products_are_those_of_the_matrices(x64):
    p = jax.tree.map(lambda a: jnp.asarray(a, "float64"), P)
    v = {"x": jnp.array([1.0, 0.5, -2.0]), "s": jnp.array(0.3)}
    gradient, full = jax.grad(energy)(p), autodiff.hessian(energy, p)
    flat = jnp.concatenate([v["s"][None], v["x"]])
    value, slope = autodiff.jvp(energy, (p,), (v,))
    np.testing.assert_allclose(value, energy(p))
    np.testing.assert_allclose(slope, sum(jnp.vdot(gradient[k], v[k]) for k in v), rtol=1e-14)
    (product,) = autodiff.hvp(energy, (p,), (v,))
    np.testing.assert_allclose(jnp.concatenate([product["s"][None], product["x"]]), full.matrix @ flat, rtol=1e-13)
    a, c = A.astype("float64"), jnp.array([2.0, -1.0])
    _, (back,) = autodiff.vjp(lambda x: jnp.tanh(a @ x), (v["x"],), c)
    np.testing.assert_allclose(back, c @ autodiff.jacobian(lambda x: jnp.tanh(a @ x), v["x"]).matrix, rtol=1e-14)


def test_the_cheaper_mode_is_chosen_and_shown():
    wide = autodiff.jacobian(lambda x: A @ x, jnp.ones(3))
    tall = autodiff.jacobian(lambda x: A.T @ x, jnp.ones(2))
    assert (wide.mode, wide.passes) == ("reverse mode", 2)
    assert (tall.mode, tall.passes) == ("forward mode", 2)
    assert str(wide) == "[2, 3] matrix by reverse mode: 2 backward passes against 3 forward ones"
    for mode in ("forward", "reverse"):
        np.testing.assert_array_equal(autodiff.jacobian(lambda x: A @ x, jnp.ones(3), mode=mode).matrix, A)
    tree = autodiff.jacobian(
        lambda p, q: {"u": p["a"] * p["b"] * q, "v": p["b"]}, {"a": jnp.ones(2), "b": jnp.array(3.0)}, 2.0
    )
    np.testing.assert_array_equal(tree.matrix, [[6.0, 0.0, 2.0], [0.0, 6.0, 2.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("mode", ["auto", "forward-over-reverse", "reverse-over-reverse", "forward-over-forward"])
def test_hessians_by_all_modes(mode):
    found = autodiff.hessian(lambda x: x[0] * x[1], jnp.array([3.0, 5.0]), mode=mode)
    np.testing.assert_array_equal(found.matrix, [[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(np.linalg.eigvalsh(found.matrix), [-1, 1], atol=1e-6)  # a saddle
    assert found.mode == ("forward-over-forward" if mode == "auto" else mode)


def test_errors_name_the_leaf(unchecked):
    with pytest.raises(TypeError, match="argument 0 at n is int32"):
        autodiff.jvp(lambda p: p["n"], ({"n": jnp.array(2)},), ({"n": jnp.array(2)},))
    with pytest.raises(
        ValueError, match=r"tangents must be a tree like(.|\n)*x: expected float32\[3\], got float32\[2\]"
    ):
        autodiff.hvp(energy, (P,), ({"x": jnp.zeros(2), "s": jnp.array(0.0)},))
    with pytest.raises(ValueError, match=r"the output has the shapes \[2\], not one scalar"):
        autodiff.vjp(lambda x: A @ x, (jnp.ones(3),))
    with pytest.raises(ValueError, match="not one scalar"):
        autodiff.hessian(lambda x: x, jnp.ones(3))
    with pytest.raises(ValueError, match="mode is 'fast'"):
        autodiff.jacobian(lambda x: x, jnp.ones(3), mode="fast")
    with pytest.raises(ValueError, match="mode is 'fast'"):
        autodiff.hessian(lambda x: jnp.sum(x), jnp.ones(3), mode="fast")


def test_residuals_are_what_jax_says_it_saves(capsys):
    def f(w, x):
        return jnp.sum(jnp.tanh(jax.jit(jnp.sin)(x @ w)) ** 2)

    args = jnp.ones((4, 5)), jnp.ones((3, 4))
    kept = autodiff.residuals(f, *args)
    jax.ad_checkpoint.print_saved_residuals(f, *args)
    theirs = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    ours = [f"f32[{','.join(map(str, r.shape))}]" for r in kept.rows]
    assert sorted(ours) == sorted(theirs)
    assert {r.source for r in kept.rows} >= {"argument 0", "argument 1", "cos"}
    assert kept.nbytes == 4 * sum(int(np.prod(r.shape)) for r in kept.rows)


def test_remat_keeps_less_and_computes_more():
    def f(x):
        with jax.named_scope("deep"):
            for _ in range(4):
                x = jnp.sin(x)
        return jnp.sum(x)

    x = jnp.linspace(0.0, 1.0, 100)
    plain, rematted = autodiff.residuals(f, x), autodiff.residuals(jax.checkpoint(f), x)
    assert [(r.source, r.scope, r.nbytes) for r in plain.rows] == [("cos", "deep", 400)] * 4
    assert (plain.computed, rematted.computed, rematted.nbytes) == (1600, 0, 400)
    table = autodiff.compare_remat(f, x)
    work = [int(n.replace(",", "")) for n in table.column("FLOPs of value and gradient")]
    assert work[1] > work[0]
    assert float(table.note.split()[-1]) < 1e-6
    policy = jax.checkpoint_policies.everything_saveable
    assert autodiff.compare_remat(f, x, policy=policy).column("computed and kept") == ("1.6 KiB", "1.6 KiB")
    with pytest.raises(ValueError, match="no argument is floating point"):
        autodiff.residuals(lambda n: n, jnp.array(1))


def test_memory_of_reverse_mode_grows_with_depth_and_of_forward_mode_does_not():
    def deep(depth):
        def f(x):
            for _ in range(depth):
                x = jnp.tanh(x @ W)
            return jnp.sum(x)

        return autodiff.mode_costs(f, jnp.ones((64, 64)), repeats=1, jacobians=False).costs

    shallow, tall = deep(16), deep(32)
    assert tall["one forward pass"].nbytes < 1.3 * shallow["one forward pass"].nbytes
    assert tall["one backward pass"].nbytes > 1.8 * shallow["one backward pass"].nbytes


W = jnp.eye(64)


def test_cost_curve_measures_both_jacobians():
    (found,) = autodiff.cost_curve([(3, 2)], repeats=1)
    np.testing.assert_allclose(
        found.costs["Jacobian, forward mode"].result, found.costs["Jacobian, reverse mode"].result, rtol=1e-5
    )
    assert found.cheaper in ("forward", "reverse")
    assert "3 inputs, 2 outputs" in str(found)
    with pytest.raises(ValueError, match="gave a function with 3 outputs"):
        autodiff.cost_curve([(3, 2)], lambda n, m: jnp.sin, repeats=1)


def test_five_ways_agree(x64):
    def loss(params, x, y):
        h = jnp.tanh(x @ params["w1"])
        h = jnp.tanh(h @ params["w2"])
        return jnp.mean((h @ params["w3"] - y) ** 2)

    rng = np.random.default_rng(0)
    shapes = {"w1": (2, 2), "w2": (2, 2), "w3": (2, 1)}
    params = {k: jnp.asarray(rng.normal(size=s)) for k, s in shapes.items()}
    x, y = jnp.asarray(rng.normal(size=(3, 2))), jnp.asarray(rng.normal(size=(3, 1)))

    def by_hand(params, x, y):
        h1 = jnp.tanh(x @ params["w1"])
        h2 = jnp.tanh(h1 @ params["w2"])
        d3 = 2 * (h2 @ params["w3"] - y) / 3
        d2 = d3 @ params["w3"].T * (1 - h2**2)
        d1 = d2 @ params["w2"].T * (1 - h1**2)
        return {"w1": x.T @ d1, "w2": h1.T @ d2, "w3": h2.T @ d3}

    pytest.importorskip("sympy")
    found = autodiff.five_ways(loss, params, x, y, formula=by_hand, repeats=1)
    assert not found.missing
    allowed = {"forward difference": 1e-6, "central difference": 1e-8, "five-point difference": 1e-9}
    for way, error in found.errors.items():
        assert error < allowed.get(way, 1e-13), way
    assert found.table.column("evaluations")[2:6] == ("11", "20", "40", "10")


def test_five_ways_say_which_cannot_be_gone(unchecked):
    found = autodiff.five_ways(lambda x: jnp.sort(x)[0] * jnp.abs(x[1]), jnp.array([2.0, 1.0]), repeats=1)
    assert found.missing["manual"] == "no formula given"
    assert "the primitive 'sort'" in found.missing["symbolic"] or "labs" in found.missing["symbolic"]
    assert found.errors["reverse mode"] < 1e-6
    with pytest.raises(TypeError, match="int32, wanted floating point"):
        autodiff.five_ways(lambda x: x, 2)
    with pytest.raises(ValueError, match=r"gives shape \(2,\)"):
        autodiff.five_ways(jnp.sin, jnp.zeros(2))


def random_program(seed):
    """The same random graph for both engines: each step takes two earlier values, which so are used several times."""
    rng = random.Random(seed)
    steps = [
        (rng.choice(["add", "mul", "sub", "sin", "cos", "tanh", "max", "exp"]), rng.random(), rng.random())
        for _ in range(12)
    ]

    def run(ops, *xs):
        values = list(xs)
        for name, a, b in steps:
            # Towards the later values, so that the output depends on most of them.
            left, right = values[-1 - int(a * min(4, len(values)))], values[int(b * len(values))]
            values.append(ops[name](left, right))
        return values[-1]

    return run


ALIKE = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b / 2.0,
}
OURS = ALIKE | {
    "sin": lambda a, b: minigrad.sin(a),
    "cos": lambda a, b: minigrad.cos(a + b),
    "tanh": lambda a, b: minigrad.tanh(a),
    "max": minigrad.maximum,
    "exp": lambda a, b: minigrad.exp(-(a**2)) - minigrad.log(b**2 + 1.0),
}
THEIRS = ALIKE | {
    "sin": lambda a, b: jnp.sin(a),
    "cos": lambda a, b: jnp.cos(a + b),
    "tanh": lambda a, b: jnp.tanh(a),
    "max": jnp.maximum,
    "exp": lambda a, b: jnp.exp(-(a**2)) - jnp.log(b**2 + 1.0),
}


def test_the_tape_equals_jax_on_twenty_random_graphs(x64):
    programs = [random_program(seed) for seed in range(20)]
    xs = (0.3, -1.1, 0.8)
    exact = jax.jit(lambda *xs: [jax.grad(lambda *v, p=p: p(THEIRS, *v), argnums=(0, 1, 2))(*xs) for p in programs])(
        *xs
    )
    for program, theirs in zip(programs, exact, strict=True):
        ours = minigrad.grad(lambda *v, p=program: p(OURS, *v))(*xs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    assert len({tuple(np.round(np.array(e), 6)) for e in exact}) > 15  # the graphs differ


def test_the_tape_is_sixty_lines():
    source = inspect.getsource(minigrad)
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    code = [n for n, line in enumerate(source.splitlines(), 1) if line.strip() and n not in docstrings]
    assert len(code) <= 60
