"""Golden tables by hand (ask 22), equality with optax at every step, and accuracy after ten million steps."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.reference import reference

from dlkit import optim

COS = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(5)]  # 1, 0.854, 0.5, 0.146, 0

# schedule, {t: value}: t = 0, 1, warmup - 1, warmup, last, last + 1
GOLDEN = {
    "constant": (optim.constant_schedule(0.3), {0: 0.3, 1: 0.3, 10**7: 0.3}),
    "linear": (optim.linear_schedule(1.0, 0.2, 4), {0: 1.0, 1: 0.8, 3: 0.4, 4: 0.2, 5: 0.2}),
    "linear_begin": (optim.linear_schedule(1.0, 0.2, 4, 2), {0: 1.0, 2: 1.0, 3: 0.8, 6: 0.2, 7: 0.2}),
    "linear_0_steps": (optim.linear_schedule(1.0, 0.2, 0), {0: 1.0, 1: 1.0, 9: 1.0}),
    "polynomial": (optim.polynomial_schedule(1.0, 0.0, 2, 4), {0: 1.0, 1: 0.5625, 3: 0.0625, 4: 0.0, 5: 0.0}),
    "step": (optim.step_decay(1.0, 3, 0.5), {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.25}),
    "piecewise": (
        optim.piecewise_constant_schedule(1.0, {4: 0.5, 2: 0.5}),
        {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.5, 4: 0.25, 5: 0.25},
    ),
    "piecewise_empty": (optim.piecewise_constant_schedule(1.0), {0: 1.0, 5: 1.0}),
    "exponential": (optim.exponential_decay(1.0, 2, 0.25), {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.125}),
    "exponential_end": (optim.exponential_decay(1.0, 2, 0.25, end_value=0.2), {0: 1.0, 2: 0.25, 3: 0.2, 9: 0.2}),
    "exponential_0_steps": (optim.exponential_decay(1.0, 0, 0.5), {0: 1.0, 9: 1.0}),
    "cosine": (optim.cosine_decay_schedule(1.0, 4, 0.1), {t: 0.9 * c + 0.1 for t, c in enumerate(COS)} | {5: 0.1}),
    "cosine_0_steps": (optim.cosine_decay_schedule(1.0, 0, 0.1), {0: 0.1, 1: 0.1}),
    "warmup_constant": (optim.warmup_constant_schedule(0.1, 1.0, 3), {0: 0.1, 1: 0.4, 2: 0.7, 3: 1.0, 4: 1.0}),
    "warmup_constant_0": (optim.warmup_constant_schedule(0.1, 1.0, 0), {0: 1.0, 1: 1.0}),
    "warmup_cosine": (
        optim.warmup_cosine_decay_schedule(0.1, 1.0, 3, 7, end_value=0.1),
        {0: 0.1, 1: 0.4, 2: 0.7, **{3 + t: 0.9 * c + 0.1 for t, c in enumerate(COS)}, 8: 0.1},
    ),
    "warmup_cosine_no_warmup": (
        optim.warmup_cosine_decay_schedule(0.1, 1.0, 0, 4),
        {**dict(enumerate(COS)), 5: 0.0},
    ),
    "warmup_cosine_no_decay": (
        optim.warmup_cosine_decay_schedule(0.1, 1.0, 3, 3, end_value=0.5),
        {0: 0.1, 1: 0.4, 2: 0.7, 3: 0.5, 4: 0.5},
    ),
    "warmup_cosine_neither": (optim.warmup_cosine_decay_schedule(0.1, 1.0, 0, 0, end_value=0.5), {0: 0.5, 1: 0.5}),
    "cosine_onecycle": (
        optim.cosine_onecycle_schedule(8, 1.0, 0.5, 2.0, 5.0),
        {
            0: 0.5,
            **{t: 0.5 + 0.5 * (1 - COS[t]) for t in range(4)},
            **{4 + t: 0.1 + 0.9 * COS[t] for t in range(5)},
            9: 0.1,
        },
    ),
    "linear_onecycle": (
        optim.linear_onecycle_schedule(10, 1.0, 0.2, 0.6, 2.0, 5.0),
        {0: 0.5, 1: 0.75, 2: 1.0, 3: 0.875, 6: 0.5, 8: 0.3, 10: 0.1, 11: 0.1},
    ),
    "linear_onecycle_2_phases": (
        optim.linear_onecycle_schedule(10, 1.0, 0.2, 1.0, 2.0, 5.0),
        {0: 0.5, 1: 0.75, 2: 1.0, 6: 0.75, 9: 0.5625, 10: 0.1, 11: 0.1},
    ),
    "join": (
        optim.join_schedules([optim.linear_schedule(0.0, 1.0, 2), optim.linear_schedule(5.0, 0.0, 5)], [3]),
        {0: 0.0, 1: 0.5, 2: 1.0, 3: 5.0, 4: 4.0, 8: 0.0, 9: 0.0},
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_table(name):
    schedule, table = GOLDEN[name]
    jitted = jax.jit(schedule)
    for t, expected in table.items():
        for value in (schedule(t), jitted(jnp.int32(t))):
            assert (value.dtype, value.shape, value.weak_type) == (jnp.float32, (), False)
            np.testing.assert_allclose(value, expected, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("name", GOLDEN)
def test_is_a_value(name):
    schedule = GOLDEN[name][0]
    copy = pickle.loads(pickle.dumps(schedule))  # noqa: S301
    assert copy == schedule
    assert hash(copy) == hash(schedule)
    assert type(schedule).__name__ in repr(schedule)
    assert "0x" not in repr(schedule)
    np.testing.assert_allclose(schedule(jnp.arange(12)), [schedule(t) for t in range(12)], rtol=1e-6)


OPTAX = {
    "constant_schedule": [((0.3,), {})],
    "linear_schedule": [((1.0, 0.1, 7), {}), ((0.0, 1.0, 7, 5), {}), ((1.0, 0.1, 0), {})],
    "polynomial_schedule": [((1.0, 0.1, 2.5, 7), {}), ((0.2, 1.0, 3, 7, 5), {})],
    "piecewise_constant_schedule": [((1.0, {3: 0.5, 9: 0.1}), {}), ((1.0,), {})],
    "piecewise_interpolate_schedule": [
        (("linear", 1.0, {3: 0.5, 9: 0.1}), {}),
        (("cosine", 1.0, {3: 0.5, 9: 3.0}), {}),
    ],
    "exponential_decay": [
        ((1.0, 4, 0.5), {}),
        ((1.0, 4, 0.5), {"staircase": True, "transition_begin": 3}),
        ((1.0, 4, 0.5), {"end_value": 0.2}),
        ((1.0, 4, 1.5), {"end_value": 2.0}),
        ((1.0, 0, 0.5), {}),
        ((1.0, 4, 0.0), {}),
    ],
    "cosine_decay_schedule": [((1.0, 9), {}), ((1.0, 9), {"alpha": 0.1, "exponent": 1.7})],
    "warmup_constant_schedule": [((0.0, 1.0, 6), {})],
    "warmup_cosine_decay_schedule": [
        ((0.0, 1.0, 5, 15), {}),
        ((0.1, 1.0, 0, 15), {"end_value": 0.1, "exponent": 2.0}),
        ((0.1, 0.0, 5, 15), {}),
    ],
    "cosine_onecycle_schedule": [((15, 2.0), {}), ((15, 2.0), {"pct_start": 0.0}), ((2, 1.0), {})],
    "linear_onecycle_schedule": [((15, 2.0), {}), ((15, 2.0), {"pct_final": 0.5})],
}


@pytest.mark.parametrize(("name", "case"), [(n, i) for n, cases in OPTAX.items() for i in range(len(cases))])
def test_equals_optax_at_every_step(name, case):
    args, kwargs = OPTAX[name][case]
    ours, theirs = getattr(optim, name)(*args, **kwargs), getattr(optax, name)(*args, **kwargs)
    counts = range(20)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = [float(theirs(jnp.int32(t))) for t in counts]
    np.testing.assert_allclose(ours(jnp.arange(20)), expected, rtol=1e-5, atol=1e-6)


def test_join_equals_optax():
    parts = [optax.linear_schedule(0.0, 1.0, 4), optax.cosine_decay_schedule(1.0, 6)]
    ours, theirs = optim.join_schedules(parts, [5]), optax.join_schedules(parts, [5])
    with jax.numpy_dtype_promotion("standard"):
        got, expected = [[float(s(jnp.int32(t))) for t in range(14)] for s in (ours, theirs)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_equals_torch_step_lr_by_its_definition():
    schedule = optim.step_decay(0.4, 30, 0.1)
    np.testing.assert_allclose(schedule(jnp.arange(100)), [0.4 * 0.1 ** (t // 30) for t in range(100)], rtol=1e-6)


LONG = 10_000_000
LARGE = {
    "linear": (optim.linear_schedule(1.0, 0.0, LONG), lambda t: 1 - t / LONG),
    "polynomial": (optim.polynomial_schedule(1.0, 0.0, 2, LONG), lambda t: (1 - t / LONG) ** 2),
    "cosine": (optim.cosine_decay_schedule(1.0, LONG), lambda t: math.sin(math.pi / 2 * (LONG - t) / LONG) ** 2),
    "warmup_cosine": (
        optim.warmup_cosine_decay_schedule(0.0, 1.0, LONG // 2, LONG),
        lambda t: 2 * t / LONG if t < LONG / 2 else math.sin(math.pi * (LONG - t) / LONG) ** 2,
    ),
    "exponential": (optim.exponential_decay(1.0, 1, 0.999999), lambda t: 0.999999**t),
    "staircase": (optim.step_decay(1.0, 1_000_003, 0.5), lambda t: 0.5 ** (t // 1_000_003)),
    "onecycle": (
        optim.linear_onecycle_schedule(LONG, 1.0, 0.5, 1.0, 2.0, 1e4),
        lambda t: 0.5 + t / LONG if t < LONG / 2 else 1.5 - t / LONG,
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_relative_accuracy_after_ten_million_steps(name):
    """Near the end of a decay too, where 1 - t / T in float32 has no correct digit left."""
    schedule, exact = LARGE[name]
    counts = [0, 1, 7, LONG // 3, LONG // 2 - 1, LONG // 2, 9_000_026, 9_000_027, LONG - 7, LONG - 1]
    # The worst case is an exponent of -10: exp multiplies its rounding, 10 x 6e-8.
    np.testing.assert_allclose(schedule(jnp.array(counts)), [exact(t) for t in counts], rtol=2e-6)


def test_the_optimizer_uses_schedule_of_t_and_reports_it():
    schedule = optim.warmup_cosine_decay_schedule(0.1, 1.0, 2, 6)
    for given in (schedule, optax.warmup_cosine_decay_schedule(0.1, 1.0, 2, 6), lambda t: schedule(t)):
        tx = optim.sgd(given)
        with jax.numpy_dtype_promotion("standard"):
            state = tx.init(jnp.ones(()))
            np.testing.assert_allclose(
                optim.learning_rate(state), 0.1, rtol=1e-6
            )  # before the first update: the one it will use
            for t in range(8):
                updates, state = tx.update(jnp.ones(()), state)
                np.testing.assert_allclose(-updates, schedule(t), rtol=1e-6, atol=1e-8)
                assert optim.learning_rate(state) == -updates


def test_one_cycle_beside_torch():
    """torch's peak and end come one step earlier: the same decay, shifted, but another warm-up."""

    def compute():
        import torch

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10, cycle_momentum=False)
        rates = []
        for _ in range(10):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            if len(rates) < 10:
                scheduler.step()
        return {"rates": np.array(rates)}

    theirs = reference("optim/one_cycle", compute)["rates"]
    ours = np.asarray(optim.cosine_onecycle_schedule(10, 1.0)(jnp.arange(11)))
    np.testing.assert_allclose(ours[3:], theirs[2:], rtol=1e-5)
    np.testing.assert_allclose(theirs[:3], [0.04, 0.52, 1.0], rtol=1e-6)
    np.testing.assert_allclose(ours[:4], [0.04, 0.28, 0.76, 1.0], rtol=1e-5)


