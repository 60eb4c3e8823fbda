"""Steepest descent: each step is the minimizer it claims to be, and SGD, sign descent and Muon are members."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from support.optimizers import trajectory

from dlkit import optim

ETA = 0.3


def gradients():
    rng = np.random.default_rng(2)
    return {"a": rng.standard_normal((4, 3)), "b": rng.standard_normal((2, 5)), "c": rng.standard_normal(3)}


NORMS = {
    "l2": lambda x: np.linalg.norm(x),
    "linf": lambda x: np.max(np.abs(x)),
    "spectral": lambda x: np.linalg.norm(x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x[:, None], ord=2),
}
DUALS = {
    "l2": lambda x: np.linalg.norm(x),
    "linf": lambda x: np.sum(np.abs(x)),
    "spectral": lambda x: np.linalg.norm(x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x[:, None], ord="nuc"),
}
ACROSS = {"l2": np.linalg.norm, "max": np.max}
DUAL_ACROSS = {"l2": np.linalg.norm, "max": np.sum}


def update(tx, grads):
    grads = jax.tree.map(jnp.asarray, grads)
    return jax.tree.map(np.asarray, tx.update(grads, tx.init(grads), grads)[0])


def inner(a, b):
    return sum(float(np.sum(a[name] * b[name])) for name in a)


@pytest.mark.parametrize("across", ["l2", "max"])
@pytest.mark.parametrize("norm", ["l2", "linf", "spectral"])
def test_each_step_is_the_minimizer(norm, across, x64):
    """Of <g, d> + |d|^2 / (2 eta), with the value -eta / 2 |g|_*^2 of the dual norm; and the unit step of <g, d>."""
    g = gradients()

    def length(d):
        return ACROSS[across]([NORMS[norm](leaf) for leaf in d.values()])

    def surrogate(d):
        return inner(g, d) + length(d) ** 2 / (2 * ETA)

    best = update(optim.steepest_descent(ETA, norm, across=across), g)
    unit = update(optim.steepest_descent(ETA, norm, across=across, scaling="unit"), g)
    dual = DUAL_ACROSS[across]([DUALS[norm](leaf) for leaf in g.values()])
    np.testing.assert_allclose(surrogate(best), -ETA / 2 * dual**2, rtol=1e-12)
    np.testing.assert_allclose([length(unit), inner(g, unit)], [ETA, -ETA * dual], rtol=1e-12)
    np.testing.assert_allclose([length(best), inner(g, best)], [ETA * dual, -ETA * dual**2], rtol=1e-12)
    rng = np.random.default_rng(0)
    for near in (1e-3, 0.1, 1.0):
        for _ in range(100):
            noise = {name: near * rng.standard_normal(leaf.shape) for name, leaf in g.items()}
            other = {name: best[name] + noise[name] for name in g}
            assert surrogate(other) > surrogate(best)
            other = {name: unit[name] + noise[name] for name in g}
            other = {name: leaf * ETA / length(other) for name, leaf in other.items()}
            assert inner(g, other) >= inner(g, unit) - 1e-12


@pytest.mark.parametrize("norm", ["l2", "linf", "spectral"])
def test_descent_lemma(norm, x64):
    """A quadratic whose curvature in the norm is L: every step of 1 / L lowers it by at least |g|_*^2 / (2 L)."""
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((12, 12))
    hessian = matrix @ matrix.T
    largest = np.linalg.eigvalsh(hessian)[-1]
    curvature = largest * {"l2": 1, "linf": 12, "spectral": 3}[norm]  # |d|_2^2 <= 12 |d|_inf^2, <= 3 |d|_spectral^2

    def loss(p):
        flat = p.reshape(-1)
        return flat @ jnp.asarray(hessian) @ flat / 2

    p = jnp.asarray(rng.standard_normal((4, 3)))
    tx = optim.steepest_descent(1 / curvature, norm)
    state = tx.init(p)
    for _ in range(5):
        g = jax.grad(loss)(p)
        updates, state = tx.update(g, state, p)
        promised = DUALS[norm](np.asarray(g)) ** 2 / (2 * curvature)
        assert loss(p) - loss(p + updates) >= promised * (1 - 1e-12)
        p = p + updates


SCHEDULE = optim.cosine_decay_schedule(0.1, 20)
OF_MUON = {"scaling": "unit", "orthogonalize": "newton_schulz", "eps": 1e-30}
MATRIX = {"w": True, "b": False}
SAME = {
    "sgd": (optim.steepest_descent(SCHEDULE), optim.sgd(SCHEDULE)),
    "sgd_nesterov": (optim.steepest_descent(0.05, "l2", 0.9, True), optim.sgd(0.05, 0.9, True)),
    "sign_sgd": (optim.steepest_descent(SCHEDULE, "linf", scaling="unit"), optim.sign_sgd(SCHEDULE)),
    "signum": (optim.steepest_descent(0.05, "linf", 0.9, scaling="unit"), optim.signum(0.05)),
    "normalized": (
        optim.steepest_descent(SCHEDULE, scaling="unit"),
        optax.chain(contrib.normalize(), optax.scale_by_learning_rate(SCHEDULE)),
    ),
    "muon": (
        optim.masked(optim.steepest_descent(SCHEDULE, "spectral", 0.8, **OF_MUON), MATRIX),
        optim.masked(optim.muon(SCHEDULE, beta=0.8, eps=1e-30, nesterov=False), MATRIX),
    ),
    "muon_adaptive": (
        optim.masked(optim.steepest_descent(SCHEDULE, "spectral", orthogonalize="newton_schulz"), MATRIX),
        optim.masked(optim.muon(SCHEDULE, beta=0.0, adaptive=True, nesterov=False), MATRIX),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_members_of_the_family(name, x64):
    """The recipes by their own names take the same steps. (Muon's eps is made nothing: it is added to the norm of an
    average of gradients, where the velocity here is several times as long.)"""
    ours, theirs = (trajectory(tx, 20) for tx in SAME[name])
    for leaf in ("w", "b"):
        np.testing.assert_allclose(ours[leaf], theirs[leaf], atol=1e-12, rtol=0)
    if name in ("sgd", "sgd_nesterov", "sign_sgd"):
        for leaf in ("w", "b"):
            np.testing.assert_array_equal(ours[leaf], theirs[leaf])


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 2, 3), (2, 2, 2, 3)])
def test_spectral_direction_is_the_polar_factor(shape, x64):
    """Against numpy's SVD; kernels are matrices of all their inputs by their outputs."""
    g = np.random.default_rng(0).standard_normal(shape)
    u, _, vh = np.linalg.svd(g.reshape(-1, shape[-1]), full_matrices=False)
    got = update(optim.scale_by_dual("spectral", scaling="unit"), {"w": g})["w"]
    np.testing.assert_allclose(got.reshape(-1, shape[-1]), u @ vh, atol=1e-13)


