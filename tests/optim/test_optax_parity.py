"""50-step trajectories equal optax's, in float64 and in float32."""

import jax
import numpy as np
import optax
import pytest
from support.optimizers import trajectory

from dlkit import optim

WARM = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 40, "end_value": 0.01}
MASK = {"w": True, "b": False}


def precise(schedule):
    """optax computes most schedules in float32 from an int32 count, in 64-bit mode too."""
    return lambda count: schedule(count.astype(jax.numpy.result_type(float)))


CASES = {
    "sgd": (optim.sgd(0.05), optax.sgd(0.05)),
    "sgd_momentum": (optim.sgd(0.05, 0.9), optax.sgd(0.05, 0.9)),
    "sgd_nesterov": (optim.sgd(0.05, 0.9, True), optax.sgd(0.05, 0.9, True)),
    "sgd_schedule": (
        optim.sgd(optim.warmup_cosine_decay_schedule(**WARM), momentum=0.9),
        optax.sgd(precise(optax.warmup_cosine_decay_schedule(**WARM)), momentum=0.9),
    ),
    "sgd_optax_schedule": (
        optim.sgd(optax.exponential_decay(0.1, 10, 0.5), momentum=0.9),
        optax.sgd(optax.exponential_decay(0.1, 10, 0.5), momentum=0.9),
    ),
    "sgd_lr_in_velocity": (
        optim.sgd(optim.step_decay(0.05, 20), momentum=0.9, lr_in_velocity=True),
        optax.chain(
            optax.scale_by_learning_rate(precise(optax.exponential_decay(0.05, 20, 0.1, staircase=True))),
            optax.trace(0.9),
        ),
    ),
    "adagrad": (optim.adagrad(0.3), optax.adagrad(0.3)),
    "adagrad_options": (optim.adagrad(0.3, 0.5, 1e-2), optax.adagrad(0.3, 0.5, 1e-2)),
    "rmsprop": (optim.rmsprop(0.02), optax.rmsprop(0.02)),
    "rmsprop_eps_outside": (
        optim.rmsprop(0.02, 0.8, 1e-2, 0.5, eps_in_sqrt=False),
        optax.rmsprop(0.02, 0.8, 1e-2, 0.5, eps_in_sqrt=False),
    ),
    "rmsprop_centered": (optim.rmsprop(0.02, eps=1e-2, centered=True), optax.rmsprop(0.02, eps=1e-2, centered=True)),
    "rmsprop_momentum": (
        optim.rmsprop(optim.cosine_decay_schedule(0.02, 50), momentum=0.9, nesterov=True),
        optax.rmsprop(optax.cosine_decay_schedule(0.02, 50), momentum=0.9, nesterov=True),
    ),
    "rmsprop_corrected": (
        optim.rmsprop(0.02, eps_in_sqrt=False, bias_correction=True),
        optax.rmsprop(0.02, eps_in_sqrt=False, bias_correction=True),
    ),
    "rmsprop_centered_corrected": (
        optim.rmsprop(0.02, eps=1e-2, centered=True, bias_correction=True),
        optax.rmsprop(0.02, eps=1e-2, centered=True, bias_correction=True),
    ),
    "adam": (optim.adam(0.05), optax.adam(0.05)),
    "adam_large_eps": (optim.adam(0.05, eps=0.1), optax.adam(0.05, eps=0.1)),
    "adam_betas_eps_root": (
        optim.adam(0.05, 0.8, 0.95, eps_root=1e-3),
        optax.adam(0.05, 0.8, 0.95, eps_root=1e-3),
    ),
    "adam_b1_0": (optim.adam(0.05, b1=0.0), optax.adam(0.05, b1=0.0)),
    "adam_nesterov": (optim.adam(0.05, nesterov=True), optax.adam(0.05, nesterov=True)),
    "adam_l2": (
        optim.adam(0.05, l2=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.05)),
    ),
    "adamw": (optim.adamw(0.05), optax.adamw(0.05)),
    "adamw_mask_glob": (
        optim.adamw(0.05, weight_decay=0.2, mask="**/w"),
        optax.adamw(0.05, weight_decay=0.2, mask=MASK),
    ),
    "adamw_mask_tree": (
        optim.adamw(0.05, weight_decay=0.2, mask=MASK),
        optax.adamw(0.05, weight_decay=0.2, mask=MASK),
    ),
    "adamw_mask_callable": (
        optim.adamw(0.05, weight_decay=0.2, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        optax.adamw(0.05, weight_decay=0.2, mask=MASK),
    ),
    "adamw_nesterov_schedules": (
        optim.adamw(optim.cosine_decay_schedule(0.05, 50), weight_decay=0.1, nesterov=True),
        optax.adamw(optax.cosine_decay_schedule(0.05, 50), weight_decay=0.1, nesterov=True),
    ),
    "clip_adamw": (
        optim.chain(optim.clip_by_global_norm(0.5), optim.adamw(0.05)),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.05)),
    ),
    "clip_norm_sgd": (
        optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.05)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05)),
    ),
    "clip_value_sgd": (
        optim.chain(optim.clip(0.5), optim.sgd(0.05)),
        optax.chain(optax.clip(0.5), optax.sgd(0.05)),
    ),
    "masked": (
        optim.chain(optim.masked(optim.scale_by_adam(), "w"), optim.scale(-0.05)),
        optax.chain(optax.masked(optax.scale_by_adam(), MASK), optax.scale(-0.05)),
    ),
    "scale_by_schedule": (
        optim.chain(optim.trace(0.5), optim.scale_by_schedule(optim.linear_schedule(-0.1, 0.0, 50))),
        optax.chain(optax.trace(0.5), optax.scale_by_schedule(precise(optax.linear_schedule(-0.1, 0.0, 50)))),
    ),
}