def test_float64(x64):
    value = optim.cosine_decay_schedule(1.0, 7)(3)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, 0.5 * (1 + math.cos(math.pi * 3 / 7)), rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.linear_schedule(1.0, 0.0, -1), ValueError, "^polynomial_schedule: transition_steps is -1"),
        (lambda: optim.linear_schedule(1.0, 0.0, 2.5), TypeError, "transition_steps is 2.5"),
        (
            lambda: optim.cosine_decay_schedule(1.0, 2**31),
            ValueError,
            "^cosine_decay_schedule: decay_steps is 2147483648",
        ),
        (lambda: optim.warmup_cosine_decay_schedule(0.0, 1.0, 5, 4), ValueError, "wanted warmup_steps = 5 or more"),
        (lambda: optim.step_decay(1.0, 0), ValueError, "^step_decay: step_size is 0, wanted 1 or more"),
        (
            lambda: optim.cosine_onecycle_schedule(0, 1.0),
            ValueError,
            "^cosine_onecycle_schedule: transition_steps is 0",
        ),
        (lambda: optim.piecewise_constant_schedule(1.0, {2: -1.0}), ValueError, "scale at 2 is -1"),
        (
            lambda: optim.join_schedules([optim.constant_schedule(1.0)], [2]),
            ValueError,
            "^join_schedules: .*one boundary fewer",
        ),
        (lambda: optim.join_schedules([optim.constant_schedule(1.0)] * 3, [4, 2]), ValueError, "rising order"),
        (lambda: optim.constant_schedule(jnp.ones(2)), TypeError, "value is an array of shape"),
    ],
)
def test_errors(make, error, message):
    # beartype, which the tests put on every signature, may notice a wrong type first.
    from jaxtyping import TypeCheckError

    with pytest.raises((error, TypeCheckError), match=message if error is ValueError else None):
        make()


def test_a_schedule_that_is_no_scalar_is_an_error():
    tx = optim.sgd(lambda t: jnp.ones(2))
    with pytest.raises(ValueError, match=r"shape \(2,\), wanted a scalar"):
        tx.init(jnp.ones(2))
