"""Same name, different numbers (asks 15, 32, 33): the forms of one optimizer, each against its formula in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.optimizers import CURVATURE, START, STEPS, TARGET, trajectory

from dlkit import optim
from dlkit.optim import preset


def numpy_trajectory(rule, initial):
    """`rule(t, g, *moments) -> (change, *moments)` for t = 1, 2, ... on the leaf `w`."""
    p, moments, seen = START["w"], initial, []
    for t in range(1, STEPS + 1):
        g = CURVATURE["w"] * (p - TARGET["w"]) + 0.6 * np.sin(2 * p)
        change, *moments = rule(t, g, *moments)
        p = p + change
        seen.append(p)
    return np.stack(seen)


ZERO = np.zeros((4, 3))


def tf_adam(lr, eps, b1=0.9, b2=0.999):
    def rule(t, g, m, v):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        return -lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps), m, v

    return numpy_trajectory(rule, (ZERO, ZERO))


@pytest.mark.parametrize("eps", [1e-7, 1e-1])
def test_tf_style_adam(eps, x64):
    got = trajectory(optim.adam(0.05, **{**preset("keras", "adam"), "eps": eps}))["w"]
    np.testing.assert_allclose(got, tf_adam(0.05, eps), rtol=0, atol=1e-12)


def test_epsilon_placement_matters(x64):
    torch_like, tf_like = (trajectory(optim.adam(0.05, eps=0.1, tf_style=tf))["w"] for tf in (False, True))
    assert np.abs(torch_like - tf_like).max() > 1e-2


@pytest.mark.parametrize("tf_style", [False, True])
@pytest.mark.parametrize("eps", [1e-8, 1e-1])
def test_first_step_of_adam_exactly(tf_style, eps):
    """At step 1, mu_hat = g and nu_hat = g^2: u = g / (|g| + eps); in TF's form eps / sqrt(1 - b2) stands for eps."""
    g = jnp.array([2.0, -0.5, 1e-3])
    tx = optim.scale_by_adam(eps=eps, tf_style=tf_style)
    u, _ = tx.update(g, tx.init(g), g)
    g64, hat = np.asarray(g, np.float64), eps / np.sqrt(1 - 0.999) if tf_style else eps
    np.testing.assert_allclose(u, g64 / (np.abs(g64) + hat), rtol=5e-7)  # a few roundings of float32, no more


@pytest.mark.parametrize(("library", "eps_in_sqrt", "nu"), [("tf1", True, 1.0), ("optax", True, 0.0)])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_rmsprop_presets(library, eps_in_sqrt, nu, momentum, x64):
    def rule(t, g, v, buffer):
        v = 0.9 * v + 0.1 * g**2
        buffer = (momentum or 0.0) * buffer + 0.02 * g / np.sqrt(v + 1e-2)
        return -buffer, v, buffer

    options = {**preset(library, "rmsprop"), "eps": 1e-2}
    got = trajectory(optim.rmsprop(0.02, momentum=momentum, **options))["w"]
    np.testing.assert_allclose(got, numpy_trajectory(rule, (np.full((4, 3), nu), ZERO)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_both_momentum_forms_agree_at_a_constant_rate(nesterov, x64):
    first, second = (trajectory(optim.sgd(0.05, 0.9, nesterov, lr_in_velocity=inside))["w"] for inside in (False, True))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


def test_momentum_forms_part_under_a_step_schedule(x64):
    schedule = optim.step_decay(0.05, 10)

    def seed_form(t, g, v):
        v = 0.9 * v - 0.05 * 0.1 ** ((t - 1) // 10) * g
        return v, v

    first, second = (trajectory(optim.sgd(schedule, 0.9, lr_in_velocity=inside))["w"] for inside in (False, True))
    np.testing.assert_allclose(second, numpy_trajectory(seed_form, (ZERO,)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(first[:10], second[:10], rtol=0, atol=1e-12)
    assert np.abs(first - second).max() > 0.1


def test_momentum_zero_is_plain_sgd(x64):
    plain, zero = trajectory(optim.sgd(0.05)), trajectory(optim.sgd(0.05, momentum=0.0))
    np.testing.assert_allclose(plain["w"], zero["w"], rtol=0, atol=1e-14)


def test_coupled_and_decoupled_decay(x64):
    """The same for SGD, not the same under Adam."""
    for base, same in ((optim.identity(), True), (optim.scale_by_adam(), False)):
        coupled = optim.chain(optim.add_decayed_weights(0.1), base, optim.scale(-0.05))
        decoupled = optim.chain(base, optim.add_decayed_weights(0.1), optim.scale(-0.05))
        apart = np.abs(trajectory(coupled)["w"] - trajectory(decoupled)["w"]).max()
        assert apart < 1e-12 if same else apart > 1e-2


def test_centered_rmsprop_stays_finite_for_a_steady_gradient():
    """nu - mu^2 tends to 0 from above, and rounding makes it negative: without the cut-off a NaN."""
    tx = optim.scale_by_stddev(decay=0.9, eps=1e-8, eps_in_sqrt=False)
    g = jnp.linspace(0.1, 3.0, 64)

    def step(state, _):
        u, state = tx.update(g, state)
        return state, jnp.all(jnp.isfinite(u))

    assert bool(jnp.all(jax.lax.scan(step, tx.init(g), None, length=300)[1]))


def test_no_preset():
    with pytest.raises(ValueError, match=r"preset: there is no torch/adamm, only .*torch/adam"):
        preset("torch", "adamm")
