"""The first update is not wasted (ask 22): which schedules may start at 0, and when."""

import pytest

from dlkit import optim
from dlkit.optim import schedules

WARM_COSINE = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5}

# A rising line starts where it is told to, at 0 too. Nothing else does: no first update is wasted unasked.
MAY_START_AT_ZERO = {
    "linear_schedule": optim.linear_schedule(0.0, 1.0, 4),
    "polynomial_schedule": optim.polynomial_schedule(0.0, 1.0, 2.0, 4),
    "warmup_constant_schedule": optim.warmup_constant_schedule(0.0, 1.0, 4),
    "warmup_cosine_decay_schedule": optim.warmup_cosine_decay_schedule(0.0, 1.0, 4, 9),
    "warmup_exponential_decay_schedule": optim.warmup_exponential_decay_schedule(0.0, 1.0, 4, 2, 0.5),
    "warmup_stable_decay_schedule": optim.warmup_stable_decay_schedule(0.0, 1.0, 4, 2, 2),
    "inverse_sqrt_schedule": optim.inverse_sqrt_schedule(0.0, 1.0, 4),
    "sgdr_schedule": optim.sgdr_schedule([WARM_COSINE, WARM_COSINE]),
    "cyclic_schedule": optim.cyclic_schedule(0.0, 1.0, 3),
    "anneal_schedule": optim.anneal_schedule(0.0, 1.0, 4),
    "join_schedules": optim.join_schedules([optim.linear_schedule(0.0, 1.0, 4), optim.constant_schedule(1.0)], [4]),
}
START_ABOVE_ZERO = {
    "constant_schedule": [optim.constant_schedule(1.0)],
    "linear_schedule": [optim.linear_schedule(1.0, 0.0, n, b) for n in (0, 1, 4) for b in (0, 2)],
    "polynomial_schedule": [optim.polynomial_schedule(1.0, 0.0, 2.0, n) for n in (0, 1, 4)],
    "exponential_decay": [optim.exponential_decay(1.0, n, 0.1, staircase=s) for n in (0, 1, 4) for s in (False, True)],
    "step_decay": [optim.step_decay(1.0, n) for n in (1, 4)],
    "cosine_decay_schedule": [optim.cosine_decay_schedule(1.0, n) for n in (1, 4)],
    "piecewise_constant_schedule": [optim.piecewise_constant_schedule(1.0, {n: 0.1}) for n in (0, 1, 4)],
    "piecewise_interpolate_schedule": [
        optim.piecewise_interpolate_schedule(kind, 1.0, {n: 0.0}) for kind in ("linear", "cosine") for n in (1, 4)
    ],
    "warmup_constant_schedule": [
        *(optim.warmup_constant_schedule(0.1, 1.0, n) for n in (0, 1, 4)),
        optim.warmup_constant_schedule(0.0, 1.0, 0),  # no warm-up asked for: optax stays at 0 for ever
    ],
    "warmup_cosine_decay_schedule": [
        *(optim.warmup_cosine_decay_schedule(0.1, 1.0, n, 9) for n in (0, 1, 9)),
        optim.warmup_cosine_decay_schedule(0.0, 1.0, 0, 9),
    ],
    "cosine_onecycle_schedule": [optim.cosine_onecycle_schedule(n, 1.0, p) for n in (1, 2, 9) for p in (0.0, 0.3, 1.0)],
    "linear_onecycle_schedule": [
        optim.linear_onecycle_schedule(n, 1.0, p) for n in (1, 2, 9) for p in (0.0, 0.3, 0.85)
    ],
    "join_schedules": [optim.join_schedules([optim.constant_schedule(1.0), optim.linear_schedule(0.0, 1.0, 4)], [3])],
    "warmup_exponential_decay_schedule": [
        optim.warmup_exponential_decay_schedule(0.1, 1.0, 4, 2, 0.5),
        optim.warmup_exponential_decay_schedule(0.0, 1.0, 0, 2, 0.5),
    ],
    "warmup_stable_decay_schedule": [
        optim.warmup_stable_decay_schedule(0.1, 1.0, 4, 2, 2),
        optim.warmup_stable_decay_schedule(0.0, 1.0, 0, 2, 2),
        optim.warmup_stable_decay_schedule(0.0, 1.0, 0, 0, 2),
    ],
    "flat_cosine_schedule": [optim.flat_cosine_schedule(1.0, n, 3) for n in (0, 1, 4)],
    "swa_schedule": [optim.swa_schedule(1.0, 0.1, n) for n in (0, 1, 4)],
    "anneal_schedule": [optim.anneal_schedule(1.0, 0.0, n, s) for n in (1, 4) for s in ("linear", "cosine", "1-sqrt")],
    "lr_range_test_schedule": [optim.lr_range_test_schedule(steps=n) for n in (1, 9)],
    "power_law_decay": [optim.power_law_decay(1.0, n) for n in (1, 4)],
    "inverse_time_decay": [optim.inverse_time_decay(1.0, n, 0.5, staircase=s) for n in (1, 4) for s in (False, True)],
    "natural_exp_decay": [optim.natural_exp_decay(1.0, 4, 0.5)],
    "tanh_decay": [optim.tanh_decay(1.0, n) for n in (1, 4)],
    "inverse_sqrt_schedule": [optim.inverse_sqrt_schedule(0.1, 1.0, 4), optim.inverse_sqrt_schedule(0.0, 1.0, 0)],
    "noam_schedule": [optim.noam_schedule(16, n) for n in (0, 1, 4)],
    "multi_step_decay": [optim.multi_step_decay(1.0, m) for m in ([], [0, 3], [1, 1])],
    "warmup_factor_schedule": [optim.warmup_factor_schedule(1.0, total_steps=n) for n in (0, 1, 4)],
    "cosine_restarts_schedule": [optim.cosine_restarts_schedule(1.0, n, k) for n in (1, 4) for k in (1.0, 1.5, 2.0)],
    "cosine_annealing_schedule": [optim.cosine_annealing_schedule(1.0, n) for n in (1, 4)],
    "sgdr_schedule": [optim.sgdr_schedule([{**WARM_COSINE, "init_value": 0.1}])],
    "cyclic_schedule": [optim.cyclic_schedule(0.1, 1.0, n) for n in (1, 4)],
    "onecycle_schedule": [optim.onecycle_schedule(1.0, n, p) for n in (1, 2, 9) for p in (0.0, 0.3, 1.0)],
    "onecycle_momentum_schedule": [optim.onecycle_momentum_schedule(n) for n in (1, 2, 9)],
    "product_schedule": [optim.product_schedule(0.5, optim.linear_schedule(1.0, 0.0, 3))],
    "multiplicative_schedule": [optim.multiplicative_schedule(1.0, optim.constant_schedule(0.5), n) for n in (0, 4)],
}


def test_every_schedule_is_in_the_lists():
    named = {n for n in schedules.__all__ if n[0].islower() and n != "plot"}
    assert named == START_ABOVE_ZERO.keys()
    assert MAY_START_AT_ZERO.keys() < START_ABOVE_ZERO.keys()


@pytest.mark.parametrize("name", MAY_START_AT_ZERO)
def test_a_rising_line_starts_at_zero_when_asked(name):
    assert MAY_START_AT_ZERO[name](0) == 0
    assert MAY_START_AT_ZERO[name](1) > 0


@pytest.mark.parametrize("name", START_ABOVE_ZERO)
def test_no_schedule_starts_at_zero_unless_asked(name):
    for schedule in START_ABOVE_ZERO[name]:
        assert schedule(0) > 0, schedule
