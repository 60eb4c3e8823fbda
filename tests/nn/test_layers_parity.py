"""Layers with copied weights: values and gradients of torch, and of flax.

Tolerances: float32 1e-5, a few roundings of sums of at most a hundred terms; float64 1e-12.
"""

import flax.linen as fnn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, tree

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
KEY = jax.random.key(0)


def channels_first(x, dims):
    """`[B, *spatial, C]` to `[B, C, *spatial]`."""
    return np.moveaxis(x, -1, 1) if dims else x


def channels_last(x, dims):
    return np.moveaxis(x, 1, -1) if dims else x


# name: the layer, the shape of x, and the torch module with how our parameters are written there.
# `dims` axes of x are spatial. "kernel": torch has [c_out, c_in / groups, *kernel]; "matrix": transposed.
KERNEL = {"w": ("weight", "kernel"), "b": ("bias", "same")}
AFFINE = {"w": ("weight", "matrix"), "b": ("bias", "same")}
NORM = {"scale": ("weight", "same"), "shift": ("bias", "same")}
CASES = {
    "linear": (nn.Linear(5, 3), (2, 4, 5), 0, ("Linear", (5, 3), {}), AFFINE),
    "linear_no_bias": (nn.Linear(5, 3, bias=False), (4, 5), 0, ("Linear", (5, 3), {"bias": False}), AFFINE),
    "conv1d": (
        nn.Conv(4, 6, 3, stride=2, padding=1, dims=1),
        (2, 9, 4),
        1,
        ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}),
        KERNEL,
    ),
    "conv2d_same": (nn.Conv(3, 4, 3), (2, 6, 5, 3), 2, ("Conv2d", (3, 4, 3), {"padding": "same"}), KERNEL),
    "conv2d_grouped": (
        nn.Conv(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        (2, 7, 6, 4),
        2,
        ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
        KERNEL,
    ),
    "conv2d_depthwise": (
        nn.Conv(3, 6, 3, padding="VALID", groups=3, bias=False),
        (2, 5, 5, 3),
        2,
        ("Conv2d", (3, 6, 3), {"groups": 3, "bias": False}),
        KERNEL,
    ),
    "conv3d": (
        nn.Conv(2, 3, (2, 3, 2), padding=1),
        (1, 4, 3, 4, 2),
        3,
        ("Conv3d", (2, 3, (2, 3, 2)), {"padding": 1}),
        KERNEL,
    ),
    "max_pool": (nn.MaxPool(3, 2, padding=1), (2, 7, 6, 3), 2, ("MaxPool2d", (3, 2, 1), {}), {}),
    "max_pool1d": (nn.MaxPool(2, dims=1), (2, 7, 3), 1, ("MaxPool1d", (2,), {}), {}),
    "avg_pool": (nn.AvgPool((3, 2), 2, padding=1), (2, 7, 6, 3), 2, ("AvgPool2d", ((3, 2), 2, 1), {}), {}),
    "avg_pool_exclude": (
        nn.AvgPool(3, 1, padding=1, count_include_pad=False),
        (2, 4, 4, 3),
        2,
        ("AvgPool2d", (3, 1, 1), {"count_include_pad": False}),
        {},
    ),
    "layer_norm": (nn.LayerNorm(6), (2, 4, 6), 0, ("LayerNorm", (6,), {}), NORM),
    "layer_norm_no_shift": (nn.LayerNorm(6, shift=False), (4, 6), 0, ("LayerNorm", (6,), {"bias": False}), NORM),
    "rms_norm": (nn.RMSNorm(6), (2, 4, 6), 0, ("RMSNorm", (6,), {"eps": 1e-5}), NORM),
    "group_norm": (nn.GroupNorm(2, 6), (3, 4, 5, 6), 2, ("GroupNorm", (2, 6), {}), NORM),
    "group_norm_vectors": (nn.GroupNorm(2, 8, dims=0), (5, 8), 0, ("GroupNorm", (2, 8), {}), NORM),
    "prelu": (nn.PRelu(4), (2, 3, 4), 1, ("PReLU", (4,), {}), {"slope": ("weight", "same")}),
}


def to_torch(value, how):
    if how == "kernel":
        return np.moveaxis(value, (-1, -2), (0, 1))
    return value.T if how == "matrix" else value


def from_torch(value, how):
    if how == "kernel":
        return np.moveaxis(value, (0, 1), (-1, -2))
    return value.T if how == "matrix" else value


