"""torch's schedulers at every update, by golden numbers; Keras's and optax's too."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.reference import reference

from dlkit import optim

STEPS, RATE = 30, 0.4


def rates_of_torch(make, steps=STEPS):
    """The learning rates (and momenta) of the first updates: read before each one."""

    def compute():
        import torch

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE, momentum=0.9)
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        rates, momenta = [], []
        for t in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            if t + 1 < steps:
                scheduler.step()
        return {"rates": np.array(rates), "momenta": np.array(momenta)}

    return compute


def halves(t):
    return 0.5 if t in (3, 7) else 1.0


ONE = {"max_lr": 1.0, "total_steps": STEPS}
TORCH = {
    "StepLR": (lambda s, o: s.StepLR(o, 7, 0.5), optim.step_decay(RATE, 7, 0.5)),
    "MultiStepLR": (lambda s, o: s.MultiStepLR(o, [5, 9, 9], 0.5), optim.multi_step_decay(RATE, [5, 9, 9], 0.5)),
    "ConstantLR": (lambda s, o: s.ConstantLR(o), optim.warmup_factor_schedule(RATE)),
    "LinearLR": (lambda s, o: s.LinearLR(o, 0.25, 0.75, 8), optim.linear_schedule(RATE / 4, 0.75 * RATE, 8)),
    "ExponentialLR": (lambda s, o: s.ExponentialLR(o, 0.9), optim.exponential_decay(RATE, 1, 0.9)),
    "PolynomialLR": (lambda s, o: s.PolynomialLR(o, 8, 2.0), optim.polynomial_schedule(RATE, 0.0, 2.0, 8)),
    "CosineAnnealingLR": (
        lambda s, o: s.CosineAnnealingLR(o, 8, 0.1),
        optim.cosine_annealing_schedule(RATE, 8, 0.1),
    ),
    "CosineAnnealingWarmRestarts": (
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, eta_min=0.1),
        optim.cosine_restarts_schedule(RATE, 5, 1.0, alpha=0.1 / RATE),
    ),
    "CosineAnnealingWarmRestarts_mult": (
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
        optim.cosine_restarts_schedule(RATE, 3, 2),
    ),
    "OneCycleLR": (lambda s, o: s.OneCycleLR(o, **ONE), optim.onecycle_schedule(1.0, STEPS)),
    "OneCycleLR_linear": (  # the peak is not at a whole update: 0.33 * 30 - 1 = 8.9
        lambda s, o: s.OneCycleLR(o, **ONE, anneal_strategy="linear", pct_start=0.33, div_factor=10.0),
        optim.onecycle_schedule(1.0, STEPS, 0.33, "linear", 10.0),
    ),
    "OneCycleLR_no_rise": (
        lambda s, o: s.OneCycleLR(o, **ONE, pct_start=0.0),
        optim.onecycle_schedule(1.0, STEPS, 0.0),
    ),
    "OneCycleLR_three_phases": (
        lambda s, o: s.OneCycleLR(o, **ONE, three_phase=True, pct_start=0.37, final_div_factor=100.0),
        optim.onecycle_schedule(1.0, STEPS, 0.37, final_div_factor=100.0, three_phase=True),
    ),
    "CyclicLR": (lambda s, o: s.CyclicLR(o, 0.1, 1.0, 3, 5), optim.cyclic_schedule(0.1, 1.0, 3, 5)),
    "CyclicLR_halved": (
        lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, mode="triangular2"),
        optim.cyclic_schedule(0.1, 1.0, 4, mode="triangular2"),
    ),
    "CyclicLR_exp_range": (
        lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, 2, mode="exp_range", gamma=0.95),
        optim.cyclic_schedule(0.1, 1.0, 4, 2, "exp_range", 0.95),
    ),
    "SequentialLR": (
        lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 99), s.ExponentialLR(o, 0.9)], [6]),
        optim.join_schedules([optim.constant_schedule(0.1 * RATE), optim.exponential_decay(RATE, 1, 0.9)], [6]),
    ),
    "ChainedScheduler": (
        lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 4), s.ExponentialLR(o, 0.9)]),
        optim.product_schedule(RATE, optim.warmup_factor_schedule(1.0, 0.1, 4), optim.exponential_decay(1.0, 1, 0.9)),
    ),
    "LambdaLR": (
        lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + t / 10)),
        optim.product_schedule(RATE, lambda t: 1 / (1 + t / 10)),
    ),
    "MultiplicativeLR": (
        lambda s, o: s.MultiplicativeLR(o, halves),
        optim.multiplicative_schedule(RATE, lambda t: jnp.where((t == 3) | (t == 7), 0.5, 1.0), STEPS),
    ),
    "SWALR": (
        lambda s, o: __import__("torch").optim.swa_utils.SWALR(o, 0.05, anneal_epochs=8),
        optim.swa_schedule(RATE, 0.05, 8),
    ),
    "SWALR_linear": (
        lambda s, o: __import__("torch").optim.swa_utils.SWALR(o, 0.05, 8, "linear"),
        optim.swa_schedule(RATE, 0.05, 8, "linear"),
    ),
}
MOMENTA = {
    "OneCycleLR": optim.onecycle_momentum_schedule(STEPS),
    "OneCycleLR_linear": optim.onecycle_momentum_schedule(STEPS, 0.33, "linear"),
    "OneCycleLR_three_phases": optim.onecycle_momentum_schedule(STEPS, 0.37, three_phase=True),
    "CyclicLR": optim.cyclic_schedule(0.9, 0.8, 3, 5),
    "CyclicLR_exp_range": optim.cyclic_schedule(0.9, 0.8, 4, 2, "exp_range", 0.95),
}


@pytest.mark.parametrize("name", TORCH)
def test_equals_torch_at_every_update(name, x64):
    """In float64. torch multiplies one rate by the next factor, 30 times: within some roundings of a closed form."""
    theirs = reference(f"schedules/{name}", rates_of_torch(TORCH[name][0]))
    counts = jnp.arange(STEPS)
    np.testing.assert_allclose(jax.vmap(TORCH[name][1])(counts), theirs["rates"], rtol=1e-12, atol=1e-15)
    if name in MOMENTA:
        np.testing.assert_allclose(MOMENTA[name](counts), theirs["momenta"], rtol=1e-12)


KERAS = {
    "InverseTimeDecay": ((0.4, 7, 0.5), {}, optim.inverse_time_decay(0.4, 7, 0.5)),
    "InverseTimeDecay_stairs": ((0.4, 7, 0.5, True), {}, optim.inverse_time_decay(0.4, 7, 0.5, True)),
    "ExponentialDecay": ((0.4, 7, 0.5, True), {}, optim.exponential_decay(0.4, 7, 0.5, staircase=True)),
    "PolynomialDecay": ((0.4, 7, 0.1, 2.0), {}, optim.polynomial_schedule(0.4, 0.1, 2.0, 7)),
    "CosineDecay": ((0.1, 9), {"alpha": 0.2, "warmup_target": 0.4, "warmup_steps": 5},
        optim.warmup_cosine_decay_schedule(0.1, 0.4, 5, 14, 0.2 * 0.4)),
    "CosineDecayRestarts": ((0.4, 5), {"m_mul": 0.8, "alpha": 0.1},
        optim.cosine_restarts_schedule(0.4, 5, 2.0, 0.8, 0.1)),
    "CosineDecayRestarts_slow": ((0.4, 5), {"t_mul": 1.3}, optim.cosine_restarts_schedule(0.4, 5, 1.3)),
    "CosineDecayRestarts_equal": ((0.4, 5), {"t_mul": 1.0}, optim.cosine_restarts_schedule(0.4, 5, 1.0)),
    "PiecewiseConstantDecay": (([5, 9], [0.4, 0.2, 0.1]), {},
        optim.join_schedules([optim.constant_schedule(v) for v in (0.4, 0.2, 0.1)], [6, 10])),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_equals_keras_at_every_update(name):
    args, kwargs, ours = KERAS[name]

    def compute():
        import keras

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            schedule = getattr(keras.optimizers.schedules, name.split("_")[0])(*args, **kwargs)
            return {"rates": np.array([float(schedule(t)) for t in range(STEPS)])}

    theirs = reference(f"schedules_keras/{name}", compute, needs="keras")["rates"]
    got = np.asarray(ours(jnp.arange(STEPS)))
    # Keras computes in float32. At the first update of a cycle it may be a rounding before it: at the end of the last.
    differs = np.flatnonzero(~np.isclose(got, theirs, rtol=2e-5, atol=1e-6))
    assert all("Restarts" in name and got[t] > got[t - 1] for t in differs), (differs, got[differs], theirs[differs])
    assert len(differs) <= 1


def test_warmup_exponential_and_sgdr_equal_optax():
    first = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 8, "end_value": 0.05}
    cycles = [first, {**first, "peak_value": 0.5, "decay_steps": 5}, {**first, "warmup_steps": 0, "exponent": 2.0}]
    warm = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "transition_steps": 4, "decay_rate": 0.5}
    pairs = [
        (optim.sgdr_schedule(cycles), optax.sgdr_schedule(cycles)),
        *(
            (optim.warmup_exponential_decay_schedule(**kwargs), optax.warmup_exponential_decay_schedule(**kwargs))
            for kwargs in (warm, {**warm, "staircase": True, "transition_begin": 3}, {**warm, "end_value": 0.2})
        ),
    ]
    for ours, theirs in pairs:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            expected = jax.vmap(theirs)(jnp.arange(26))
        np.testing.assert_allclose(ours(jnp.arange(26)), expected, rtol=1e-5, atol=1e-6)  # optax's cosine cancels


def test_inverse_square_roots_by_their_formulas():
    """Of the Transformer paper, step n = t + 1, and of transformers' `get_inverse_sqrt_schedule`."""
    counts = np.arange(40)
    noam = [512**-0.5 * min((t + 1) ** -0.5, (t + 1) * 10**-1.5) for t in counts]
    np.testing.assert_allclose(optim.noam_schedule(512, 10)(jnp.asarray(counts)), noam, rtol=1e-6)
    hf = [t / 7 if t < 7 else 1 / math.sqrt((t + 20 - 7) / 20) for t in counts]
    np.testing.assert_allclose(optim.inverse_sqrt_schedule(0.0, 1.0, 7, 20)(jnp.asarray(counts)), hf, rtol=1e-6)


def test_no_optax_schedule_is_missing():
    public = (name for name in dir(optax.schedules) if not name.startswith("_"))
    theirs = {name for name in public if name.endswith(("_schedule", "_decay", "_schedules"))}
    assert theirs <= set(optim.__all__)