def test_spectral_direction_of_a_singular_matrix(x64):
    """Directions in which the gradient is zero do not move."""
    a, b = np.array([3.0, 4.0]) / 5, np.array([1.0, 2.0, 2.0]) / 3
    got = update(optim.scale_by_dual("spectral", scaling="unit"), {"w": 7 * np.outer(a, b), "v": np.zeros((2, 2))})
    np.testing.assert_allclose(got["w"], np.outer(a, b), atol=1e-15)
    np.testing.assert_array_equal(got["v"], 0)


@pytest.mark.parametrize("steps", [1, 5])
def test_newton_schulz_is_the_polynomial_of_the_singular_values(steps, x64):
    g = np.random.default_rng(4).standard_normal((6, 4))
    u, s, vh = np.linalg.svd(g, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    tx = optim.scale_by_muon(ns_steps=steps, beta=0.0, eps=0.0)
    np.testing.assert_allclose(update(tx, {"w": g})["w"], (u * s) @ vh, atol=1e-12)


def test_muon_of_kernels_and_stacks(x64):
    """A kernel is one matrix, a stack of matrices several: each as if it were alone."""
    rng = np.random.default_rng(5)
    kernel, stack = rng.standard_normal((2, 2, 3, 4)), rng.standard_normal((2, 3, 4))
    numbers = {"kernel": optim.MuonDimensionNumbers((0, 1, 2), -1), "stack": optim.MuonDimensionNumbers(1, 2)}
    tx = optim.scale_by_muon(weight_dimension_numbers=numbers)
    got = update(tx, {"kernel": kernel, "stack": stack})
    alone = optim.scale_by_muon()
    flat = update(alone, {"w": kernel.reshape(12, 4)})["w"]
    np.testing.assert_allclose(got["kernel"].reshape(12, 4), flat, atol=1e-12)
    for i in range(2):
        np.testing.assert_allclose(got["stack"][i], update(alone, {"w": stack[i]})["w"], atol=1e-12)
    with pytest.raises(ValueError, match=r"scale_by_muon: a leaf of shape \(2, 3, 4\) is no matrix"):
        update(alone, {"stack": stack})
    with pytest.raises(ValueError, match="named twice"):
        update(optim.scale_by_muon(weight_dimension_numbers=optim.MuonDimensionNumbers(0, -2)), {"w": kernel[0, 0]})


def test_muon_keeps_no_matrix_state_for_what_adam_takes():
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "none": None}
    of_muon, of_adam = optim.muon(0.1).init(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(of_muon.inner_state[0].mu)]
    assert (shapes, [leaf.shape for leaf in jax.tree.leaves(of_adam.inner_state[0].nu)]) == ([(2, 3)], [(3,)])
    assert optim.muon(0.1, muon_weight_dimension_numbers={"w": optim.MuonDimensionNumbers(0, 1)}) == optim.muon(
        0.1, muon_weight_dimension_numbers={"w": contrib.MuonDimensionNumbers(0, 1)}
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.steepest_descent(0.1, nesterov=True), "^steepest_descent: nesterov=True needs a momentum"),
        (lambda: optim.scale_by_dual("l3"), "^steepest_descent: norm is 'l3', wanted one of .*'linf'"),
        (lambda: optim.scale_by_dual(scaling="both"), "^steepest_descent: scaling is 'both'"),
        (lambda: optim.muon(0.1, "fast"), "^muon: ns_coeffs is 'fast', wanted numbers or one of standard, dion"),
        (lambda: optim.muon(0.1, (1.0, 2.0)), r"^muon: ns_coeffs has rows of \[2\] numbers, wanted 3"),
        (lambda: optim.muon(0.1, "dion", 4), "^scale_by_muon: ns_steps is 4, wanted 5"),
        (lambda: optim.muon(0.1, beta=1.0), "^scale_by_muon: beta is 1.0, wanted 0 <= beta < 1"),
        (lambda: optim.muon(0.1, preconditioning="svd"), "^scale_by_muon: preconditioning is 'svd'"),
        (lambda: optim.galore(0.1, rank=0), "^scale_by_galore: rank is 0, wanted 1 or more"),
    ],
)
def test_arguments_out_of_range(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()