def problem(layer, shape, dtype):
    """Parameters that are not the defaults, an input, and the weights of a scalar of the output."""
    rng = np.random.default_rng(7)
    shapes = tree.flatten(jax.eval_shape(layer.init, KEY))
    params = {path: rng.standard_normal(s.shape).astype(dtype) for path, s in shapes.items()}
    return params, rng.standard_normal(shape).astype(dtype), rng


def outputs_and_gradients(layer, params, x, c):
    def loss(params, x):
        y = layer(params, x)
        return jnp.sum(c * y), y

    (_, y), (dp, dx) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    return {"y": y, "dx": dx, **{f"d{path}": g for path, g in dp.items()}}


def assert_equal(got, want, dtype):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        assert got[name].dtype == dtype, name
        bound = TOLERANCE[dtype] * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[name], value, rtol=0, atol=bound, err_msg=name)


def against_torch(name, dtype):
    layer, shape, dims, (module, arguments, keywords), names = CASES[name]
    params, x, rng = problem(layer, shape, dtype)
    y_shape = jax.eval_shape(layer, params, x).shape
    c = rng.standard_normal(y_shape).astype(dtype)

    def compute():
        import torch

        theirs = getattr(torch.nn, module)(*arguments, **keywords).to(
            torch.float64 if dtype is np.float64 else torch.float32
        )
        with torch.no_grad():
            for path, value in params.items():
                getattr(theirs, names[path][0]).copy_(torch.tensor(to_torch(value, names[path][1]).copy()))
        given = torch.tensor(channels_first(x, dims).copy(), requires_grad=True)
        y = theirs(given)
        (y * torch.tensor(channels_first(c, dims).copy())).sum().backward()
        result = {"y": channels_last(y.detach().numpy(), dims), "dx": channels_last(given.grad.numpy(), dims)}
        for path in params:
            result[f"d{path}"] = from_torch(getattr(theirs, names[path][0]).grad.numpy(), names[path][1])
        return result

    want = reference(f"nn/layers/{name}_{np.dtype(dtype).name}", compute)
    got = outputs_and_gradients(layer, jax.tree.map(jnp.asarray, params), jnp.asarray(x), jnp.asarray(c))
    assert_equal(got, want, dtype)


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float32(name):
    against_torch(name, np.float32)


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float64(name, x64):
    against_torch(name, np.float64)


# --- flax ------------------------------------------------------------------------------------------------------------

FLAX_NORM = {"scale": "scale", "shift": "bias"}
FLAX_AFFINE = {"w": "kernel", "b": "bias"}
FLAX = {
    "linear": (nn.Linear(5, 3), (2, 4, 5), fnn.Dense(3), FLAX_AFFINE),
    "conv_strided": (nn.Conv(3, 4, 3, stride=2), (2, 6, 5, 3), fnn.Conv(4, (3, 3), 2), FLAX_AFFINE),
    "conv_grouped": (
        nn.Conv(4, 6, (3, 2), padding="VALID", dilation=2, groups=2),
        (2, 7, 6, 4),
        fnn.Conv(6, (3, 2), padding="VALID", kernel_dilation=2, feature_group_count=2),
        FLAX_AFFINE,
    ),
    "conv1d": (nn.Conv(4, 6, 3, dims=1), (2, 9, 4), fnn.Conv(6, (3,)), FLAX_AFFINE),
    "layer_norm": (nn.LayerNorm(6, eps=1e-6), (2, 4, 6), fnn.LayerNorm(use_fast_variance=False), FLAX_NORM),
    "rms_norm": (nn.RMSNorm(6, eps=1e-6), (2, 4, 6), fnn.RMSNorm(), FLAX_NORM),
    "group_norm": (
        nn.GroupNorm(2, 6, eps=1e-6),
        (3, 4, 5, 6),
        fnn.GroupNorm(2, use_fast_variance=False),
        FLAX_NORM,
    ),
    "prelu": (nn.PRelu(), (2, 3, 4), fnn.PReLU(), {"slope": "negative_slope"}),
}


def against_flax(name, dtype):
    layer, shape, theirs, names = FLAX[name]
    params, x, rng = problem(layer, shape, dtype)
    c = jnp.asarray(rng.standard_normal(jax.eval_shape(layer, params, x).shape).astype(dtype))

    def apply(params, x):
        written = {names[path]: p.reshape(()) if path == "slope" else p for path, p in params.items()}
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return theirs.apply({"params": written}, x)

    params = jax.tree.map(jnp.asarray, params)
    want = outputs_and_gradients(apply, params, jnp.asarray(x), c)
    assert_equal(outputs_and_gradients(layer, params, jnp.asarray(x), c), jax.device_get(want), dtype)


