"""The written derivatives of normalization on a CPU beside those of the formula by autodiff, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit.functional.normalization.norms_cpu import standardize_channels, standardize_rows

EPS = 1e-3


def draw(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def rows(center):
    def fn(x, scale):
        return standardize_rows((1, 2), EPS, center, x, scale)

    def formula(x, scale):
        c = x - x.mean((1, 2), keepdims=True) if center else x
        y = c / jnp.sqrt((c * c).mean((1, 2), keepdims=True) + EPS)
        return y if scale is None else y * scale

    return fn, formula, (2 * draw(3, 4, 5, seed=0) + 1, draw(1, 4, 5, seed=1))


def channels(axes, groups):
    def fn(x, scale, shift):
        return standardize_channels(axes, groups, EPS, x, scale, shift)

    def formula(x, scale, shift):
        split = x.reshape(*x.shape[:-1], groups or 6, -1)
        over = (*axes, x.ndim)
        mean = split.mean(over, keepdims=True)
        var = ((split - mean) ** 2).mean(over, keepdims=True)
        y = ((split - mean) / jnp.sqrt(var + EPS)).reshape(x.shape)
        wide = lambda s: jnp.broadcast_to(s, (*s.shape[:-1], split.shape[-1])).reshape(*s.shape[:-2], -1)  # noqa: E731
        y = y if scale is None else y * scale.reshape(1, 1, 6)
        return y if shift is None else y + shift.reshape(1, 1, 6), wide(mean), wide(var)

    return fn, formula, (2 * draw(3, 4, 6, seed=0) + 1, draw(6, seed=1), draw(6, seed=2))


CASES = {  # made inside of a test, in its own precision
    "layer": lambda: rows(True),
    "rms": lambda: rows(False),
    "batch": lambda: channels((0, 1), None),
    "group": lambda: channels((1,), 2),
    "instance": lambda: channels((1,), 6),
}


def near(got, want):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-11)  # rounding of float64, twice differentiated


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bare", [False, True], ids=["affine", "bare"])
@pytest.mark.parametrize("name", CASES)
def test_all_derivatives_are_those_of_the_formula(name, bare):
    fn, formula, args = CASES[name]()
    if bare:
        args = (args[0], *(None for _ in args[1:]))
    tangents = jax.tree.map(lambda a: draw(*a.shape, seed=a.size), args)
    cotangents = jax.tree.map(lambda a: draw(*a.shape, seed=a.size + 1), formula(*args))

    def derivatives(fn):
        def grad(*args):
            return jax.vjp(fn, *args)[1](cotangents)

        return (
            jax.jvp(fn, args, tangents),
            grad(*args),
            jax.jvp(grad, args, tangents),  # forward over reverse
            jax.vjp(grad, *args)[1](grad(*args)),  # reverse over reverse
        )

    near(jax.jit(derivatives, static_argnums=0)(fn), jax.jit(derivatives, static_argnums=0)(formula))


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_float32_rounded_once(name):
    fn, _, args = CASES[name]()
    half = [a.astype(jnp.bfloat16) for a in args]

    def loss(x, *affine):
        wide = [a.astype(jnp.float32) for a in affine]
        return jnp.sum(jnp.sin(jax.tree.leaves(fn(x, *wide))[0]))

    got = jax.grad(loss)(*half)
    want = jax.grad(loss)(*(a.astype(jnp.float32) for a in half))
    assert got.dtype == jnp.bfloat16
    # The gradient leaves in the dtype of x: one rounding, to 8 bits.
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-7, atol=2**-8 * float(jnp.abs(want).max()))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mean", [1e2, 1e4])
@pytest.mark.parametrize("name", ["layer", "batch", "group"])
def test_a_large_mean_costs_no_more_than_its_own_rounding(name, mean):
    """Relative to the deviation of 1, x itself is only known to `mean 2^-24`: a one-pass variance would lose mean^2."""
    fn, formula, (x, *affine) = CASES[name]()
    given = ((x + mean).astype(jnp.float32), *(a.astype(jnp.float32) for a in affine))
    got = jax.tree.leaves(fn(*given))[0]
    want = jax.tree.leaves(formula(*(a.astype(jnp.float64) for a in given)))[0]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=8 * mean * 2**-24 + 1e-5)
