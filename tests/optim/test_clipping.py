"""The corner cases of clipping, as the docstring tables them (ask 52)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import optim

INF, NAN = float("inf"), float("nan")

# gradients, max_norm, updates, norm
CASES = {
    "short": ([0.3, 0.4], 1.0, [0.3, 0.4], 0.5),
    "long": ([3.0, 4.0], 1.0, [0.6, 0.8], 5.0),
    "equal": ([3.0, 4.0], 5.0, [3.0, 4.0], 5.0),
    "zero gradients": ([0.0, 0.0], 1.0, [0.0, 0.0], 0.0),
    "zero gradients, zero max_norm": ([0.0, 0.0], 0.0, [0.0, 0.0], 0.0),
    "zero max_norm": ([3.0, 4.0], 0.0, [0.0, 0.0], 5.0),
    "infinite": ([INF, 4.0], 1.0, [INF, 0.0], INF),
    "minus infinite": ([-INF, 4.0], 1.0, [-INF, 0.0], INF),
    "overflow of the squares": ([1e30, 1.0], 1.0, [0.0, 0.0], INF),
    "nan": ([NAN, 4.0], 1.0, [NAN, 4.0], NAN),
}


def test_global_norm_of_complex_leaves():
    leaves = {"a": jnp.array([3 + 4j]), "b": jnp.array([12.0])}
    assert optim.global_norm(leaves) == 13  # 9 + 16 + 144 = 169


@pytest.mark.parametrize("name", CASES)
def test_clip_by_global_norm(name):
    grads, max_norm, expected, norm = CASES[name]
    tx = optim.clip_by_global_norm(max_norm)
    tree = {"a": jnp.array(grads[:1]), "b": jnp.array(grads[1:])}
    updates, state = jax.jit(tx.update)(tree, tx.init(tree))
    np.testing.assert_allclose(jnp.concatenate([updates["a"], updates["b"]]), expected, rtol=1e-6)
    np.testing.assert_allclose(state.norm, norm, rtol=1e-6)


def test_differentiable_where_the_norm_is_zero():
    """Meta-gradients: the branch that is not taken holds 0 / 0, whose gradient must not leak."""
    tx = optim.clip_by_global_norm(0.0)
    slope = jax.grad(lambda s: jnp.sum(tx.update({"a": s * jnp.array([3.0, 4.0])}, tx.init(None))[0]["a"]))(2.0)
    assert jnp.isfinite(slope)


def test_pre_clip_norm_is_found_in_the_state_of_an_optimizer():
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-3))
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    assert optim.gradient_norm(state) == 0
    _, state = tx.update({"w": jnp.array([3.0, 4.0])}, state, params)
    assert optim.gradient_norm(state) == 5
    with pytest.raises(ValueError, match="holds no norms"):
        optim.gradient_norm(optim.sgd(0.1).init(params))


def test_norm_of_bfloat16_is_accumulated_in_float32():
    ones = {"a": jnp.ones(3000, jnp.bfloat16), "b": jnp.ones(1, jnp.float32)}
    norm = optim.global_norm(ones)
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, np.sqrt(3001), rtol=1e-6)
    half = optim.global_norm({"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(1, jnp.float16)})
    assert half == 2


def test_global_norm_equals_numpy(x64):
    tree = {"a": np.random.default_rng(0).standard_normal((3, 4)), "b": jnp.array([2.0, -1.0])}
    np.testing.assert_allclose(optim.global_norm(tree), np.linalg.norm([*tree["a"].ravel(), 2.0, -1.0]), rtol=1e-14)
    assert optim.global_norm({}) == 0


def test_clip_value():
    grads = jnp.array([-3.0, 0.5, INF, NAN])
    updates, _ = optim.clip(1.0).update(grads, optim.EmptyState())
    np.testing.assert_array_equal(updates, [-1.0, 0.5, 1.0, NAN])
    np.testing.assert_array_equal(optim.clip(0.0).update(grads[:2], optim.EmptyState())[0], [0.0, 0.0])


@pytest.mark.parametrize("make", [optim.clip, optim.clip_by_global_norm])
def test_negative_bounds_are_errors(make):
    with pytest.raises(ValueError, match=r"is -1.0, wanted 0 or more"):
        make(-1.0)
