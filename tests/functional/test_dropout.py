"""Dropout: how many are dropped, the expectation, and that the mask is a function of key and shape alone."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import compiling

from dlkit import functional as F


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.5, 0.9, 0.999, 1 / 3])
@pytest.mark.parametrize("last", [64, 63])
def test_the_keep_rate(key, rate, last):
    mask = F.keep_mask(key, (1000, last), rate)
    assert mask.shape == (1000, last)
    sigma = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs(float(mask.mean()) - (1 - rate)) < 3 * sigma
    # No column or pair of neighbours is special: two elements share one random word.
    columns = np.asarray(mask).mean(0)
    assert np.abs(columns - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / 1000)
    m = np.asarray(mask, np.float64) - (1 - rate)
    for lag in (1, 2, last // 2):
        covariance = (m[:, lag:] * m[:, :-lag]).mean()
        assert abs(covariance) < 5 * rate * (1 - rate) / np.sqrt(1000 * (last - lag))


def test_the_expectation_is_evaluation(key):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8)), jnp.float32)
    draws = jax.vmap(lambda k: F.dropout(k, x, 0.25))(jax.random.split(key, 4000))
    deviation = np.abs(np.asarray(draws.mean(0) - x)) / (np.abs(x) * np.sqrt(0.25 / 0.75 / 4000))
    assert deviation.max() < 4  # 24 elements, each within 4 standard deviations of its mean


def test_kept_elements_are_scaled_and_the_gradient_has_the_same_mask(key):
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (6, 10)), jnp.float32)
    y, pull = jax.vjp(lambda x: F.dropout(key, x, 0.25), x)
    kept = np.asarray(y) != 0
    np.testing.assert_allclose(np.asarray(y)[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0], kept / 0.75, rtol=1e-6)


def test_off_is_the_identity_and_rate_one_is_zero(key):
    x = jnp.arange(6.0).reshape(2, 3)
    assert F.dropout(None, x, 0.5) is x
    assert F.dropout(None, x, 1.0) is x
    assert F.dropout(key, x, 0.0) is x
    np.testing.assert_array_equal(F.dropout(key, x, 1.0), 0)


def test_one_key_one_mask(key):
    x = jnp.ones((16, 33))
    eager = F.dropout(key, x, 0.5)
    np.testing.assert_array_equal(eager, jax.jit(lambda k, x: F.dropout(k, x, 0.5))(key, x))
    np.testing.assert_array_equal(eager, F.dropout(jax.random.clone(key), x, 0.5))
    assert (F.dropout(jax.random.fold_in(key, 1), x, 0.5) != eager).any()
    keys = jax.random.split(key, 3)
    many = jax.vmap(lambda k: F.dropout(k, x, 0.5))(keys)
    np.testing.assert_array_equal(many, jnp.stack([F.dropout(k, x, 0.5) for k in keys]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_dtype_stays(key, dtype):
    y = F.dropout(key, jnp.full((4, 8), 3.0, dtype), 0.1)
    assert y.dtype == dtype
    assert set(np.unique(np.asarray(y, np.float32))) <= {
        0.0,
        float(jnp.asarray(jnp.float32(3) / jnp.float32(0.9), dtype)),
    }


def test_shared_axes(key):
    y = np.asarray(F.dropout(key, jnp.ones((8, 5, 4, 6)), 0.5, broadcast_axes=(1, -2)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert len({tuple(row) for row in y[:, 0, 0]}) > 1
    whole = np.asarray(F.dropout(key, jnp.ones((64, 3)), 0.5, broadcast_axes=(1,)))
    assert set(whole.sum(1)) == {0.0, 6.0}


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_probability(key, rate):
    with pytest.raises(ValueError, match=r"dropout: rate is .*probability of dropping"):
        F.dropout(key, jnp.ones(3), rate)


def test_an_axis_that_is_not_there(key):
    with pytest.raises(ValueError, match=r"broadcast_axes is \(2,\), but x is \[2, 3\]"):
        F.dropout(key, jnp.ones((2, 3)), 0.5, broadcast_axes=(2,))


def test_the_mask_is_the_same_however_it_is_sharded():
    program = """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from dlkit.functional import dropout
        assert len(jax.devices()) == 8
        mesh = jax.make_mesh((4, 2), ("a", "b"))
        key, x = jax.random.key(3), jnp.ones((16, 24))
        want = dropout(key, x, 0.3)
        for spec in (P("a"), P(None, "b"), P(("a", "b")), P("a", "b")):
            there = NamedSharding(mesh, spec)
            got = jax.jit(lambda k, x: dropout(k, x, 0.3), out_shardings=there)(key, jax.device_put(x, there))
            np.testing.assert_array_equal(got, want)
    """
    environment = {**os.environ, "XLA_FLAGS": compiling.devices(8), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, check=True, timeout=120)
