"""Transposed, depthwise and separable convolution beside torch, in values and in the gradients of x and the weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.spatial import beside_torch, first, kernel, last

from dlkit import nn

KEY = jax.random.key(0)


def draws(layer, shape):
    rng = np.random.default_rng(3)
    params = jax.eval_shape(layer.init, KEY)
    leaves, treedef = jax.tree.flatten(params)
    return treedef, [rng.standard_normal(shape), *(rng.standard_normal(leaf.shape) / 2 for leaf in leaves)]


def layer_beside_torch(name, layer, shape, torch_fn):
    """`torch_fn(torch, x, *leaves)` with the leaves in the order of their paths."""
    treedef, arrays = draws(layer, shape)
    beside_torch(f"nn/conv_family/{name}", lambda x, *leaves: layer(treedef.unflatten(leaves), x), torch_fn, *arrays)


TRANSPOSED = {
    "1d": (nn.ConvTranspose(4, 6, 3, stride=2, padding=1, output_padding=1, dims=1), (2, 5, 4)),
    "1d_dilated": (nn.ConvTranspose(4, 6, (3,), padding=2, dilation=2, bias=False), (2, 5, 4)),
    "2d": (nn.ConvTranspose(3, 4, 4, stride=2, padding=1), (2, 4, 3, 3)),
    "2d_grouped": (
        nn.ConvTranspose(4, 6, (3, 2), (2, 3), (1, 0), output_padding=(0, 2), dilation=(2, 1), groups=2),
        (2, 4, 3, 4),
    ),
    "3d": (nn.ConvTranspose(2, 4, (2, 3, 2), stride=(2, 1, 2), padding=0, groups=2), (1, 3, 2, 3, 2)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose_is_torchs(name):
    layer, shape = TRANSPOSED[name]
    dims = len(layer.kernel_shape)

    def torch_fn(torch, x, *leaves):
        *b, w = leaves
        run = getattr(torch.nn.functional, f"conv_transpose{dims}d")
        how = {key: getattr(layer, key) for key in ("stride", "padding", "output_padding", "dilation", "groups")}
        return last(run(first(x), kernel(w), *b, **how))

    layer_beside_torch(f"transpose_{name}", layer, shape, torch_fn)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.ConvTranspose(48, 32, 4, stride=2), 24),
        (nn.ConvTranspose(64, 48, 3, stride=2, groups=2), 24),
        (nn.ConvTranspose(64, 32, 6, stride=3, dims=1), 512),
        (nn.ConvTranspose(32, 32, 3), 24),
    ],
    ids=repr,
)
def test_a_fresh_transposed_convolution_keeps_the_variance(layer, size):
    """The mean over positions, borders left out; 5 % is three standard errors of a sum over the weights drawn."""
    dims = len(layer.kernel_shape)
    x = jax.random.normal(jax.random.key(1), (4, *(size,) * dims, layer.c_in))
    y = layer(layer.init(KEY), x)
    inner = y[(slice(None), *(slice(6, n - 6) for n in y.shape[1:-1]))]
    assert abs(float(inner.var()) - 1) < 0.05


def test_transposed_takes_back_the_size_of_its_convolution():
    for size, extra in ((7, 0), (8, 1)):  # stride 2 maps both to 4; output_padding chooses
        x = jnp.ones((1, size, size, 3))
        down, up = nn.Conv(3, 5, 3, 2, padding=1), nn.ConvTranspose(5, 3, 3, 2, padding=1, output_padding=extra)
        y = down(down.init(KEY), x)
        assert y.shape == (1, 4, 4, 5)
        assert up(up.init(KEY), y).shape == x.shape


DEPTHWISE = {
    "1d": (nn.DepthwiseConv(3, 5, multiplier=2, padding=2, dims=1), (2, 9, 3)),
    "2d": (nn.DepthwiseConv(4, 3, padding=1), (2, 6, 5, 4)),
    "2d_strided": (nn.DepthwiseConv(3, (3, 2), 3, (2, 1), (1, 0), dilation=(1, 2), bias=False), (2, 7, 6, 3)),
    "3d": (nn.DepthwiseConv(2, 3, multiplier=2, stride=2, padding=1, dims=3), (1, 5, 4, 5, 2)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_is_torchs(name):
    layer, shape = DEPTHWISE[name]

    def torch_fn(torch, x, *leaves):
        *b, w = leaves
        run = getattr(torch.nn.functional, f"conv{len(layer.kernel_shape)}d")
        how = {key: getattr(layer, key) for key in ("stride", "padding", "dilation")}
        return last(run(first(x), kernel(w), *b, groups=layer.c, **how))

    layer_beside_torch(f"depthwise_{name}", layer, shape, torch_fn)


def test_depthwise_is_a_grouped_convolution():
    layer, same = nn.DepthwiseConv(4, 3, multiplier=2), nn.Conv(4, 8, 3, groups=4)
    params, x = layer.init(KEY), jax.random.normal(KEY, (2, 5, 5, 4))
    jax.tree.map(np.testing.assert_array_equal, params, same.init(KEY))
    np.testing.assert_array_equal(layer(params, x), same(params, x))
    y = layer(params, x.at[..., 1].set(9.0))  # channel 1 reaches its own outputs, 2 and 3, alone
    assert (np.abs(y - layer(params, x)).max((0, 1, 2)) > 0).tolist() == [c in (2, 3) for c in range(8)]


SEPARABLE = {
    "1d": (nn.SeparableConv(3, 5, 3, multiplier=2, padding=1, dims=1), (2, 7, 3)),
    "2d": (nn.SeparableConv(3, 4, 3, stride=2, padding=1), (2, 7, 6, 3)),
    "3d": (nn.SeparableConv(2, 3, (2, 1, 3), padding=0, bias=False), (1, 4, 3, 4, 2)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SEPARABLE)
def test_separable_is_torchs_two_convolutions(name):
    layer, shape = SEPARABLE[name]

    def torch_fn(torch, x, depthwise, *leaves):
        *b, pointwise = leaves
        run = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
        y = run(first(x), kernel(depthwise), stride=layer.stride, padding=layer.padding, groups=layer.c_in)
        return last(run(y, kernel(pointwise), *b))

    layer_beside_torch(f"separable_{name}", layer, shape, torch_fn)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ConvTranspose(4, 6, 0), "1, 2 or 3 sizes of at least 1"),
        (lambda: nn.ConvTranspose(4, 6, 3, dims=4), "1, 2 or 3 sizes"),
        (lambda: nn.ConvTranspose(4, 6, 3, groups=4), "groups that divide c_in=4 and c_out=6"),
        (lambda: nn.DepthwiseConv(4, 3, multiplier=0), "multiplier of at least 1"),
        (lambda: nn.DepthwiseConv(4, (3, 0)), "sizes of at least 1"),
        (lambda: nn.SeparableConv(4, 6, 3, multiplier=0), "multiplier of at least 1"),
    ],
)
def test_definitions_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose(4, 6, 3), nn.DepthwiseConv(4, 3), nn.SeparableConv(4, 6, 3)], ids=repr
)
def test_wrong_inputs_are_named(layer):
    params = layer.init(KEY)
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}.* to have size 4 because c"):
        layer(params, jnp.zeros((2, 8, 8, 3)))
    with pytest.raises(TypeError, match="floating point"):
        layer(params, jnp.zeros((2, 8, 8, 4), jnp.int32))


def test_presets_know_the_transposed_fans():
    """torch counts `c_out prod(kernel) / groups`, flax `c_in prod(kernel)`; neither divides by the stride."""
    layer = nn.ConvTranspose(64, 16, 4, stride=2)
    for preset, std in (("torch", (3 * 16 * 16) ** -0.5), ("flax", (64 * 16) ** -0.5)):
        w = nn.init_preset(layer, preset).init(KEY)["w"]
        assert abs(float(w.std()) / std - 1) < 0.02
    assert nn.init_preset(dataclasses.replace(layer, stride=1), "flax") == dataclasses.replace(layer, stride=1)
