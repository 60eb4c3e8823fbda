"""Decompositions: numpy's numbers, JAX's derivatives, and under `vmap` on CPU no LAPACK call with a batch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimizer_rows import BLOCKS, RECIPES

from dlkit import nn, optim
from dlkit.functional import decompositions as ours

RNG = np.random.default_rng(0)
SHAPES = {"eigh": [(4, 4)], "svd": [(5, 3), (3, 5)], "qr": [(4, 4), (5, 3)], "spectral_norm": [(4, 3)]}
THEIRS = {
    "eigh": jnp.linalg.eigh,
    "svd": lambda x: jnp.linalg.svd(x, full_matrices=False),
    "qr": jnp.linalg.qr,
    "spectral_norm": lambda x: jnp.linalg.norm(x, ord=2),
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def draw(shape, kind):
    x = RNG.standard_normal(shape)
    return jnp.asarray(x + 1j * RNG.standard_normal(shape) if kind == "complex" else x)


def number(function, x):
    """A real number that every part of the result has a share in, whatever the phases of complex vectors."""
    parts = jax.tree.leaves(tuple(jnp.atleast_1d(part) for part in jax.tree.leaves(function(x))))
    parts = [jnp.abs(part) ** 2 if jnp.iscomplexobj(part) else part for part in parts]
    return sum(jnp.sum(jnp.cos(jnp.arange(part.size).reshape(part.shape)) * part) for part in parts)


@pytest.mark.parametrize("kind", ["real", pytest.param("complex", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_values_and_derivatives_are_those_of_jax(name, shape, kind, x64):
    """To 1e-10: no decomposition here has values nearer to one another than 0.01. Alone and under vmap."""
    x = jnp.stack([draw(shape, kind) for _ in range(2)])
    function, expected = getattr(ours, name), THEIRS[name]

    def both(f):
        return jax.jit(jax.vmap(lambda x: (f(x), jax.grad(lambda x: number(f, x))(x))))(x)

    for a, b in zip(jax.tree.leaves(both(function)), jax.tree.leaves(both(expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    for a, b in zip(jax.tree.leaves(function(x[0])), jax.tree.leaves(expected(x[0])), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("trans", [0, 1])
def test_triangular_systems(trans, x64):
    a, b = jnp.stack([jnp.triu(draw((4, 4), "real")) + 3 * jnp.eye(4) for _ in range(2)]), draw((2, 4, 3), "real")

    def both(f):
        one = jax.value_and_grad(lambda a, b: jnp.sum(f(a, b, trans=trans) ** 3), (0, 1))
        return jax.jit(jax.vmap(one))(a, b)

    found, expected = both(ours.solve_triangular), both(jax.scipy.linalg.solve_triangular)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


def lapack(function, *args):
    """The shapes that LAPACK's calls in the lowered program of `function` are given."""
    text = jax.jit(function).lower(*args).as_text()
    calls = re.findall(r"@lapack_\w+\(.*?: \(([^)]*)\) ->", text)
    return [[int(d) for d in re.findall(r"(\d+)x", shape)] for call in calls for shape in call.split(", ")]


def test_the_check_sees_a_batch():
    x = jnp.ones((3, 4, 4))
    assert [3, 4, 4] in lapack(jax.vmap(jnp.linalg.eigh), x)
    assert lapack(jax.vmap(ours.eigh), x)
    assert not batches(lapack(jax.vmap(ours.eigh), x))


def batches(shapes):
    return [shape for shape in shapes if len(shape) > 2 and shape[0] > 1]


LARGE = {
    "shampoo in blocks": optim.shampoo(0.1, block_size=2),
    "orthogonal step": optim.chain(optim.scale_by_muon(preconditioning="spectral")),
    "steepest": optim.steepest_descent(0.1, "spectral"),
    "nuclear": optim.chain(optim.sgd(0.1), optim.proximal(optim.prox_nuclear, 0.1, 0.1)),
}
DECOMPOSE = ["soap", "shampoo", "psgd_kron", "galore", "newton", "damped_newton", "gauss_newton", "cma_es", "kfac"]


@pytest.mark.parametrize("name", [*LARGE, *DECOMPOSE])
def test_no_optimizer_gives_lapack_a_batch(name):
    """Two of them at once, on two cores, stop a program for ever: jaxlib waits in the pool that it waits for."""
    tx, extra = (
        (LARGE[name], {}) if name in LARGE else ((RECIPES | BLOCKS)[name][0], dict(*(RECIPES | BLOCKS)[name][2:]))
    )
    params = {"w": jnp.ones((5, 4, 4)), "v": jnp.ones((5, 4, 3))}

    def run(params):
        return tx.update(params, tx.init(params), params, **extra)

    shapes = lapack(jax.vmap(run), params)
    assert shapes
    assert not batches(shapes)


def test_nor_does_an_initializer():
    init = nn.initializers.Orthogonal()
    model = nn.Chain(nn.Linear(4, 4, w_init=init), nn.Linear(4, 3, w_init=init))
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = lapack(jax.vmap(model.init), keys)
    assert shapes
    assert not batches(shapes)
    alone = [model.init(key) for key in keys]
    jax.tree.map(
        lambda many, *one: np.testing.assert_array_equal(many, jnp.stack(one)), jax.vmap(model.init)(keys), *alone
    )
