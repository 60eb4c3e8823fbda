"""Gradients of single examples: what is clipped, what is noise, and the keys in definitions."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim

P = {"w": jnp.array([1.0, -2.0, 0.5])}


def examples(seed=0, n=5):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.standard_normal((n, 3, 2))), "b": jnp.asarray(rng.standard_normal((n, 4)))}


def test_one_example_moves_the_sum_by_no_more_than_the_clip():
    grads = examples()
    total, clipped = optim.per_example_global_norm_clip(grads, 1.5)
    for i in range(5):
        rest, _ = optim.per_example_global_norm_clip(jax.tree.map(lambda g, i=i: jnp.delete(g, i, 0), grads), 1.5)
        assert optim.global_norm(jax.tree.map(jnp.subtract, total, rest)) <= 1.5 * (1 + 1e-6)
    norms = [float(optim.global_norm(jax.tree.map(lambda g, i=i: g[i], grads))) for i in range(5)]
    assert int(clipped) == sum(norm > 1.5 for norm in norms) > 0


@pytest.mark.parametrize("limit", [0.0, 1.5, np.inf])
def test_per_example_clips_equal_optax(limit, x64):
    grads = jax.tree.leaves(examples())
    pairs = [
        (optim.per_example_global_norm_clip(grads, limit), optax.per_example_global_norm_clip(grads, limit)),
        *(
            (optim.per_example_layer_norm_clip(grads, limit, u), optax.per_example_layer_norm_clip(grads, limit, u))
            for u in (True, False)
        ),
    ]
    for ours, theirs in pairs:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, theirs)


def test_the_noise_has_the_variance_that_was_asked_for():
    n, batch, clip, multiplier = 40_000, 4, 0.5, 3.0
    tx = optim.differentially_private_aggregate(clip, multiplier, key=0)
    zeros = jnp.zeros((batch, n))
    noise, state = tx.update(zeros, tx.init(zeros[0]), zeros[0])
    variance = (clip * multiplier / batch) ** 2
    assert abs(float(jnp.mean(noise))) < 4 * (variance / n) ** 0.5
    assert abs(float(jnp.var(noise)) - variance) < 4 * variance * (2 / n) ** 0.5
    again, _ = tx.update(zeros, state, zeros[0])
    assert abs(float(jnp.mean(noise * again))) < 4 * variance / n**0.5  # other noise in the next update


@pytest.mark.parametrize("key", [3, "typed"])
def test_private_steps_equal_optax(key, x64):
    key = jax.random.key(7) if key == "typed" else key
    params = jax.tree.map(lambda g: g[0], examples())
    ours = optim.chain(optim.differentially_private_aggregate(1.5, 0.7, key), optim.sgd(0.1, 0.9))
    theirs = optax.chain(optax.contrib.differentially_private_aggregate(1.5, 0.7, key), optax.sgd(0.1, 0.9))
    state, other = ours.init(params), theirs.init(params)
    for t in range(3):
        updates, state = ours.update(examples(t), state, params)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            expected, other = theirs.update(examples(t), other, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), updates, expected)


def test_a_chain_checks_what_a_private_link_returns():
    tx = optim.dpsgd(0.1, 1.0, 1.0, seed=0)
    params = {"w": jnp.zeros(3)}
    with pytest.raises(ValueError, match="do not match the parameters"):
        tx.update({"w": jnp.zeros((4, 2))}, tx.init(params), params)
    with pytest.raises(ValueError, match="it reads a gradient per example"):
        tx.update({"w": jnp.zeros((4, 3)), "b": jnp.zeros(())}, tx.init(params), params)


@pytest.mark.parametrize("key", [5, jax.random.key(5), jax.random.PRNGKey(5), jax.random.key(5, impl="rbg")])
def test_a_key_in_a_definition_is_a_value(key):
    tx, same = (optim.differentially_private_aggregate(1.0, 1.0, key) for _ in range(2))
    assert tx == same == pickle.loads(pickle.dumps(tx))  # noqa: S301  (our own bytes)
    assert hash(tx) == hash(same)
    assert tx != optim.differentially_private_aggregate(1.0, 1.0, 6)
    got, expected = tx.init(P).rng_key, jax.random.key(5) if isinstance(key, int) else key
    assert got.dtype == expected.dtype
    data = [k if k.dtype == jnp.uint32 else jax.random.key_data(k) for k in (got, expected)]
    np.testing.assert_array_equal(*data)


def test_what_is_no_key():
    for wrong in (1.5, "a", True, jax.random.split(jax.random.key(0)), jnp.ones(2)):
        with pytest.raises(TypeError, match="wanted a seed or one JAX key"):
            optim.hutchinson_estimator_diag_hessian(wrong)
    with pytest.raises(TypeError, match="key is traced"):
        jax.jit(lambda k: optim.differentially_private_aggregate(1.0, 1.0, k).init(P).rng_key)(jax.random.key(0))
    for wrong in ({}, {"key": 1, "seed": 1}):
        with pytest.raises(TypeError, match="pass key"):
            optim.differentially_private_aggregate(1.0, 1.0, **wrong)
