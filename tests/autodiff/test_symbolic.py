"""Symbolic differentiation against JAX in float64: formulas, derivatives, arrays, control flow."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlkit import autodiff

sympy = pytest.importorskip("sympy")
pytestmark = pytest.mark.usefixtures("x64")

# Thirty functions of a number in (0.1, 0.9), where each is smooth.
FUNCTIONS = [
    lambda x: x * jnp.sin(5 * x),
    lambda x: jnp.cos(x) ** 3 / (1 + x),
    lambda x: jnp.tan(x) - jnp.exp2(x),
    lambda x: jnp.exp(-(x**2) / 2),
    lambda x: jnp.log(x) + jnp.log1p(x) * jnp.expm1(x),
    lambda x: jnp.sqrt(x) + lax.rsqrt(1 + x),
    lambda x: jnp.cbrt(x),
    lambda x: jnp.arcsin(x) * jnp.arccos(x),
    lambda x: jnp.arctan(x) + jnp.arctan2(x, 2.0),
    lambda x: jnp.sinh(x) * jnp.cosh(x),
    lambda x: jnp.tanh(3 * x),
    lambda x: jnp.arcsinh(x) + jnp.arccosh(1 + x) + jnp.arctanh(x),
    lambda x: jax.nn.sigmoid(x) * 2.0,
    lambda x: jax.nn.softplus(x),
    lambda x: jax.nn.silu(x),
    lambda x: jax.nn.gelu(x),
    lambda x: jax.nn.gelu(x, approximate=False),
    lambda x: jax.scipy.special.erf(x) + jax.scipy.special.erfc(2 * x),
    lambda x: jax.scipy.special.gammaln(x),
    lambda x: jax.scipy.special.digamma(x),
    lambda x: jnp.maximum(x, 0.35) * jnp.minimum(x**2, 0.5),
    lambda x: jnp.abs(x - 0.33),
    lambda x: jnp.where(x > 0.4567, x**2, jnp.sin(x)),
    lambda x: jnp.clip(3 * x, 0.7, 1.9),
    lambda x: x**2.5 + x**-3 + 2.0**x,
    lambda x: jnp.logaddexp(x, 2 * x),
    lambda x: lax.cond(x > 0.4567, jnp.sin, jnp.cos, x),
    lambda x: lax.fori_loop(0, 3, lambda i, c: c * jnp.sin(c), x),
    lambda x: jnp.square(x) - x / 3 + jnp.pi * x,
    lambda x: x * lax.stop_gradient(x) ** 2,
]


def test_round_trip_and_derivatives_of_thirty_formulas():
    assert len(FUNCTIONS) == 30
    xs = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, 100))
    there = [autodiff.symbolic(f, simplify=False) for f in FUNCTIONS]
    slopes = [autodiff.symbolic_grad(f, simplify=False) for f in FUNCTIONS]

    def ours(x):
        return [s(x) for s in there], [s(x) for s in slopes]

    def theirs(x):
        return [f(x) for f in FUNCTIONS], [jax.grad(f)(x) for f in FUNCTIONS]

    found, exact = (jax.jit(jax.vmap(g))(xs) for g in (ours, theirs))
    for k in range(30):
        np.testing.assert_allclose(found[0][k], exact[0][k], rtol=1e-12, atol=1e-12, err_msg=f"value of {k}")
        # JAX's own series for gammaln and digamma agree with their derivatives to about 1e-10.
        tolerance = 1e-9 if k in (18, 19) else 1e-12
        np.testing.assert_allclose(found[1][k], exact[1][k], rtol=tolerance, atol=tolerance, err_msg=f"slope of {k}")


def test_arrays_reductions_indexing_and_matmuls():
    def f(params, x):
        h = jnp.tanh(x @ params["w"] + params["b"][None])
        picked = h[:, jnp.array([1, 0])] * jnp.arange(2.0)[None] + jnp.flip(h, 0)
        stacked = jnp.concatenate([picked, jnp.pad(h, ((0, 0), (0, 1)))[:, 1:]], axis=1)
        scores = jax.nn.logsumexp(stacked, axis=1) + jnp.max(picked, axis=1) - jnp.min(picked[0]) * jnp.prod(h[0])
        return jnp.mean(jnp.cumsum(scores)) + jnp.sum(jnp.einsum("ij,kj->ik", h, h))

    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(1, 2))), "b": jnp.asarray(rng.normal(size=2))}
    x = jnp.asarray(rng.normal(size=(2, 1)))
    found = autodiff.symbolic_grad(f, params, x, argnums=(0, 1), simplify=False)
    exact = jax.jit(jax.grad(f, argnums=(0, 1)))(params, x)
    ours = jax.jit(found)(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), ours, exact)


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (lambda x: x * 0.1 + 1.5, "x/10 + 3/2"),
        (lambda x: jnp.sin(x + jnp.pi / 2), "cos(x)"),
        (lambda x: jnp.maximum(x, 0.0), "Max(0, x)"),
        (lambda a, b: a / b - a, "a/b - a"),
        (lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2, "1"),
    ],
)
def test_formulas_are_simple(fn, text):
    assert sympy.simplify(sympy.sympify(str(autodiff.symbolic(fn))) - sympy.sympify(text)) == 0
    assert str(autodiff.symbolic(fn)) in (text, str(sympy.sympify(text)))


def test_stop_gradient_stops():
    assert str(autodiff.symbolic_grad(lambda x: x * lax.stop_gradient(x))) == "x"


def test_from_sympy_computes_trees_and_says_what_it_lacks():
    x, y = sympy.symbols("x y")
    run = autodiff.from_sympy({"a": sympy.sin(x) * y, "b": [x / 3]}, [x, y])
    found = run(jnp.array([0.5, 1.0]), jnp.asarray(2.0))
    np.testing.assert_allclose(found["a"], 2 * np.sin([0.5, 1.0]), rtol=1e-15)
    np.testing.assert_allclose(found["b"][0], np.array([0.5, 1.0]) / 3, rtol=1e-15)
    with pytest.raises(ValueError, match="holds y, which is not among the symbols"):
        autodiff.from_sympy(x + y, [x])
    with pytest.raises(NotImplementedError, match="SymPy's zeta"):
        autodiff.from_sympy(sympy.zeta(x), [x])


def test_what_cannot_be_translated_is_named():
    with pytest.raises(NotImplementedError, match="no formula for the primitive 'sort'"):
        autodiff.symbolic_grad(lambda x: jnp.sort(x)[0], jnp.zeros(3))
    with pytest.raises(NotImplementedError, match="no formula for the primitive 'while'"):
        autodiff.symbolic(lambda x: lax.while_loop(lambda c: c < 3, lambda c: c * 2, x))
    with pytest.raises(NotImplementedError, match="indices that depend on the variables"):
        autodiff.symbolic(lambda x: jnp.arange(3.0)[x.astype(int)])
    with pytest.raises(ValueError, match=r"this one gives shapes \[\[2\]\]"):
        autodiff.symbolic_grad(jnp.sin, jnp.zeros(2))
    with pytest.raises(ValueError, match="hold 300 numbers, and formulas are for at most 200"):
        autodiff.symbolic(jnp.sum, jnp.zeros(300))
    with pytest.raises(ValueError, match=r"for arguments of the shapes \[\[\]\], got \[\[2\]\]"):
        autodiff.symbolic(jnp.sin)(jnp.zeros(2))


def test_without_sympy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sympy", None)
    with pytest.raises(ImportError, match="labs"):
        autodiff.symbolic_grad(jnp.sin)
