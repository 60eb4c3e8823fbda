"""The first update is not wasted: which schedules may start at 0, and when."""

import pytest

from dlkit import optim

# A rising line starts where it is told to, at 0 too. Nothing else does: no first update is wasted unasked.
MAY_START_AT_ZERO = {
    "linear_schedule": optim.linear_schedule(0.0, 1.0, 4),
    "polynomial_schedule": optim.polynomial_schedule(0.0, 1.0, 2.0, 4),
    "warmup_constant_schedule": optim.warmup_constant_schedule(0.0, 1.0, 4),
    "warmup_cosine_decay_schedule": optim.warmup_cosine_decay_schedule(0.0, 1.0, 4, 9),
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
}


def test_every_schedule_is_in_the_lists():
    named = {n for n in optim.__all__ if n.endswith(("_schedule", "_decay", "_schedules")) and n != "scale_by_schedule"}
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