@pytest.mark.parametrize("name", FLAX)
def test_flax_in_float32(name):
    against_flax(name, np.float32)


@pytest.mark.parametrize("name", FLAX)
def test_flax_in_float64(name, x64):
    against_flax(name, np.float64)


def test_embedding_is_torchs_and_flaxs():
    layer, rng = nn.Embedding(7, 3), np.random.default_rng(0)
    table, ids = rng.standard_normal((7, 3)).astype(np.float32), np.array([[1, 6, 1], [0, 1, 2]])
    c = rng.standard_normal((2, 3, 3)).astype(np.float32)

    def compute():
        import torch

        theirs = torch.nn.Embedding.from_pretrained(torch.tensor(table), freeze=False)
        y = theirs(torch.tensor(ids))
        (y * torch.tensor(c)).sum().backward()
        return {"y": y.detach().numpy(), "dtable": theirs.weight.grad.numpy()}

    want = reference("nn/layers/embedding", compute)
    y, pullback = jax.vjp(lambda t: layer({"table": t}, jnp.asarray(ids)), jnp.asarray(table))
    np.testing.assert_array_equal(y, want["y"])
    np.testing.assert_allclose(pullback(jnp.asarray(c))[0], want["dtable"], rtol=1e-6, atol=1e-6)
    theirs = fnn.Embed(7, 3).apply({"params": {"embedding": jnp.asarray(table)}}, jnp.asarray(ids))
    np.testing.assert_array_equal(y, theirs)


# --- closed forms: what no library has -------------------------------------------------------------------------------


def test_maxout_is_its_formula():
    layer, rng = nn.Maxout(4, 3, pieces=2), np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((5, 4), (4, 6), (6,)))
    pieces = np.einsum("bi,icp->bcp", x, w.reshape(4, 3, 2)) + b.reshape(3, 2)
    params = {"w": jnp.asarray(w), "b": jnp.asarray(b)}
    np.testing.assert_allclose(layer(params, jnp.asarray(x)), pieces.max(-1), rtol=1e-5, atol=1e-6)
    grad = jax.grad(lambda p: layer(p, jnp.asarray(x)).sum())(params)["b"]
    # each example sends 1 to the bias of the winner alone
    want = np.stack([pieces.argmax(-1) == 0, pieces.argmax(-1) == 1], -1).sum(0).reshape(-1)
    np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("gate", [nn.Silu(), nn.Gelu(), nn.Sigmoid(), nn.PRelu(3)], ids=repr)
def test_gated_linear_is_its_formula(gate):
    layer = nn.GatedLinear(4, 3, gate)
    params = layer.init(KEY)
    params["b"] = jnp.arange(6, dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(1), (5, 4))
    value, gated = jnp.split(x @ params["w"] + params["b"][None], 2, axis=-1)
    np.testing.assert_allclose(layer(params, x), value * gate(params["activation"], gated), rtol=1e-5, atol=1e-6)


