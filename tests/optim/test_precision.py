"""Gradients that are narrower than the parameters, as in mixed-precision training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import losses, optim

RNG = np.random.default_rng(3)
PARAMS = {
    "w": jnp.asarray(RNG.standard_normal((4, 3)), jnp.float32),
    "b": jnp.asarray(RNG.standard_normal(3), "float32"),
}
GRADS = {name: jnp.asarray(RNG.standard_normal((12, *p.shape)), jnp.bfloat16) for name, p in PARAMS.items()}


def run(tx, grads, apply=optim.apply_updates):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (apply(params, updates), state), updates

    (params, _), updates = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), grads)
    return jax.device_get((params, updates))


def of_optax(tx, grads):
    with jax.numpy_dtype_promotion("standard"):
        return run(tx, grads, optax.apply_updates)


ADAMW = {"weight_decay": 1e-3}
CASES = {
    "sgd_momentum": (optim.sgd(0.05, 0.9), optax.sgd(0.05, 0.9)),
    "sgd_nesterov": (optim.sgd(0.05, 0.9, True), optax.sgd(0.05, 0.9, True)),
    "sgd_l2": (optim.sgd(0.05, l2=1e-3), optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.05))),
    "rmsprop": (optim.rmsprop(0.05, initial_scale=1.0), optax.rmsprop(0.05, initial_scale=1.0)),
    "adagrad": (optim.adagrad(0.05), optax.adagrad(0.05)),
    "adam": (optim.adam(0.05), optax.adam(0.05)),
    "adamw": (optim.adamw(0.05, **ADAMW), optax.adamw(0.05, **ADAMW)),
    "adamw_schedules": (
        optim.adamw(optim.cosine_decay_schedule(0.05, 12), weight_decay=optim.constant_schedule(1e-3)),
        optax.adamw(optax.cosine_decay_schedule(0.05, 12), **ADAMW),
    ),
    "clip_adamw": (
        optim.chain(optim.clip(0.5), optim.adamw(0.05, **ADAMW)),
        optax.chain(optax.clip(0.5), optax.adamw(0.05, **ADAMW)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_gradients_of_float32_parameters_equal_optax(case):
    """Nothing is rounded to bfloat16 on the way: as if the same gradients had come in float32."""
    ours, theirs = CASES[case]
    (got, updates), (expected, _) = run(ours, GRADS), of_optax(theirs, jax.tree.map(jnp.float32, GRADS))
    for name in PARAMS:
        assert updates[name].dtype == got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["sgd_momentum", "sgd_nesterov", "adamw"])
def test_bfloat16_gradients_as_they_come_equal_optax(case):
    """optax rounds (1 - b) g and (1 - b) g^2 of Adam to bfloat16, by up to 2^-8; momentum it does not round."""
    ours, theirs = CASES[case]
    (_, got), (_, expected) = run(ours, GRADS), of_optax(theirs, GRADS)
    for name in PARAMS:
        assert got[name].dtype == expected[name].dtype == np.float32
        largest = np.abs(expected[name]).max()
        tolerance = 2.0**-7 * largest if case == "adamw" else 1e-6 * largest
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("recipe", [optim.adamw, lambda rate, weight_decay: optim.sgd(rate, 0.9, l2=weight_decay)])
@pytest.mark.parametrize("decay", [1e-4, 1e-3])
def test_a_small_decay_is_not_swallowed_by_the_rounding_of_the_gradients(recipe, decay):
    first = jax.tree.map(lambda g: g[:1], GRADS)
    (_, decayed), (_, plain) = (run(recipe(0.1, weight_decay=wd), first) for wd in (decay, 0.0))
    for name, p in PARAMS.items():
        # Both updates are near 0.3 at most, so that their difference is right to 3e-8.
        np.testing.assert_allclose(decayed[name][0] - plain[name][0], -0.1 * decay * p, rtol=0, atol=6e-8)


def test_the_moments_and_the_parameters_decide_how_wide_an_update_is():
    g, p = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32)
    widths = {
        "plain": (optim.sgd(0.1), p, jnp.bfloat16),
        "wide moment": (optim.trace(0.9), p, jnp.float32),
        "narrow moment": (optim.trace(0.9, accumulator_dtype="bfloat16"), p, jnp.bfloat16),
        "wide moment of narrow parameters": (optim.trace(0.9, accumulator_dtype="float32"), g, jnp.float32),
        "parameters": (optim.add_decayed_weights(0.1), p, jnp.float32),
        "narrow all over": (optim.adamw(0.1), g, jnp.bfloat16),
    }
    for name, (tx, params, dtype) in widths.items():
        updates, _ = tx.update(g, tx.init(params), params)
        assert updates.dtype == dtype, name


def test_integer_parameters_do_not_widen_an_update():
    g = {"w": jnp.ones(2, jnp.bfloat16), "steps": jnp.ones(2, jnp.bfloat16)}
    p = {"w": jnp.ones(2, jnp.bfloat16), "steps": jnp.ones(2, jnp.int32)}
    updates, _ = optim.add_decayed_weights(0.5, mask="w").update(g, optim.EmptyState(), p)
    assert updates["steps"].dtype == updates["w"].dtype == jnp.bfloat16


def test_adam_in_pure_bfloat16_never_forgets():
    """The note under `adam`: b2 = 0.999 is 1 in bfloat16, so nu does not decay, and stops below g^2."""
    ours, theirs = optim.scale_by_adam(), optax.scale_by_adam()
    ones, zeros = jnp.ones((2000, 1), jnp.bfloat16), jnp.zeros((2000, 1), jnp.bfloat16)
    for tx in (ours, theirs):
        start = tx.init(ones[0])
        with jax.numpy_dtype_promotion("standard"):
            after_ones, _ = jax.lax.scan(lambda s, g, tx=tx: (tx.update(g, s)[1], None), start, ones)
            after_zeros, _ = jax.lax.scan(lambda s, g, tx=tx: (tx.update(g, s)[1], None), after_ones, zeros)
        assert after_ones.nu[0] < 0.6  # exactly: 1 - 0.999^2000 = 0.86
        assert after_zeros.nu[0] == after_ones.nu[0]


def test_l2_of_a_recipe_adds_half_the_gradient_of_the_penalty_l2():
    """`sgd(l2=s)` is torch's convention, s p; the gradient of `losses.l2(s)` = s sum p^2 is 2 s p."""
    params = {"w": PARAMS["w"]}
    tx = optim.sgd(1.0, l2=0.5)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(-updates["w"], 0.5 * params["w"], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(losses.l2(0.5))(params)["w"], -2 * updates["w"], rtol=1e-6)


def test_first_moment_dtype():
    """mu is rounded to bfloat16 where it is stored, and nowhere else (optax also rounds b1 * mu)."""
    grads = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    tx = optim.scale_by_adam(mu_dtype="bfloat16")
    state, mu, nu = tx.init(grads[0]), np.zeros(5), np.zeros(5)
    for t, g in enumerate(grads, 1):
        updates, state = tx.update(g, state)
        mu, nu = 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g.astype(float) ** 2
        np.testing.assert_allclose(updates, mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8), rtol=1e-5)
        assert state.mu.dtype == jnp.bfloat16
        assert state.nu.dtype == np.float32
        # Near a boundary the float32 and float64 sums could round to different sides; for these numbers they do not.
        mu = mu.astype(jnp.bfloat16).astype(float)
        np.testing.assert_array_equal(state.mu.astype(np.float32), mu)
