"""BatchNorm beside torch and flax over training steps, and as a function that is jitted, mapped, scanned."""

import os
import subprocess
import sys

import flax.linen as fnn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import compiling
from support.reference import reference

from dlkit import tree
from dlkit.nn import EVAL, BatchNorm, Chain, Linear, training

KEY = jax.random.key(0)
TRAIN = training(None)
STEPS = 20
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def data(shape, dtype):
    rng = np.random.default_rng(3)
    xs = 2 + 3 * rng.standard_normal((STEPS, *shape)).astype(dtype)  # a mean and a variance to be learned
    return xs, rng.standard_normal(shape).astype(dtype)


def train(xs, c, layer):
    """Twenty steps of gradient descent on scale and shift, then one evaluation of the first batch."""
    cast = lambda tree: jax.tree.map(lambda a: a.astype(xs.dtype), tree)  # noqa: E731

    def step(carry, x):
        params, state = carry

        def loss(params):
            y, after = layer.apply(params, state, x, TRAIN)
            return jnp.sum(c * jnp.square(y)) / x.size, (y, after)

        grads, (y, after) = jax.grad(loss, has_aux=True)(params)
        return (jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), after), (y, after)

    start = (cast(layer.init(KEY)), cast(layer.init_state()))
    (params, state), (ys, states) = jax.lax.scan(step, start, xs)
    y, same = layer.apply(params, state, xs[0], EVAL)
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, state)
    return {"ys": ys, "means": states["mean"], "variances": states["var"], "eval": y, **params}


def torchs(xs, c, module):
    import torch

    def first(x):
        return torch.tensor(np.moveaxis(x, -1, 1).copy())

    def last(y):
        return np.moveaxis(y.detach().numpy(), 1, -1)

    norm = getattr(torch.nn, module)(xs.shape[-1]).to(torch.float64 if xs.dtype == np.float64 else torch.float32)
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.1)
    ys, means, variances = [], [], []
    for x in xs:
        optimizer.zero_grad()
        y = norm(first(x))
        ((first(c) * y**2).sum() / x.size).backward()
        optimizer.step()
        ys.append(last(y))
        means.append(norm.running_mean.numpy().copy())
        variances.append(norm.running_var.numpy().copy())
    norm.eval()
    result = {
        "ys": np.stack(ys),
        "means": np.stack(means),
        "variances": np.stack(variances),
        "eval": last(norm(first(xs[0]))),
    }
    return {**result, "scale": norm.weight.detach().numpy(), "shift": norm.bias.detach().numpy()}


def beside_torch(module, shape, dtype):
    xs, c = data(shape, dtype)
    want = reference(f"nn/batch_norm/{module}_{len(shape)}_{np.dtype(dtype).name}", lambda: torchs(xs, c, module))
    got = jax.jit(train, static_argnums=2)(jnp.asarray(xs), jnp.asarray(c), BatchNorm(shape[-1]))
    for name, value in want.items():
        bound = TOLERANCE[dtype] * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[name], value, rtol=0, atol=bound, err_msg=name)


SHAPES = [("BatchNorm1d", (6, 3)), ("BatchNorm1d", (4, 5, 3)), ("BatchNorm2d", (2, 3, 4, 3))]


@pytest.mark.parametrize(("module", "shape"), SHAPES, ids=str)
def test_twenty_steps_beside_torch(module, shape):
    beside_torch(module, shape, np.float32)


@pytest.mark.parametrize(("module", "shape"), SHAPES[:1], ids=str)
def test_twenty_steps_beside_torch_in_float64(module, shape, x64):
    beside_torch(module, shape, np.float64)


def test_with_the_biased_variance_it_is_flaxs():
    xs, _ = data((6, 3), np.float32)
    layer = BatchNorm(3, decay=0.8, eps=1e-3, unbiased_running_var=False)
    theirs = fnn.BatchNorm(momentum=0.8, epsilon=1e-3, use_fast_variance=False)
    held = theirs.init(KEY, jnp.asarray(xs[0]), use_running_average=True)
    params, state = layer.init(KEY), layer.init_state()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for x in jnp.asarray(xs[:5]):
            want, after = theirs.apply(held, x, use_running_average=False, mutable=["batch_stats"])
            held = {**held, **after}
            y, state = layer.apply(params, state, x, TRAIN)
            np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
        for name in ("mean", "var"):
            np.testing.assert_allclose(state[name], held["batch_stats"][name], rtol=1e-5)
        want = theirs.apply(held, x, use_running_average=True)
    np.testing.assert_allclose(layer.apply(params, state, x, EVAL)[0], want, rtol=1e-5, atol=1e-5)


def test_running_variance_of_0_2_4():
    """The textbook case: 4 unbiased, 8/3 biased."""
    x = jnp.array([[0.0], [2.0], [4.0]])
    for unbiased, want in ((True, 4.0), (False, 8 / 3)):
        layer = BatchNorm(1, decay=0.0, unbiased_running_var=unbiased)
        _, state = layer.apply(layer.init(KEY), layer.init_state(), x, TRAIN)
        np.testing.assert_allclose([state["mean"][0], state["var"][0]], [2.0, want], rtol=1e-6)


