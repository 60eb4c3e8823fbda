"""Penalties: values, gradients, globs, and that they are values."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit.losses import Penalty, elastic_net, l1, l2

RNG = np.random.default_rng(4)
W = RNG.normal(size=(3, 2))
PARAMS = {
    "layer": {"w": jnp.asarray(W, jnp.float32), "b": jnp.ones(2)},
    "embed": {"table": jnp.asarray(W.T.copy(), jnp.float32)},
    "norm": {"scale": jnp.ones(2), "shift": jnp.ones(2)},
}


def test_values_and_gradients_over_one_leaf():
    over = "layer/w"
    cases = [
        (l1(0.3, over), 0.3 * np.abs(W).sum(), 0.3 * np.sign(W)),
        (l2(0.3, over), 0.3 * (W**2).sum(), 0.6 * W),
        (elastic_net(0.3, 2.0, over), 0.3 * (2 * W**2 + np.abs(W)).sum(), 0.3 * (4 * W + np.sign(W))),
    ]
    for penalty, value, gradient in cases:
        ours, grad = jax.jit(jax.value_and_grad(penalty))(PARAMS)
        np.testing.assert_allclose(ours, value, rtol=1e-6)
        np.testing.assert_allclose(grad["layer"]["w"], gradient, rtol=1e-6)
        for other in jax.tree.leaves([grad["layer"]["b"], grad["embed"], grad["norm"]]):
            assert not other.any()


def test_half_the_strength_gives_the_forms_with_one_half():
    # lambda/2 ||w||^2 has gradient lambda w; lambda/2 |w| has gradient lambda/2 sign w.
    grad = jax.grad(l2(0.4 / 2, "layer/w"))(PARAMS)["layer"]["w"]
    np.testing.assert_allclose(grad, 0.4 * W, rtol=1e-6)
    grad = jax.grad(l1(0.4 / 2, "layer/w"))(PARAMS)["layer"]["w"]
    np.testing.assert_allclose(grad, 0.2 * np.sign(W), rtol=1e-6)


def test_elastic_net_reduces_to_its_limits():
    assert elastic_net(0.3, 0.0)(PARAMS) == l1(0.3)(PARAMS)
    assert Penalty(l1=0.0, l2=0.7) == l2(0.7)
    both = elastic_net(0.3, 2.0)(PARAMS)
    np.testing.assert_allclose(both, l1(0.3)(PARAMS) + l2(0.6)(PARAMS), rtol=1e-6)


def test_default_covers_weights_and_tables_and_leaves_out_the_rest():
    np.testing.assert_allclose(l2(1.0)(PARAMS), 2 * (W**2).sum(), rtol=1e-6)
    without_tables = {"w": PARAMS["layer"]["w"], "b": jnp.ones(2)}
    np.testing.assert_allclose(l2(1.0)(without_tables), (W**2).sum(), rtol=1e-6)


def test_zero_strength_is_bitwise_nothing_and_strength_may_be_swept():
    loss = jnp.float32(1.2345678)
    assert loss + l2(0.0)(PARAMS) == loss
    swept = jax.vmap(lambda strength: l2(strength)(PARAMS))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(swept, np.array([0, 2, 4]) * (W**2).sum(), rtol=1e-6)


def test_a_glob_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"'layer/v' matches none of the 5 paths"):
        l2(1.0, over=("layer/w", "layer/v"))(PARAMS)
    with pytest.raises(
        ValueError, match=r"the leaves called `w` or `table`, matches none of the 1 paths.*: b$"
    ) as caught:
        l2(1.0)({"b": jnp.ones(2)})
    assert "**" not in str(caught.value)  # no glob that the user never wrote


def test_an_empty_choice_is_an_error_and_not_the_default():
    for empty in ((), [], ""):
        with pytest.raises(ValueError, match="over: got no glob"):
            l2(1.0, over=empty)


def test_the_penalty_has_the_dtype_of_what_it_covers(x64):
    narrow, wide = np.ones(2, np.float32), np.ones(2)
    for penalty in (l1(0.3), l2(np.float64(0.3)), elastic_net(0.3, 2.0), l2(jnp.float64(0.3)), l2(0.0)):
        assert penalty({"w": jnp.asarray(narrow)}).dtype == jnp.float32
        assert penalty({"w": jnp.asarray(narrow, jnp.bfloat16), "b": jnp.asarray(wide)}).dtype == jnp.float32
        assert penalty({"a": {"w": jnp.asarray(narrow)}, "b": {"w": jnp.asarray(wide)}}).dtype == jnp.float64
    np.testing.assert_allclose(l2(0.3)({"w": jnp.asarray(W)}), 0.3 * (W**2).sum(), rtol=1e-14)


def test_numpy_parameters_and_strengths():
    np.testing.assert_allclose(l2(np.float32(0.5))({"w": W}), 0.5 * (W**2).sum(), rtol=1e-6)
    assert l2(np.float32(0))({"w": np.array([np.inf])}) == 0


def test_penalties_are_values():
    penalty = elastic_net(0.5, 2.0, over=["a/**", "**/w"])
    assert penalty == elastic_net(0.5, 2.0, over=("a/**", "**/w"))
    assert hash(penalty) == hash(pickle.loads(pickle.dumps(penalty)))  # noqa: S301
    assert penalty != l1(0.5)
    assert repr(penalty) == "Penalty(l1=0.5, l2=1.0, over=('a/**', '**/w'))"


def test_half_precision_weights_are_summed_in_float32():
    value = l2(1.0)({"w": jnp.full(4096, 0.5, jnp.bfloat16)})
    assert value.dtype == jnp.float32
    assert float(value) == 1024  # a bfloat16 sum stops at 256