def test_pooling_over_all_of_space():
    x = jax.random.normal(KEY, (2, 3, 4, 5, 6))
    np.testing.assert_allclose(nn.GlobalAvgPool()({}, x), x.mean((2, 3)), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(nn.GlobalMaxPool(dims=1)({}, x), x.max(3))


def test_shapes_and_numbers_that_move():
    x = jnp.arange(48.0).reshape(2, 2, 2, 2, 3)
    np.testing.assert_array_equal(nn.Flatten()({}, x), x.reshape(2, 2, 12))
    np.testing.assert_array_equal(nn.Flatten(dims=1)({}, x), x)
    np.testing.assert_array_equal(nn.Reshape((2, 2, 3))({}, nn.Flatten()({}, x)), x)
    np.testing.assert_array_equal(nn.Reshape((6, 2), dims=3)({}, x), x.reshape(2, 2, 6, 2))
    assert nn.Identity()({}, x) is x
    images = jnp.array([[0, 51, 255]], jnp.uint8)
    np.testing.assert_allclose(nn.Rescale()({}, images), [[0.0, 0.2, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(nn.Rescale(1 / 127.5, -1.0)({}, images), [[-1.0, -0.6, 1.0]], rtol=1e-6)
    assert nn.Rescale()({}, images.astype(jnp.bfloat16)).dtype == jnp.bfloat16


# --- activations: each calls the function of its name ----------------------------------------------------------------

ACTIVATIONS = {
    nn.Celu(0.5): lambda x: nn.functional.celu(x, 0.5),
    nn.Crelu(0): lambda x: nn.functional.crelu(x, 0),
    nn.Elu(0.5): lambda x: nn.functional.elu(x, 0.5),
    nn.Geglu(approximate=True): lambda x: nn.functional.geglu(x, approximate=True),
    nn.Gelu(): nn.functional.gelu,
    nn.Gelu(approximate=True): lambda x: nn.functional.gelu(x, approximate=True),
    nn.Glu(0): lambda x: nn.functional.glu(x, 0),
    nn.HardShrink(0.3): lambda x: nn.functional.hard_shrink(x, 0.3),
    nn.HardSigmoid(): nn.functional.hard_sigmoid,
    nn.HardSwish(): nn.functional.hard_swish,
    nn.HardTanh(-0.5, 0.3): lambda x: nn.functional.hard_tanh(x, -0.5, 0.3),
    nn.LeakyRelu(0.1): lambda x: nn.functional.leaky_relu(x, 0.1),
    nn.LogSigmoid(): nn.functional.log_sigmoid,
    nn.LogSoftmax(0): lambda x: nn.functional.log_softmax(x, 0),
    nn.Mish(): nn.functional.mish,
    nn.Reglu(0): lambda x: nn.functional.reglu(x, 0),
    nn.Relu(): nn.functional.relu,
    nn.Relu6(): nn.functional.relu6,
    nn.Selu(): nn.functional.selu,
    nn.Sigmoid(): nn.functional.sigmoid,
    nn.Silu(): nn.functional.silu,
    nn.SoftShrink(0.3): lambda x: nn.functional.soft_shrink(x, 0.3),
    nn.Softmax(0): lambda x: nn.functional.softmax(x, 0),
    nn.Softmin(0): lambda x: nn.functional.softmin(x, 0),
    nn.Softplus(2.0, 1.0): lambda x: nn.functional.softplus(x, 2.0, 1.0),
    nn.Softsign(): nn.functional.softsign,
    nn.Sparsemax(0): lambda x: nn.functional.sparsemax(x, 0),
    nn.Squareplus(2.0): lambda x: nn.functional.squareplus(x, 2.0),
    nn.Swiglu(0): lambda x: nn.functional.swiglu(x, 0),
    nn.Swish(2.0): lambda x: nn.functional.swish(x, 2.0),
    nn.Tanh(): nn.functional.tanh,
    nn.TanhShrink(): nn.functional.tanh_shrink,
    nn.Threshold(0.2, -7.0): lambda x: nn.functional.threshold(x, 0.2, -7.0),
}


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activation_layers_call_their_function(layer):
    x = jax.random.normal(KEY, (4, 6))
    assert layer.init(KEY) == {}
    np.testing.assert_array_equal(layer({}, x), ACTIVATIONS[layer](x))


def test_defaults_of_activations_are_torchs():
    """At -2, -0.3, 0.7 and 25, where slopes, knots and thresholds show."""
    x = np.array([-2.0, -0.3, 0.7, 25.0], np.float32)
    torchs = {
        nn.Celu(): "CELU",
        nn.Elu(): "ELU",
        nn.Gelu(): "GELU",
        nn.HardShrink(): "Hardshrink",
        nn.HardSigmoid(): "Hardsigmoid",
        nn.HardSwish(): "Hardswish",
        nn.HardTanh(): "Hardtanh",
        nn.LeakyRelu(): "LeakyReLU",
        nn.LogSigmoid(): "LogSigmoid",
        nn.Mish(): "Mish",
        nn.Relu(): "ReLU",
        nn.Relu6(): "ReLU6",
        nn.Selu(): "SELU",
        nn.Sigmoid(): "Sigmoid",
        nn.Silu(): "SiLU",
        nn.SoftShrink(): "Softshrink",
        nn.Softplus(): "Softplus",
        nn.Softsign(): "Softsign",
        nn.Tanh(): "Tanh",
        nn.TanhShrink(): "Tanhshrink",
        nn.Glu(): "GLU",
        nn.PRelu(): "PReLU",
    }

    def compute():
        import torch

        return {name: getattr(torch.nn, name)()(torch.tensor(x)).detach().numpy() for name in torchs.values()}

    want = reference("nn/layers/activation_defaults", compute)
    for layer, name in torchs.items():
        got = layer(layer.init(KEY), jnp.asarray(x))
        np.testing.assert_allclose(got, want[name], rtol=1e-5, atol=1e-6, err_msg=name)