def test_untrained_it_evaluates_to_the_identity():
    x = jax.random.normal(KEY, (5, 3))
    exact = BatchNorm(3, eps=0.0)
    np.testing.assert_array_equal(exact.apply(exact.init(KEY), exact.init_state(), x, EVAL)[0], x)
    layer = BatchNorm(3)
    y, _ = layer.apply(layer.init(KEY), layer.init_state(), x, EVAL)
    np.testing.assert_allclose(y, x / np.sqrt(np.float32(1 + 1e-5)), rtol=3e-7)
    bare = BatchNorm(3, eps=0.0, affine=False)
    np.testing.assert_array_equal(bare.apply({}, bare.init_state(), x, EVAL)[0], x)


@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 1, 1, 3)], ids=str)
def test_one_value_a_channel_cannot_be_trained_on(shape):
    layer = BatchNorm(3)
    with pytest.raises(
        ValueError, match=r"expected at least 2 values a channel because the variance of 1 is not defined"
    ):
        layer.apply(layer.init(KEY), layer.init_state(), jnp.ones(shape), TRAIN)
    y, _ = layer.apply(layer.init(KEY), layer.init_state(), jnp.ones(shape), EVAL)
    assert np.all(np.isfinite(y))


def test_decay_is_a_weight():
    with pytest.raises(ValueError, match=r"decay in \[0, 1\], the weight of the old value, got 1.5"):
        BatchNorm(3, decay=1.5)


def test_it_works_unchanged_under_every_transformation():
    """jit, vmap, scan over steps, eval_shape, checkpoint: one type of state in both modes, one trace."""
    model = Chain(Linear(4, 3), BatchNorm(3))
    params, state = model.init(KEY), model.init_state()
    xs = jax.random.normal(KEY, (3, 6, 4))
    for x in (xs[0], xs[0].astype(jnp.bfloat16)):
        held = jax.tree.map(lambda p, x=x: p.astype(x.dtype), params)
        for mode in (TRAIN, EVAL):
            y, after = jax.eval_shape(model.apply, held, state, x, mode)
            assert y.dtype == x.dtype
            assert tree.diff(jax.eval_shape(lambda: state), after) == ""
            assert not any(leaf.weak_type for leaf in jax.tree.leaves(after))

    traces = []

    @jax.jit
    def step(params, state, x):
        traces.append(1)

        def loss(params):
            y, after = jax.checkpoint(model.apply)(params, state, x, TRAIN)
            return jnp.sum(jnp.sin(y)), after

        return jax.grad(loss, has_aux=True)(params)

    one_by_one = []
    held = state
    for x in xs:
        grads, held = step(params, held, x)
        one_by_one.append(grads)
    assert len(traces) == 1

    plain = jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, state, xs[0], TRAIN)[0])))(params)
    for a, b in zip(jax.tree.leaves(one_by_one[0]), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    scanned, _ = jax.lax.scan(lambda state, x: (step(params, state, x)[1], None), state, xs)
    mapped = jax.vmap(lambda x: model.apply(params, state, x, TRAIN)[1])(xs)
    for path, leaf in tree.flatten(held).items():
        np.testing.assert_allclose(tree.flatten(scanned)[path], leaf, rtol=1e-5)
        each = [tree.flatten(model.apply(params, state, x, TRAIN)[1])[path] for x in xs]
        np.testing.assert_allclose(tree.flatten(mapped)[path], np.stack(each), rtol=1e-5, atol=1e-6)


def test_no_gradient_of_an_evaluation_reaches_the_rest_of_the_batch():
    layer = BatchNorm(3)
    params, state = layer.init(KEY), layer.init_state()
    x = jax.random.normal(KEY, (4, 3))
    dx = jax.grad(lambda x: layer.apply(params, state, x, EVAL)[0][0].sum())(x)
    assert np.all(np.asarray(dx[1:]) == 0)
    assert np.any(np.asarray(jax.grad(lambda x: layer.apply(params, state, x, TRAIN)[0][0, 0])(x)[1:]) != 0)


DEVICES = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from dlkit.nn import BatchNorm, training
layer = BatchNorm(3)
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
x = np.random.default_rng(0).standard_normal((16, 5, 3)) * np.arange(1, 17)[:, None, None]
x = x.astype(np.float32)
sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
y, state = jax.jit(layer.apply)(layer.init(jax.random.key(0)), layer.init_state(), sharded, training(None))
assert len(sharded.sharding.device_set) == jax.device_count()
print(*np.asarray(state["mean"]), *np.asarray(state["var"]), *np.asarray(y)[::5, 0].ravel())
"""


def test_statistics_are_those_of_the_whole_batch_on_8_devices():
    outputs = []
    for n in (1, 8):
        env = {**os.environ, "XLA_FLAGS": compiling.devices(n), "JAX_PLATFORMS": "cpu"}
        run = subprocess.run([sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        outputs.append(np.array(run.stdout.split(), np.float32))
    # not bit-equal: the sums are taken in another order
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
