"""Weight norm, spectral norm and weight standardization beside torch, and what they promise of the weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import functional, nn
from dlkit.nn import EVAL, training

KEY, TRAIN = jax.random.key(0), training(None)
DTYPES = (np.float32, np.float64)


def normal(*shape):
    return np.random.default_rng(2).standard_normal(shape)


# The layer, its w, x, and in torch: the module, w and x as they are written there.
LAYERS = {
    "linear": (nn.Linear(5, 4, bias=False), (5, 4), (3, 5), ("Linear", 5, 4), (1, 0)),
    "conv": (nn.Conv(4, 6, 3, padding=1, groups=2, bias=False), (3, 3, 2, 6), (2, 4, 5, 4), ("Conv2d", 4, 6, 3), None),
}


def module(torch, name):
    kind, *arguments = LAYERS[name][3]
    options = {"padding": 1, "groups": 2} if kind == "Conv2d" else {}
    return getattr(torch.nn, kind)(*arguments, bias=False, **options).double()


def turned(torch, name, w):
    """dlkit's w as torch writes it: output channels first."""
    return w.T if name == "linear" else w.permute(3, 2, 0, 1)


def called(torch, name, x, weight):
    if name == "linear":
        return torch.nn.functional.linear(x, weight)
    return torch.nn.functional.conv2d(x.movedim(-1, 1), weight, padding=1, groups=2).movedim(1, -1)


def weight_norm(name, dtype):
    layer = nn.WeightNorm(LAYERS[name][0])
    arrays = {"v": normal(*LAYERS[name][1]), "g": 1 + normal(LAYERS[name][1][-1]), "x": normal(*LAYERS[name][2])}

    def theirs(torch, v, g, x):
        weight = turned(torch, name, v)
        return called(torch, name, x, torch._weight_norm(weight, g.reshape(-1, *[1] * (weight.ndim - 1)), 0))

    def ours(v, g, x):
        return layer({"layer": {"w": v}, "magnitude": g}, x)

    beside_torch(f"nn/parametrizations/weight_norm_{name}", ours, arrays, theirs, dtype)


def weight_standardized(name, dtype):
    layer = nn.WeightStandardized(LAYERS[name][0])

    def theirs(torch, w, x):
        weight = turned(torch, name, w)
        flat = weight.reshape(1, weight.shape[0], -1)
        flat = torch.nn.functional.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6)
        return called(torch, name, x, flat.reshape(weight.shape))

    arrays = {"w": normal(*LAYERS[name][1]), "x": normal(*LAYERS[name][2])}
    beside_torch(
        f"nn/parametrizations/weight_standardized_{name}",
        lambda w, x: layer({"layer": {"w": w}}, x),
        arrays,
        theirs,
        dtype,
    )


def spectral_norm(name, dtype):
    """Four training steps on moving weights, then an evaluation: outputs, vectors, gradients through all of them."""
    inner, shape, xs, *_ = LAYERS[name]
    layer = nn.SpectralNorm(inner, iterations=2)
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal(shape[-1]), rng.standard_normal(shape[:-1])
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    arrays = {"w": normal(*shape), "x": normal(*xs)}

    def theirs(torch, w, x):
        made = torch.nn.utils.parametrizations.spectral_norm(module(torch, name).to(w.dtype), n_power_iterations=2)
        norm = made.parametrizations.weight[0]
        with torch.no_grad():
            norm._u.copy_(torch.tensor(u))
            norm._v.copy_(turned(torch, name, torch.tensor(v)[..., None])[0].reshape(-1))
        ys = []
        for step in range(4):
            weight = norm(turned(torch, name, w * (1 + 0.3 * step) + 0.1 * step))
            ys.append(called(torch, name, x, weight))
        norm.eval()
        ys.append(called(torch, name, x, norm(turned(torch, name, w * 2 - 1))))
        return {"y": torch.stack(ys), "u": norm._u}

    def ours(w, x):
        state = {"u": jnp.asarray(u, dtype), "v": jnp.asarray(v.reshape(-1), dtype)}
        ys = []
        for step in range(4):
            y, state = layer.apply({"layer": {"w": w * (1 + 0.3 * step) + 0.1 * step}}, state, x, TRAIN)
            ys.append(y)
        y, after = layer.apply({"layer": {"w": w * 2 - 1}}, state, x, EVAL)
        assert after == state
        return {"y": jnp.stack([*ys, y]), "u": state["u"]}

    beside_torch(f"nn/parametrizations/spectral_norm_{name}", ours, arrays, theirs, dtype)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("case", [weight_norm, weight_standardized, spectral_norm], ids=lambda f: f.__name__)
