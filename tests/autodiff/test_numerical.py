"""Finite differences: their orders, their best steps, their evaluations, against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from dlkit import autodiff
from dlkit.inspect import count_evaluations, flops

SCHEMES = ("forward", "central", "five_point", "complex_step")


def f(x):
    return jnp.exp(x) * jnp.sin(x)


@pytest.fixture(scope="module")
def sweep():
    with jax.enable_x64(True):
        return autodiff.step_sweep(f, jnp.asarray(1.5), exact=np.exp(1.5) * (np.sin(1.5) + np.cos(1.5)))


@pytest.mark.parametrize(("scheme", "order"), [("forward", 1), ("central", 2), ("five_point", 4)])
def test_truncation_falls_with_the_order_of_the_scheme(sweep, scheme, order):
    assert sweep.order(scheme) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("scheme", SCHEMES[:3])
def test_the_error_is_a_v_and_its_bottom_is_predicted(sweep, scheme):
    errors, steps, best = np.array(sweep.errors[scheme]), np.array(sweep.steps), sweep.best(scheme)
    assert best / 10 <= sweep.predicted[scheme] <= best * 10
    bottom = errors[steps == best][0]
    assert errors[steps == 1.0] > 1e4 * bottom  # truncation, on the right
    assert errors[np.isfinite(errors)][-1] > 1e4 * bottom  # rounding, on the left


def test_the_complex_step_has_no_rounding_error(sweep):
    errors = np.array(sweep.errors["complex_step"])
    assert errors[np.array(sweep.steps) < 1e-8].max() < 1e-15


@pytest.mark.parametrize("scheme", SCHEMES)
def test_jacobian_of_trees(scheme, x64):
    def g(p):
        return {"y": jnp.sin(p["a"]) * p["b"], "z": jnp.sum(p["a"] ** 2)}

    at = {"a": jnp.array([0.3, -1.2, 2.0]), "b": jnp.asarray(0.7)}
    found = autodiff.finite_difference(g, at, scheme=scheme)
    exact = jax.jacobian(g)(at)
    tolerance = {"forward": 1e-7, "central": 1e-9, "five_point": 1e-11, "complex_step": 1e-15}[scheme]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), found, exact)


def test_the_evaluations_that_run_are_those_promised(x64):
    """d + 1, 2 d, 4 d and d evaluations really run; reverse mode stays below 6 evaluations at d = 10^4."""
    for scheme in SCHEMES:
        counted = count_evaluations(lambda x: jnp.sum(x**2))
        autodiff.finite_difference(counted, jnp.arange(5.0), scheme=scheme)
        assert counted.counted().values == autodiff.evaluations(5, scheme)
    assert [autodiff.evaluations(1000, s) for s in SCHEMES] == [1001, 2000, 4000, 1000]

    def g(x):
        return jnp.sum(jnp.sin(x) * x)

    x = jax.ShapeDtypeStruct((10_000,), jnp.float64)
    assert flops(jax.value_and_grad(g), x) < 6 * flops(g, x)


def test_forward_differences_are_scipys(x64):
    x, h = np.array([0.5, -0.3, 1.7]), 1e-6
    ours = autodiff.finite_difference(lambda v: jnp.sum(f(v)), jnp.asarray(x), h=h, scheme="forward")
    theirs = scipy.optimize.approx_fprime(x, lambda v: float(np.sum(np.exp(v) * np.sin(v))), h)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)  # the last digits of values near 5 over 1e-6


def test_steps_fit_the_dtype():
    found = autodiff.finite_difference(lambda x: jnp.sum(f(x)), jnp.array([0.5, 100.0], jnp.float32) / 50)
    exact = jax.grad(lambda x: jnp.sum(f(x)))(jnp.array([0.01, 2.0], jnp.float32))
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    assert 1e-4 < autodiff.optimal_step(f, jnp.float32(1.0)) < 1e-1


def test_what_is_wrong_is_said(unchecked):
    with pytest.raises(TypeError, match=r"the argument is int32, wanted floating point: pass 2\.0 in place of 2"):
        autodiff.finite_difference(jnp.sin, jnp.asarray(2))
    with pytest.raises(ValueError, match="scheme is 'backward', wanted one of forward"):
        autodiff.finite_difference(jnp.sin, 2.0, scheme="backward")
    with pytest.raises(ValueError, match=r"the step is -1\.0, wanted a positive number"):
        autodiff.finite_difference(jnp.sin, 2.0, h=-1.0)
    with pytest.raises(TypeError, match="not analytic as written"):
        autodiff.finite_difference(jnp.abs, 2.0, scheme="complex_step")
    with pytest.raises(ValueError, match="wants a scalar function"):
        autodiff.optimal_step(jnp.sin, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"this one gives shape \[2\]"):
        autodiff.gradient_table(jnp.sin, jnp.zeros(2))


def test_sweep_prints_and_draws(sweep, tmp_path):
    assert "step" in str(sweep)
    figure = sweep.plot(path=tmp_path / "v.png")
    assert (tmp_path / "v.png").stat().st_size > 10_000
    assert figure.axes[0].get_xlabel() == "step h"
