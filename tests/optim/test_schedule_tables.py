"""Golden tables of the longer schedules by hand (ask 22), without warm-up or decay too; traced constants; accuracy."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import optim

COS = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(5)]  # 1, 0.854, 0.5, 0.146, 0
ROOT = [1 - math.sqrt(t / 4) for t in range(5)]
CYCLE = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 6}

# schedule, {t: value}: t = 0, 1, warmup - 1, warmup, last, last + 1
GOLDEN = {
    "anneal_linear": (optim.anneal_schedule(1.0, 0.2, 4, "linear"), {0: 1.0, 1: 0.8, 3: 0.4, 4: 0.2, 5: 0.2}),
    "anneal_cosine": (optim.anneal_schedule(0.0, 1.0, 4), {**{t: 1 - c for t, c in enumerate(COS)}, 5: 1.0}),
    "anneal_sqrt": (optim.anneal_schedule(1.0, 0.0, 4, "1-sqrt"), {**dict(enumerate(ROOT)), 5: 0.0}),
    "anneal_exponential": (optim.anneal_schedule(1.0, 16.0, 4, "exponential"), {0: 1, 1: 2, 3: 8, 4: 16, 5: 16}),
    "anneal_0_steps": (optim.anneal_schedule(1.0, 0.2, 0), {0: 0.2, 1: 0.2}),
    "wsd": (
        optim.warmup_stable_decay_schedule(0.1, 1.0, 3, 2, 4),
        {0: 0.1, 1: 0.4, 2: 0.7, 3: 1, 4: 1, 5: 1, 6: 0.75, 8: 0.25, 9: 0.0, 10: 0.0},
    ),
    "wsd_cosine": (
        optim.warmup_stable_decay_schedule(0.1, 1.0, 3, 2, 4, 0.1, "cosine"),
        {0: 0.1, 2: 0.7, 3: 1, **{5 + t: 0.9 * c + 0.1 for t, c in enumerate(COS)}, 10: 0.1},
    ),
    "wsd_no_warmup": (optim.warmup_stable_decay_schedule(0.1, 1.0, 0, 2, 2), {0: 1, 1: 1, 2: 1, 3: 0.5, 4: 0, 5: 0}),
    "wsd_no_decay": (optim.warmup_stable_decay_schedule(0.1, 1.0, 3, 2, 0, 0.5), {0: 0.1, 2: 0.7, 4: 1, 5: 0.5}),
    "wsd_no_plateau": (
        optim.warmup_stable_decay_schedule(0.1, 1.0, 3, 0, 4, decay_shape="1-sqrt"),
        {0: 0.1, 1: 0.4, 2: 0.7, **{3 + t: r for t, r in enumerate(ROOT)}, 8: 0.0},
    ),
    "wsd_neither": (optim.warmup_stable_decay_schedule(0.1, 1.0, 0, 0, 0, 0.5), {0: 0.5, 1: 0.5}),
    "flat_cosine": (optim.flat_cosine_schedule(1.0, 2, 4), {0: 1, 1: 1, **{2 + t: c for t, c in enumerate(COS)}, 7: 0}),
    "flat_cosine_no_decay": (optim.flat_cosine_schedule(1.0, 2, 0, 0.1), {0: 1.0, 1: 1.0, 2: 0.1, 3: 0.1}),
    "flat_cosine_not_flat": (optim.flat_cosine_schedule(1.0, 0, 4), {**dict(enumerate(COS)), 5: 0.0}),
    "swa": (optim.swa_schedule(1.0, 0.2, 4, "linear"), {0: 1.0, 1: 0.8, 3: 0.4, 4: 0.2, 5: 0.2}),
    "range_test": (optim.lr_range_test_schedule(0.1, 1000.0, 4), {0: 0.1, 1: 1.0, 3: 100.0, 4: 1e3, 5: 1e3}),
    "range_test_linear": (optim.lr_range_test_schedule(0.0, 1.0, 4, "linear"), {0: 0.0, 1: 0.25, 4: 1.0, 5: 1.0}),
    "warmup_exponential": (
        optim.warmup_exponential_decay_schedule(0.1, 1.0, 3, 2, 0.25, end_value=0.2),
        {0: 0.1, 1: 0.4, 2: 0.7, 3: 1.0, 4: 0.5, 5: 0.25, 6: 0.2},
    ),
    "warmup_exponential_no_warmup": (
        optim.warmup_exponential_decay_schedule(0.1, 1.0, 0, 2, 0.25),
        {0: 1.0, 1: 0.5, 2: 0.25},
    ),
    "warmup_exponential_no_decay": (
        optim.warmup_exponential_decay_schedule(0.1, 1.0, 3, 0, 0.25),
        {0: 0.1, 2: 0.7, 3: 1.0, 9: 1.0},
    ),
    "power_law": (optim.power_law_decay(2.0, 3), {0: 2.0, 1: 2 / math.sqrt(4 / 3), 9: 1.0, 45: 0.5}),
    "power_law_constant": (optim.power_law_decay(2.0, 3, 0.0), {0: 2.0, 1: 2.0, 9: 2.0}),
    "inverse_time": (optim.inverse_time_decay(1.0, 2, 0.5), {0: 1.0, 1: 0.8, 4: 0.5, 12: 0.25}),
    "inverse_time_staircase": (optim.inverse_time_decay(1.0, 2, 1.0, True), {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.5, 6: 0.25}),
    "natural_exp": (optim.natural_exp_decay(1.0, 2, 1.0), {0: 1.0, 1: math.exp(-0.5), 4: math.exp(-2)}),
    "natural_exp_staircase": (optim.natural_exp_decay(1.0, 2, 1.0, True), {0: 1.0, 1: 1.0, 2: math.exp(-1)}),
    "tanh": (
        optim.tanh_decay(1.0, 4, 0.2, -2.0, 2.0),
        {**{t: 0.2 + 0.4 * (1 - math.tanh(t - 2)) for t in range(5)}, 5: 0.2 + 0.4 * (1 - math.tanh(2))},
    ),
    "tanh_0_steps": (optim.tanh_decay(1.0, 0), {0: 0.5 * (1 - math.tanh(3)), 1: 0.5 * (1 - math.tanh(3))}),
    "inverse_sqrt": (optim.inverse_sqrt_schedule(0.1, 1.0, 3), {0: 0.1, 1: 0.4, 2: 0.7, 3: 1.0, 12: 0.5, 27: 1 / 3}),
    "inverse_sqrt_no_warmup": (
        optim.inverse_sqrt_schedule(0.1, 1.0, 0, timescale=4),
        {0: 1.0, 1: math.sqrt(4 / 5), 12: 0.5},
    ),
    "noam": (optim.noam_schedule(16, 4), {0: 1 / 32, 1: 2 / 32, 2: 3 / 32, 3: 1 / 8, 15: 1 / 16}),
    "noam_no_warmup": (optim.noam_schedule(16, 0), {0: 1 / 4, 3: 1 / 8, 15: 1 / 16}),
    "multi_step": (optim.multi_step_decay(1.0, [4, 2, 4], 0.5), {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.5, 4: 0.125, 9: 0.125}),
    "warmup_factor": (optim.warmup_factor_schedule(0.9, 1 / 3, 2), {0: 0.3, 1: 0.3, 2: 0.9, 3: 0.9}),
    "warmup_factor_0_steps": (optim.warmup_factor_schedule(0.9, 1 / 3, 0), {0: 0.9, 1: 0.9}),
    "restarts": (
        optim.cosine_restarts_schedule(1.0, 4, 1.0, 0.5, 0.1),
        {t: 0.9 * 0.5 ** (t // 4) * COS[t % 4] + 0.1 for t in range(13)},
    ),
    "restarts_growing": (
        optim.cosine_restarts_schedule(1.0, 2, 2.0),
        {0: 1.0, 1: 0.5, **{2 + t: COS[t] for t in range(4)}, 6: 1.0, 10: 0.5, 14: 1.0, 22: 0.5},
    ),
    "restarts_not_whole": (  # cycles begin at 0, 1, 2.5, 4.75
        optim.cosine_restarts_schedule(1.0, 1, 1.5),
        {
            0: 1.0,
            1: 1.0,
            2: 0.25,
            3: 0.5 + 0.5 * math.cos(math.pi * 0.5 / 2.25),
            4: 0.25,
            5: 0.5 + 0.5 * math.cos(math.pi * 0.25 / 3.375),
        },
    ),
    "annealing": (
        optim.cosine_annealing_schedule(1.0, 4, 0.1),
        {t: 0.9 * COS[abs(t - 8 * round(t / 8))] + 0.1 for t in range(18)},
    ),
    "annealing_0_steps": (optim.cosine_annealing_schedule(1.0, 0, 0.1), {0: 0.1, 1: 0.1}),
    "sgdr": (
        optim.sgdr_schedule([CYCLE, {**CYCLE, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 4}]),
        {0: 0.1, 1: 0.55, 2: 1.0, 4: 0.5, **{6 + t: 0.5 * c for t, c in enumerate(COS)}, 11: 0.0},
    ),
    "cyclic": (optim.cyclic_schedule(0.0, 1.0, 2, 4), {0: 0, 1: 0.5, 2: 1, 3: 0.75, 5: 0.25, 6: 0, 7: 0.5, 8: 1}),
    "cyclic_exp": (optim.cyclic_schedule(0.0, 1.0, 1, 1, "exp_range", 0.5), {0: 0, 1: 0.5, 2: 0, 3: 0.125, 5: 0.03125}),
    "onecycle": (  # the peak at update 3, the end at 7
        optim.onecycle_schedule(1.0, 8, 0.5, "cos", 2.0, 5.0),
        {0: 0.5, 1: 0.625, 2: 0.875, **{3 + t: 0.1 + 0.9 * c for t, c in enumerate(COS)}, 8: 0.1},
    ),
    "onecycle_1_step": (optim.onecycle_schedule(1.0, 1, 0.3, "cos", 2.0, 5.0), {0: 0.1, 1: 0.1}),
    "onecycle_momentum": (
        optim.onecycle_momentum_schedule(5, 0.6, "linear"),
        {0: 0.95, 1: 0.9, 2: 0.85, 3: 0.9, 4: 0.95},
    ),
    "product": (
        optim.product_schedule(0.5, optim.linear_schedule(1.0, 0.0, 4), optim.exponential_decay(1.0, 1, 0.5)),
        {0: 0.5, 1: 0.5 * 0.75 * 0.5, 3: 0.5 * 0.25 / 8, 4: 0.0, 5: 0.0},
    ),
    "product_of_nothing": (optim.product_schedule(), {0: 1.0, 1: 1.0}),
    "multiplicative": (
        optim.multiplicative_schedule(2.0, optim.inverse_time_decay(1.0, 1, 1.0), 3),
        {0: 2.0, 1: 1.0, 2: 1 / 3, 3: 1 / 12, 4: 1 / 12},
    ),
    "multiplicative_0_steps": (optim.multiplicative_schedule(2.0, optim.constant_schedule(0.5), 0), {0: 2.0, 1: 2.0}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_table(name):
    schedule, table = GOLDEN[name]
    values = jax.jit(schedule)(jnp.array(list(table)))
    assert (values.dtype, values.weak_type) == (jnp.float32, False)
    # Values that cancel to 0 are within a rounding of the largest.
    np.testing.assert_allclose(values, list(table.values()), rtol=3e-6, atol=1e-7)
    value = schedule(0)
    assert (value.dtype, value.shape, value.weak_type) == (jnp.float32, (), False)
    np.testing.assert_allclose(value, table[0], rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("name", GOLDEN)
def test_is_a_value(name):
    schedule = GOLDEN[name][0]
    copy = pickle.loads(pickle.dumps(schedule))  # noqa: S301
    assert copy == schedule
    assert hash(copy) == hash(schedule)
    assert "0x" not in repr(schedule)


LONG = 10_000_000
LARGE = {
    "wsd_sqrt": (
        optim.warmup_stable_decay_schedule(0.0, 1.0, 0, 7, LONG - 7, decay_shape="1-sqrt"),
        lambda t: 1.0 if t < 7 else (lambda x: (1 - x) / (1 + math.sqrt(x)))((t - 7) / (LONG - 7)),
    ),
    "inverse_sqrt": (optim.inverse_sqrt_schedule(0.0, 1.0, 3), lambda t: math.sqrt(3 / t) if t > 3 else t / 3),
    "annealing": (
        optim.cosine_annealing_schedule(1.0, LONG // 5),
        lambda t: math.cos(math.pi / 2 * (t % (2 * LONG // 5)) / (LONG // 5)) ** 2,
    ),
    "restarts": (
        optim.cosine_restarts_schedule(1.0, 10, 1.0, alpha=0.5),
        lambda t: 0.5 + 0.5 * math.cos(math.pi / 2 * (t % 10) / 10) ** 2,
    ),
    "restarts_growing": (
        optim.cosine_restarts_schedule(1.0, 10, 2.0, alpha=0.5),
        lambda t: (lambda i: 0.5 + 0.5 * math.cos(math.pi / 2 * (t / 10 - 2**i + 1) / 2**i) ** 2)(
            math.floor(math.log2(t // 10 + 1))
        ),
    ),
    "cyclic": (optim.cyclic_schedule(0.0, 1.0, 3, 4), lambda t: (t % 7) / 3 if t % 7 <= 3 else (7 - t % 7) / 4),
    "onecycle": (
        optim.onecycle_schedule(1.0, LONG + 1, 0.5, "linear", 2.0, 1e4),
        lambda t: (
            0.5 + 0.5 * t / (LONG / 2 - 0.5)
            if t < LONG / 2 - 0.5
            else 1 - (1 - 5e-5) * (t - LONG / 2 + 0.5) / (LONG / 2 + 0.5)
        ),
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_relative_accuracy_after_ten_million_steps(name):
    schedule, exact = LARGE[name]
    counts = [0, 1, 7, LONG // 3, LONG // 2 - 1, LONG // 2, 9_000_026, 9_000_027, LONG - 7, LONG - 1]
    # Steps and values near 0, where a cosine crosses it, are within a rounding of the largest.
    np.testing.assert_allclose(schedule(jnp.array(counts)), [exact(t) for t in counts], rtol=2e-6, atol=1e-12)


COUNTS = jnp.arange(9)
TRACED = {
    "constant_schedule": lambda x: optim.constant_schedule(x),
    "polynomial_schedule": lambda x: optim.polynomial_schedule(x, 0.1, x, 5),
    "exponential_decay": lambda x: optim.exponential_decay(x, 3, x, end_value=0.2),
    "cosine_decay_schedule": lambda x: optim.cosine_decay_schedule(x, 5, x / 4, x),
    "piecewise_constant_schedule": lambda x: optim.piecewise_constant_schedule(x, {3: x}),
    "piecewise_interpolate_schedule": lambda x: optim.piecewise_interpolate_schedule("cosine", x, {3: x}),
    "warmup_cosine_decay_schedule": lambda x: optim.warmup_cosine_decay_schedule(x / 5, x, 3, 7, x / 9),
    "warmup_exponential_decay_schedule": lambda x: optim.warmup_exponential_decay_schedule(x / 5, x, 3, 2, x),
    "cosine_onecycle_schedule": lambda x: optim.cosine_onecycle_schedule(7, x, div_factor=3 + x),
    "anneal_schedule": lambda x: optim.anneal_schedule(x, x / 5, 5),
    "anneal_schedule_exponential": lambda x: optim.anneal_schedule(x, x / 5, 5, "exponential"),
    "warmup_stable_decay_schedule": lambda x: optim.warmup_stable_decay_schedule(x / 5, x, 3, 1, 3, x / 9, "1-sqrt"),
    "power_law_decay": lambda x: optim.power_law_decay(x, 3, x, x),
    "natural_exp_decay": lambda x: optim.natural_exp_decay(x, 3, x),
    "tanh_decay": lambda x: optim.tanh_decay(x, 5, x / 5, -x, x),
    "inverse_sqrt_schedule": lambda x: optim.inverse_sqrt_schedule(x / 5, x, 3),
    "noam_schedule": lambda x: optim.noam_schedule(16, 3, x),
    "multi_step_decay": lambda x: optim.multi_step_decay(x, [2, 4], x),
    "warmup_factor_schedule": lambda x: optim.warmup_factor_schedule(x, x / 3, 3),
    "cosine_restarts_schedule": lambda x: optim.cosine_restarts_schedule(x, 2, 1.5, x, x / 9),
    "cosine_annealing_schedule": lambda x: optim.cosine_annealing_schedule(x, 3, x / 5),
    "cyclic_schedule": lambda x: optim.cyclic_schedule(x / 5, x, 2, 3, "exp_range", x),
    "onecycle_schedule": lambda x: optim.onecycle_schedule(x, 7, div_factor=3 + x),
    "product_schedule": lambda x: optim.product_schedule(x, optim.linear_schedule(1.0, 0.0, 5), lambda t: x),
    "multiplicative_schedule": lambda x: optim.multiplicative_schedule(x, optim.constant_schedule(0.5), 3),
}


@pytest.mark.parametrize("name", TRACED)
def test_constants_may_be_traced(name):
    """Under vmap, and with a gradient, a schedule gives what it gives with plain numbers."""
    make, numbers = TRACED[name], jnp.array([0.4, 0.7])
    values = jax.jit(jax.vmap(lambda x: make(x)(COUNTS)))(numbers)
    assert values.dtype == jnp.float32
    for x, of_x in zip(numbers, values, strict=True):
        np.testing.assert_allclose(of_x, make(float(x))(COUNTS), rtol=2e-6, atol=1e-7)
    slope = jax.jacfwd(lambda x: make(x)(COUNTS))(0.4)
    h = 1e-2  # the difference is off by h^2 times a third derivative of some units, and by roundings / h
    np.testing.assert_allclose(slope, (make(0.4 + h)(COUNTS) - make(0.4 - h)(COUNTS)) / (2 * h), rtol=2e-2, atol=5e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.anneal_schedule(1.0, 0.1, 3, "sine"), "^anneal_schedule: shape is 'sine', wanted one of linear"),
        (lambda: optim.anneal_schedule(0.0, 1.0, 3, "exponential"), "^anneal_schedule: init_value is 0.0, wanted more"),
        (lambda: optim.warmup_stable_decay_schedule(0.0, 1.0, -1, 0, 1), "^warmup_stable_decay_schedule: warmup_steps"),
        (lambda: optim.swa_schedule(1.0, 0.1, 3, "cosine"), "^swa_schedule: anneal_strategy is 'cosine'"),
        (lambda: optim.power_law_decay(1.0, 0), "^power_law_decay: decay_steps is 0, wanted 1 or more"),
        (lambda: optim.power_law_decay(1.0, 1, -1.0), "^power_law_decay: decay_rate is -1.0, wanted 0 or more"),
        (lambda: optim.noam_schedule(0, 1), "^noam_schedule: d_model is 0, wanted 1 or more"),
        (lambda: optim.cosine_restarts_schedule(1.0, 3, 0.5), "^cosine_restarts_schedule: t_mul is 0.5, wanted 1"),
        (lambda: optim.sgdr_schedule([]), "^sgdr_schedule: got no cycles"),
        (lambda: optim.cyclic_schedule(0.0, 1.0, 0), "^cyclic_schedule: step_size_up is 0, wanted 1 or more"),
        (lambda: optim.cyclic_schedule(0.0, 1.0, 1, mode="saw"), "^cyclic_schedule: mode is 'saw'"),
        (lambda: optim.onecycle_schedule(1.0, 5, 1.5), "^onecycle_schedule: pct_start is 1.5, wanted 0 to 1"),
        (lambda: optim.plot(optim.constant_schedule(1.0), 0), "^plot: steps is 0, wanted 1 or more"),
        (lambda: optim.plot([], 3), "^plot: got no schedules"),
    ],
)
def test_errors(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_schedule(unchecked):
    with pytest.raises(TypeError, match=r"^multiplicative_schedule: factor is 0.5, wanted a function"):
        optim.multiplicative_schedule(1.0, 0.5, 3)
    with pytest.raises(TypeError, match=r"^product_schedule: a factor is 'x', wanted one number"):
        optim.product_schedule("x")
    with pytest.raises(TypeError, match=r"^plot: got 0.1, wanted a schedule"):
        optim.plot(0.1, 3)


def test_weight_decay_takes_any_of_them():
    """p = p (1 - rate decay(t)) where the gradient is 0: each value is the one of its own update."""
    decay = optim.warmup_stable_decay_schedule(0.1, 0.4, 3, 2, 2)
    tx, p = optim.adamw(0.5, weight_decay=decay), jnp.ones(())
    state = tx.init(p)
    for t in range(8):
        updates, state = tx.update(jnp.zeros(()), state, p)
        np.testing.assert_allclose(-updates, 0.5 * decay(t) * p, rtol=1e-6)
        p = optim.apply_updates(p, updates)


def test_picture(tmp_path):
    from PIL import Image

    schedules = {"cosine": optim.cosine_decay_schedule(1.0, 60), "constant": lambda t: 0.5}
    path = tmp_path / "new" / "picture.png"
    figure = optim.plot(schedules, 5000, path, ylabel="learning rate")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "update t (the first is 0)"
    assert axes.get_ylabel() == "learning rate"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cosine", "constant"]
    x, y = axes.lines[0].get_data()
    assert (x[0], x[-1], len(x)) == (0, 4999, 2000)
    np.testing.assert_array_equal(y, jax.vmap(schedules["cosine"])(jnp.asarray(x)))
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), 0.5)
    with Image.open(path) as picture:
        assert min(picture.size) > 400


def test_picture_without_matplotlib(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'plot needs matplotlib: pip install "dlkit\[train\]"'):
        optim.plot(optim.constant_schedule(1.0), 3)