def test_torch_in_float32(case, name):
    case(name, np.float32)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("case", [weight_norm, weight_standardized, spectral_norm], ids=lambda f: f.__name__)
def test_torch_in_float64(case, name, x64):
    case(name, np.float64)


@pytest.mark.parametrize("mode", [TRAIN, EVAL], ids=["training", "evaluation"])
def test_spectral_norm_makes_the_largest_singular_value_one(mode):
    """By numpy's SVD of the weight in use: 15 warm-up steps and 60 more from a fresh state."""
    layer = nn.SpectralNorm(nn.Conv(3, 5, 3, bias=False), iterations=60)
    params, state = layer.init(KEY), layer.init_state()
    _, state = layer.apply(params, state, jnp.ones((1, 4, 4, 3)), mode)
    w = np.asarray(layer.fold(params, state)["w"]).reshape(-1, 5)
    np.testing.assert_allclose(np.linalg.svd(w, compute_uv=False)[0], 1.0, atol=1e-5)


def test_spectral_norm_follows_the_weights_over_training():
    """One iteration a step keeps up with weights that move slowly."""
    layer = nn.SpectralNorm(nn.Linear(6, 6, bias=False))
    state = layer.init_state()
    w = layer.init(KEY)["layer"]["w"]
    x = jnp.ones((1, 6))
    step = jax.jit(layer.apply)
    for i in range(150):
        _, state = step({"layer": {"w": w + 0.001 * i}}, state, x, TRAIN)
    used = np.asarray(layer.fold({"layer": {"w": w + 0.149}}, state)["w"])
    np.testing.assert_allclose(np.linalg.svd(used, compute_uv=False)[0], 1.0, atol=1e-3)


def test_spectral_norm_of_a_transposed_weight_takes_its_output_channels():
    w = normal(2, 2, 3, 4)  # c_out is the axis before the last
    u, v = functional.power_iteration(jnp.asarray(w, jnp.float32), jnp.ones(3), jnp.ones(16), 300, axis=-2)
    used = functional.spectral_norm(jnp.asarray(w, jnp.float32), u, v, axis=-2)
    matrix = np.moveaxis(np.asarray(used), -2, 0).reshape(3, -1)
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False)[0], 1.0, atol=1e-5)


def test_weight_norm_changes_nothing_at_first_and_folds_exactly():
    layer = nn.WeightNorm(nn.Conv(3, 5, 3))
    params, x = layer.init(KEY), jnp.asarray(normal(2, 4, 4, 3), jnp.float32)
    y = layer(params, x)
    np.testing.assert_allclose(y, layer.layer(params["layer"], x), atol=1e-6)
    params = {**params, "magnitude": params["magnitude"] * 3}
    np.testing.assert_array_equal(layer(params, x), layer.layer(layer.fold(params), x))


def test_a_table_of_an_embedding_may_be_wrapped():
    layer = nn.WeightNorm(nn.Embedding(5, 3), axis=0, leaf="table")
    params = layer.init(KEY)
    assert params["magnitude"].shape == (5,)
    np.testing.assert_allclose(layer(params, jnp.arange(5)), params["layer"]["table"], atol=1e-6)


@pytest.mark.parametrize("wrap", [nn.WeightNorm, nn.WeightStandardized, nn.SpectralNorm])
def test_a_layer_without_the_weight_is_refused(wrap):
    layer = wrap(nn.LayerNorm(4))
    with pytest.raises(ValueError, match="without a parameter 'w': it has scale, shift"):
        layer.apply({"layer": {"scale": jnp.ones(4), "shift": jnp.zeros(4)}}, None, jnp.ones((2, 4)), EVAL)
    with pytest.raises(ValueError, match="at least one iteration"):
        nn.SpectralNorm(nn.Linear(3, 2), iterations=0)


def test_an_axis_that_the_weight_has_not_is_refused():
    with pytest.raises(ValueError, match="axis=5"):
        nn.WeightNorm(nn.Linear(3, 2), axis=5).init(KEY)
    with pytest.raises(ValueError, match="want \\[2\\]"):
        functional.weight_norm(jnp.ones((3, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match="one vector of each size"):
        functional.power_iteration(jnp.ones((3, 2)), jnp.ones(3), jnp.ones(3), 1)
