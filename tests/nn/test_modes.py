"""Modes and keys of the layers whose behaviour depends on them: BatchNorm and Dropout, and models made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import nn, tree
from dlkit.nn import EVAL, training

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(9), (6, 4))
MODEL = nn.Chain(
    nn.Linear(4, 32),
    nn.BatchNorm(32),
    nn.Dropout(0.5),
    body=nn.Residual(nn.Chain(nn.LayerNorm(32), nn.Dropout(0.5))),
    blocks=nn.Stack(nn.Residual(nn.Chain(nn.Linear(32, 32), nn.Dropout(0.5))), 2),
    head=nn.Linear(32, 2),
)
EVERY = {
    "linear": (nn.Linear(4, 3), X),
    "conv": (nn.Conv(4, 3, 3, dims=1), X[None]),
    "max_pool": (nn.MaxPool(2, dims=1), X[None]),
    "avg_pool": (nn.AvgPool(2, dims=1), X[None]),
    "global_avg_pool": (nn.GlobalAvgPool(1), X[None]),
    "global_max_pool": (nn.GlobalMaxPool(1), X[None]),
    "embedding": (nn.Embedding(5, 3), jnp.arange(5)),
    "batch_norm": (nn.BatchNorm(4), X),
    "layer_norm": (nn.LayerNorm(4), X),
    "rms_norm": (nn.RMSNorm(4), X),
    "group_norm": (nn.GroupNorm(2, 4, dims=0), X),
    "dropout": (nn.Dropout(0.5), X),
    "maxout": (nn.Maxout(4, 3), X),
    "gated": (nn.GatedLinear(4, 3), X),
    "prelu": (nn.PRelu(4), X),
    "flatten": (nn.Flatten(1), X),
    "reshape": (nn.Reshape((2, 2)), X),
    "rescale": (nn.Rescale(), X),
    "identity": (nn.Identity(), X),
    "gelu": (nn.Gelu(), X),
    "model": (MODEL, X),
}


@pytest.mark.parametrize("name", EVERY)
def test_state_has_one_type_in_both_modes_and_outputs_the_dtype_of_the_input(name):
    layer, x = EVERY[name]
    for dtype in (jnp.float32, jnp.bfloat16):
        params = jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), layer.init(KEY))
        given = x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x
        state = layer.init_state()
        for mode in (training(KEY), EVAL):
            y, after = jax.eval_shape(layer.apply, params, state, given, mode)
            assert y.dtype == dtype
            assert jax.tree.structure(after) == jax.tree.structure(state)
            assert tree.diff(jax.eval_shape(lambda state=state: state), after) == ""


@pytest.mark.parametrize("name", EVERY)
def test_float64_stays_float64(name, x64):
    layer, x = EVERY[name]
    params = jax.tree.map(lambda p: p.astype(jnp.float64), layer.init(KEY))
    given = x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.inexact) else x
    y, after = jax.eval_shape(layer.apply, params, layer.init_state(), given, training(KEY))
    assert y.dtype == jnp.float64
    assert tree.diff(jax.eval_shape(layer.init_state), after) == ""


@pytest.mark.parametrize("layer", [nn.BatchNorm(4), nn.Dropout(0.5), nn.Chain(nn.Dropout(0.5))], ids=repr)
def test_the_mode_is_required(layer):
    with pytest.raises(TypeError, match="mode") as error:
        layer.apply(layer.init(KEY), layer.init_state(), X)
    assert type(layer).__name__ in "".join([str(error.value), *error.value.__notes__])
    with pytest.raises(TypeError, match="deterministic"):
        layer.apply(layer.init(KEY), layer.init_state(), X, EVAL, deterministic=True)
    with pytest.raises(TypeError, match="wants a Mode as its fourth argument"):
        layer.apply(layer.init(KEY), layer.init_state(), X, True)


def test_evaluations_agree_and_trainings_differ():
    params, state = MODEL.init(KEY), MODEL.init_state()
    run = jax.jit(MODEL.apply)
    a, b = (run(params, state, X, nn.Mode(jax.random.key(i), False))[0] for i in (1, 2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, run(params, state, X, EVAL)[0])
    a, b, c = (run(params, state, X, training(jax.random.key(i)))[0] for i in (1, 2, 1))
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, c)


def mask(model, mode, width=64):
    ones = jnp.ones((8, width))
    return model.apply(model.init(KEY), None, ones, mode)[0]


def test_two_dropouts_and_two_steps_draw_different_masks():
    first, second = (nn.Chain(**{name: nn.Dropout(0.5)}) for name in ("first", "second"))
    step = [training(jax.random.fold_in(KEY, i)) for i in range(2)]
    masks = [np.asarray(mask(model, mode) == 0) for model in (first, second) for mode in step]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert 0.35 < np.mean(a != b) < 0.65  # independent fair coins differ at half of 512 places
    np.testing.assert_array_equal(mask(first, step[0]), mask(first, step[0]))
    # two in one model: at rate 1/2 a quarter is left, with the value 4
    both = np.asarray(mask(nn.Chain(nn.Dropout(0.5), nn.Dropout(0.5)), step[0]))
    assert set(np.unique(both)) == {0.0, 4.0}
    assert abs(np.mean(both > 0) - 0.25) < 0.08
    # the blocks of a stack, too
    stacked = np.asarray(mask(nn.Stack(nn.Dropout(0.5), 2), step[0]))
    assert set(np.unique(stacked)) == {0.0, 4.0}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_keeps_the_expectation(rate):
    y = np.asarray(mask(nn.Dropout(rate), training(KEY), width=4096))
    # 32768 draws: four standard errors
    assert abs(np.mean(y == 0) - rate) <= 4 * np.sqrt(rate * (1 - rate) / y.size)
    if rate < 1:
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=2e-4)  # the rate is a multiple of 2^-16
    np.testing.assert_array_equal(nn.Dropout(rate).apply({}, None, X, EVAL)[0], X)


def test_training_without_a_key():
    with pytest.raises(ValueError, match=r"the draw 'dropout' needs a key in training") as error:
        MODEL.apply(MODEL.init(KEY), MODEL.init_state(), X, training(None))
    assert error.value.__notes__[0] == "in layer dropout1 = Dropout(rate=0.5), input float32[6,32]"
    quiet = nn.Dropout(0.0)
    np.testing.assert_array_equal(quiet.apply({}, None, X, training(None))[0], X)


def test_no_key_is_used_twice():
    """Initialization and one whole training step, run under JAX's own check."""
    with jax.debug_key_reuse(True):
        params, state = MODEL.init(KEY), MODEL.init_state()

        @jax.jit
        def step(params, state, x, mode):
            def loss(params):
                y, after = MODEL.apply(params, state, x, mode)
                return jnp.sum(jnp.square(y)), after

            grads, after = jax.grad(loss, has_aux=True)(params)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), after

        for i in range(2):
            params, state = step(params, state, X, training(jax.random.fold_in(jax.random.key(1), i)))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((params, state)))


def test_every_weight_has_a_key_of_its_own():
    seen = {}
    for path, leaf in tree.flatten(MODEL.init(KEY)).items():
        if path.endswith("/w"):
            assert leaf.ravel()[:4].tobytes() not in seen, (path, seen)
            seen[leaf.ravel()[:4].tobytes()] = path
    assert len(seen) == 3