def of_optax(tx, **options):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts and floats
        return trajectory(tx, apply=optax.apply_updates, **options)


@pytest.mark.parametrize("case", CASES)
def test_float64(case, x64):
    ours, theirs = CASES[case]
    with jax.numpy_dtype_promotion("standard" if "optax" in case else "strict"):
        got = trajectory(ours, apply=optim.apply_updates)
    expected = of_optax(theirs)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-12)


# optax in float64 is the truth: its own float32 bias corrections are off by 1e-5 in the first steps.
@pytest.mark.parametrize(
    "case", ["sgd_nesterov", "adagrad", "rmsprop_momentum", "adam", "adamw_mask_glob", "clip_adamw"]
)
def test_float32(case):
    ours, theirs = CASES[case]
    got = trajectory(ours, dtype=np.float32)
    with jax.enable_x64(True):
        expected = of_optax(theirs)
    for name in expected:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-5)


def test_first_moment_dtype():
    """mu is rounded to bfloat16 where it is stored, and nowhere else (optax also rounds b1 * mu)."""
    grads = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    tx = optim.scale_by_adam(mu_dtype="bfloat16")
    state, mu, nu = tx.init(grads[0]), np.zeros(5), np.zeros(5)
    for t, g in enumerate(grads, 1):
        updates, state = tx.update(g, state)
        mu, nu = 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g.astype(float) ** 2
        np.testing.assert_allclose(updates, mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8), rtol=1e-5)
        assert state.mu.dtype == jax.numpy.bfloat16
        assert state.nu.dtype == np.float32
        # Near a boundary the float32 and float64 sums could round to different sides; for these numbers they do not.
        mu = mu.astype(jax.numpy.bfloat16).astype(float)
        np.testing.assert_array_equal(state.mu.astype(np.float32), mu)


def test_dlkit_transform_equals_optax_inside_optax_chain(x64):
    got = of_optax(optax.chain(optim.scale_by_adam(), optax.scale(-0.05)))
    expected = of_optax(optax.adam(0.05))
    np.testing.assert_allclose(got["w"], expected["w"], rtol=0, atol=1e-12)
