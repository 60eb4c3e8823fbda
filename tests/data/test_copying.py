"""The copy task: what is asked is what was given, at the right times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import data


def test_the_answer_is_what_was_given():
    lengths = jnp.array([1, 4, 7])
    x, y, weight = (
        np.asarray(a) for a in jax.jit(data.copy_task, static_argnums=(2, 3))(jax.random.key(0), lengths, 7, 5)
    )
    assert x.shape == (3, 15, 6)
    for b, n in enumerate((1, 4, 7)):
        assert x[b, n, 5] == 1
        assert x[b, :, 5].sum() == 1
        np.testing.assert_array_equal(y[b, n + 1 : 2 * n + 1], x[b, :n, :5])
        np.testing.assert_array_equal(weight[b], (np.arange(15) > n) & (np.arange(15) <= 2 * n))
        assert not x[b, n:, :5].any()  # silence
        assert not y[b][weight[b] == 0].any()
    many, _, _ = data.copy_task(jax.random.key(1), jnp.full(100, 10), 10, 8)
    assert abs(float(many[:, :10, :8].mean()) - 0.5) < 4 * 0.5 / 8000**0.5  # four standard errors of a fair coin
    with pytest.raises(ValueError, match=r"lengths of shape \(1, 1\)"):
        data.copy_task(jax.random.key(0), jnp.ones((1, 1), int), 3)
