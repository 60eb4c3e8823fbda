"""Layers of space: each calls its function; padding modes, patches and masks beside torch and by their properties."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close
from support.spatial import beside_torch, first, kernel, last

from dlkit import nn
from dlkit.nn import functional as F

KEY = jax.random.key(0)


def draws(layer, shape):
    rng = np.random.default_rng(3)
    leaves, treedef = jax.tree.flatten(jax.eval_shape(layer.init, KEY))
    return treedef, [rng.standard_normal(shape), *(rng.standard_normal(leaf.shape) / 2 for leaf in leaves)]


def layer_beside_torch(name, layer, shape, torch_fn):
    """`torch_fn(torch, x, *leaves)` with the leaves in the order of their paths."""
    treedef, arrays = draws(layer, shape)
    beside_torch(f"nn/spatial/{name}", lambda x, *leaves: layer(treedef.unflatten(leaves), x), torch_fn, *arrays)


PADDED = {
    "reflect_2d": (nn.Conv(2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 4, 2)),
    "replicate_strided": (nn.Conv(2, 3, (5, 3), (2, 1), (2, 1), padding_mode="replicate"), (2, 6, 5, 2)),
    "circular_1d": (nn.Conv(2, 4, 3, padding=2, dilation=2, groups=2, dims=1, padding_mode="circular"), (2, 7, 2)),
    "circular_same": (nn.Conv(2, 3, (4, 3), padding_mode="circular"), (2, 6, 5, 2)),
    "replicate_3d": (nn.Conv(2, 3, 2, padding=1, dims=3, bias=False, padding_mode="replicate"), (1, 3, 4, 3, 2)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PADDED)
def test_padding_modes_are_those_of_torchs_layers(name):
    layer, shape = PADDED[name]
    dims = len(layer.kernel_shape)

    def torch_fn(torch, x, *leaves):
        *b, w = leaves
        padding = layer.padding.lower() if isinstance(layer.padding, str) else layer.padding
        how = {key: getattr(layer, key) for key in ("stride", "dilation", "groups", "bias", "padding_mode")}
        module = getattr(torch.nn, f"Conv{dims}d")(layer.c_in, layer.c_out, layer.kernel_shape, padding=padding, **how)
        params = {"weight": kernel(w)} | ({"bias": b[0]} if b else {})
        return last(torch.func.functional_call(module, params, first(x)))

    layer_beside_torch(f"padded_{name}", layer, shape, torch_fn)


def test_a_pad_in_front_is_the_padding_mode():
    layer = nn.Conv(2, 3, 3, padding=1, padding_mode="circular")
    params, x = layer.init(KEY), jax.random.normal(KEY, (2, 5, 4, 2))
    chain = nn.Chain(pad=nn.Pad(1, "circular"), conv=nn.Conv(2, 3, 3, padding="VALID"))
    close(chain({"pad": {}, "conv": params}, x), layer(params, x), 1e-6)


@pytest.mark.parametrize(("size", "dilation", "stride"), [(3, 1, 1), (2, 4, 1), (4, 2, 2)])
def test_causal_padding_sees_nothing_later(size, dilation, stride):
    layer = nn.Conv(1, 1, (size,), padding="CAUSAL", dilation=dilation, stride=stride)
    params = layer.init(KEY)
    reach = jax.jacobian(lambda x: layer(params, x[:, None])[:, 0])(jnp.ones(12))
    places = np.arange(reach.shape[0])[:, None] * stride - np.arange(12)  # how much later an output is than an input
    seen = (places >= 0) & (places % dilation == 0) & (places <= (size - 1) * dilation)
    np.testing.assert_array_equal(np.abs(reach) > 0, seen)


def test_causal_padding_is_that_of_one_axis():
    with pytest.raises(ValueError, match=r'"CAUSAL" on a single axis'):
        nn.Conv(1, 1, 3, padding="CAUSAL")({"w": jnp.ones((3, 3, 1, 1)), "b": jnp.ones(1)}, jnp.ones((1, 5, 5, 1)))
    layer = nn.ConvTranspose(1, 1, (3,), padding="CAUSAL")
    with pytest.raises(ValueError, match="crop the high end"):
        layer(layer.init(KEY), jnp.ones((1, 5, 1)))


@pytest.mark.usefixtures("x64")
def test_patch_embedding_is_torchs_strided_convolution():
    layer = nn.PatchEmbed(3, 5, (2, 3))

    def torch_fn(torch, x, b, w):
        return torch.nn.functional.conv2d(first(x), kernel(w), b, stride=(2, 3)).flatten(2).transpose(1, 2)

    layer_beside_torch("patch_embed", layer, (2, 4, 6, 3), torch_fn)


def test_patch_embedding_in_one_and_three_dimensions_is_a_convolution():
    for patch, sizes in (((4,), (8,)), ((1, 2, 2), (3, 4, 6))):
        layer = nn.PatchEmbed(2, 5, patch)
        conv = nn.Conv(2, 5, patch, stride=patch, padding="VALID")
        params, x = layer.init(KEY), jax.random.normal(KEY, (2, *sizes, 2))
        jax.tree.map(np.testing.assert_array_equal, params, conv.init(KEY))
        close(layer(params, x), conv(params, x).reshape(2, -1, 5), 1e-5)


def raster_reach(layers, size, c):
    """`[place out, channel out, place in, channel in]`: whether the output depends on the input."""
    params = [layer.init(jax.random.key(i)) for i, layer in enumerate(layers)]

    def run(x):
        for layer, p in zip(layers, params, strict=True):
            x = jnp.tanh(layer(p, x))
        return x.reshape(-1, x.shape[-1])

    reach = jax.jit(jax.jacobian(run))(jax.random.normal(KEY, (*size, c)))
    return np.abs(reach).reshape(*reach.shape[:2], -1, c) > 0


@pytest.mark.parametrize("size", [(4, 4), (7,), (2, 3, 3)], ids=str)
def test_masked_convolutions_see_only_what_came_before(size):
    dims = len(size)
    layers = [nn.MaskedConv(1, 4, 3, "A", dims=dims), nn.MaskedConv(4, 1, 3, dims=dims)]
    reach = raster_reach(layers, size, 1)[:, 0, :, 0]
    np.testing.assert_array_equal(reach & ~np.tri(len(reach), k=-1, dtype=bool), False)
    assert all(reach[p, p - 1] for p in range(len(reach)) if p % size[-1])  # the pixel to the left
    b = raster_reach([nn.MaskedConv(1, 1, 3, "B", dims=dims)], size, 1)[:, 0, :, 0]
    assert b.diagonal().all()
    assert not (b & ~np.tri(len(b), dtype=bool)).any()


def test_masked_convolutions_order_the_colors():
    layers = [nn.MaskedConv(3, 6, 3, "A", colors=3), nn.MaskedConv(6, 3, 3, "B", colors=3)]
    reach = raster_reach(layers, (3, 3), 3)
    for place in range(9):
        np.testing.assert_array_equal(reach[place, :, place], np.tri(3, k=-1, dtype=bool))
        assert not reach[place, :, place + 1 :].any()
        assert place % 3 == 0 or reach[place, :, place - 1].all()


def test_a_masked_convolution_is_one_with_zeros_in_the_kernel():
    layer = nn.MaskedConv(2, 4, (3, 5), "B", colors=2)
    params, x = layer.init(KEY), jax.random.normal(KEY, (2, 4, 6, 2))
    np.testing.assert_array_equal(layer.seen()[..., 0, 0].ravel(), np.arange(15) <= 7)
    close(layer(params, x), F.conv(x, params["w"] * layer.seen().astype(np.float32), params["b"]), 1e-6)
    w = params["w"].at[2].set(jnp.nan)  # what is masked may hold anything
    assert bool(jnp.isfinite(layer({**params, "w": w}, x)).all())


def test_layers_call_their_function():
    x = jax.random.normal(KEY, (2, 6, 4, 8))
    for layer, want in {
        nn.AdaptiveAvgPool(3): F.adaptive_avg_pool(x, (3, 3)),
        nn.AdaptiveAvgPool((2,)): F.adaptive_avg_pool(x, (2,)),
        nn.AdaptiveMaxPool((None, 3)): F.adaptive_max_pool(x, (None, 3)),
        nn.AdaptiveMaxPool(2, dims=1): F.adaptive_max_pool(x, (2,)),
        nn.MaxPool(3, 2, ceil_mode=True): F.max_pool(x, 3, 2, ceil_mode=True),
        nn.AvgPool(3, 2, 1, False, True): F.avg_pool(x, 3, 2, 1, count_include_pad=False, ceil_mode=True),
        nn.Upsample(2): F.resize(x, scale=(2, 2)),
        nn.Upsample(1.5, dims=1): F.resize(x, scale=(1.5,)),
        nn.Upsample((0.5, 3)): F.resize(x, scale=(0.5, 3)),
        nn.Upsample(size=5, method="cubic", align_corners=True): F.resize(
            x, (5, 5), method="cubic", align_corners=True
        ),
        nn.PixelShuffle(2): F.pixel_shuffle(x, 2),
        nn.PixelShuffle(4, dims=1): F.pixel_shuffle(x, 4, dims=1),
        nn.PixelUnshuffle(2): F.pixel_unshuffle(x, 2),
        nn.ChannelShuffle(4): F.channel_shuffle(x, 4),
        nn.Pad(2, "reflect"): F.pad(x, (2, 2), "reflect"),
        nn.Pad(1, "constant", 3.0, dims=1): F.pad(x, (1,), "constant", 3.0),
        nn.Crop(((1, 0), 1)): F.crop(x, ((1, 0), 1)),
    }.items():
        assert layer.init(KEY) == {}
        np.testing.assert_array_equal(layer({}, x), want, err_msg=repr(layer))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv(3, 4, 3, padding_mode="edge"), "padding_mode to be one of 'zeros', 'reflect'"),
        (lambda: nn.Pad(1, "edge"), "mode to be one of 'zeros'"),
        (lambda: nn.Pad(1, "zeros", 2.0), "a value with 'constant' alone"),
        (lambda: nn.Upsample(), "either a scale or a size"),
        (lambda: nn.Upsample(2, 3), "either a scale or a size"),
        (lambda: nn.Upsample(2, method="bilinear"), "a method among 'nearest'"),
        (lambda: nn.Upsample(2, align_corners=True), "'linear' or 'cubic' alone"),
        (lambda: nn.AdaptiveAvgPool(0), "sizes of at least 1"),
        (lambda: nn.AdaptiveMaxPool((2, 0)), "sizes of at least 1"),
        (lambda: nn.PatchEmbed(3, 8, 0), "one size of at least 1"),
        (lambda: nn.MaskedConv(3, 6, 4), "odd sizes"),
        (lambda: nn.MaskedConv(3, 6, 3, "C"), "mask 'A'"),
        (lambda: nn.MaskedConv(3, 4, 3, colors=3), "colors that divide"),
        (lambda: nn.MaskedConv(3, 6, 1, "A"), "no input is left"),
    ],
)
def test_definitions_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_inputs_are_named():
    with pytest.raises(TypeError, match=r"Upsample.*floating point because it is interpolated"):
        nn.Upsample(2)({}, jnp.ones((1, 2, 2, 1), jnp.uint8))
    with pytest.raises(TypeError, match=r"AdaptiveAvgPool.*real numbers"):
        nn.AdaptiveAvgPool(2)({}, jnp.ones((1, 2, 2, 1), jnp.uint8))
    layer = nn.PatchEmbed(3, 8, 4)
    with pytest.raises(ValueError, match="crop or pad it first"):
        layer(layer.init(KEY), jnp.ones((1, 8, 10, 3)))
    assert nn.PixelShuffle(2)({}, jnp.ones((1, 2, 2, 4), jnp.uint8)).dtype == jnp.uint8


def test_presets_reach_these_layers():
    for layer in (nn.PatchEmbed(3, 64, 8), nn.DepthwiseConv(64, 3), nn.SeparableConv(16, 32, 3)):
        assert nn.init_preset(layer, "flax") == layer
        torchs = nn.init_preset(layer, "torch")
        assert torchs == dataclasses.replace(layer, w_init=torchs.w_init, b_init=torchs.b_init) != layer
