"""Standardize beside sklearn; what it must not see, and what it must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from dlkit import nn
from dlkit.nn import EVAL, training

LAYER = nn.Standardize(3)


def table(rows=50):
    """Columns of very different sizes, the last one constant."""
    x = np.random.default_rng(0).standard_normal((rows, 3))
    return x * np.array([1e5, 1e-3, 0.0]) + np.array([3e5, -2.0, 0.1])


def test_sklearn(x64):
    x = table()
    state = LAYER.fit(x)
    scaler = StandardScaler().fit(x)
    np.testing.assert_allclose(state["mean"], scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(state["std"], scaler.scale_, rtol=1e-12)
    y, after = LAYER.apply({}, state, jnp.asarray(x), EVAL)
    np.testing.assert_allclose(y, scaler.transform(x), atol=1e-12 * 1e3)  # three digits go where the mean is large
    np.testing.assert_allclose(LAYER.invert(state, y), x, rtol=1e-12)
    assert after is state


@pytest.mark.parametrize("sizes", [(50,), (1, 49), (20, 7, 23)])
def test_batches_of_any_size_give_one_result(sizes):
    x = table().astype(np.float32)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    whole, streamed = LAYER.fit(x), LAYER.fit(iter(parts))
    np.testing.assert_allclose(streamed["mean"], whole["mean"], rtol=1e-6)
    np.testing.assert_allclose(streamed["std"], whole["std"], rtol=1e-6)
    assert float(whole["std"][2]) == 1.0


def test_a_large_mean_does_not_cancel():
    x = 1e6 + np.array([[0.0], [1.0], [2.0]])
    assert abs(float(nn.Standardize(1).fit([x[:1], x[1:]])["std"][0]) - (2 / 3) ** 0.5) < 1e-6


def test_a_constant_column_becomes_zero():
    y, _ = LAYER.apply({}, LAYER.fit(table().astype(np.float32)), jnp.asarray(table(), jnp.float32), EVAL)
    np.testing.assert_allclose(y[:, 2], 0.0, atol=1e-6)
    np.testing.assert_allclose(y[:, :2].std(0), 1.0, atol=1e-4)


def test_other_rows_change_nothing():
    """The statistics are those of what `fit` was given: neither rows of a test set nor calls in training move them."""
    x = table().astype(np.float32)
    train, test = x[:40], x[40:]
    state = LAYER.fit(train)
    step = jax.jit(LAYER.apply)
    _, after = step({}, state, jnp.asarray(test * 1000), training(None))
    for name in ("mean", "std"):
        np.testing.assert_array_equal(after[name], state[name])
    before = step({}, state, jnp.asarray(train), EVAL)[0]
    np.testing.assert_array_equal(before, step({}, after, jnp.asarray(train), EVAL)[0])


def test_padding_rows_of_a_loader_do_not_count():
    x = table(10).astype(np.float32)
    batch = {"x": np.concatenate([x, np.full((2, 3), np.nan, np.float32)]), "weight": np.array([1.0] * 10 + [0.0] * 2)}
    for name, value in LAYER.fit([batch]).items():
        np.testing.assert_array_equal(value, LAYER.fit(x)[name])


def test_bfloat16_is_computed_in_float32():
    state = {"mean": jnp.full(3, 256.0), "std": jnp.ones(3)}
    y, _ = LAYER.apply({}, state, jnp.full((1, 3), 258.0, jnp.bfloat16), EVAL)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), 2.0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="got no data"):
        LAYER.fit([])
    with pytest.raises(ValueError, match="NaN or infinity"):
        LAYER.fit(np.array([[1.0, 2.0, np.nan]]))
    with pytest.raises(ValueError, match="because d=3"):
        LAYER.fit(np.ones((4, 2)))
