"""Padding, shuffles, unfold and fold beside torch, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close
from support.spatial import beside_torch, first, last

from dlkit import functional as F

MODES = ("constant", "reflect", "replicate", "circular")
PADS = {1: ((2, 3),), 2: ((2, 1), (0, 3)), 3: ((1, 2), (2, 0), (1, 1))}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_pad_is_torchs(mode, dims):
    value = 0.7 if mode == "constant" else 0.0
    flat = [n for pair in reversed(PADS[dims]) for n in pair]

    def torch_fn(torch, x):
        return last(torch.nn.functional.pad(first(x), flat, mode, value if mode == "constant" else None))

    fn = functools.partial(F.pad, padding=PADS[dims], mode=mode, value=value)
    beside_torch(f"functional/moves/pad_{mode}_{dims}d", fn, torch_fn, draw(2, *(5, 4, 4)[:dims], 2))


@pytest.mark.parametrize(
    ("mode", "numpys"), [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_pad_is_numpys_and_takes_integers(mode, numpys):
    x = np.arange(24).reshape(2, 3, 4, 1)
    for padding, pairs in ((2, ((2, 2), (2, 2))), ((2, 1), ((2, 2), (1, 1))), (((1, 2), (0, 3)), ((1, 2), (0, 3)))):
        want = np.pad(x, ((0, 0), *pairs, (0, 0)), numpys)
        np.testing.assert_array_equal(F.pad(jnp.asarray(x), padding, mode), want)
        np.testing.assert_array_equal(F.crop(jnp.asarray(want), padding), x)


@pytest.mark.usefixtures("x64")
def test_pixel_shuffles_are_torchs():
    def up(torch, x):
        return last(torch.nn.functional.pixel_shuffle(first(x), 3))

    def down(torch, x):
        return last(torch.nn.functional.pixel_unshuffle(first(x), 2))

    name = "functional/moves/pixel"
    beside_torch(f"{name}_shuffle", functools.partial(F.pixel_shuffle, factor=3), up, draw(2, 3, 2, 18))
    beside_torch(f"{name}_unshuffle", functools.partial(F.pixel_unshuffle, factor=2), down, draw(2, 4, 6, 3))


@pytest.mark.usefixtures("x64")
def test_channel_shuffle_is_torchs():
    def torch_fn(torch, x):
        return last(torch.nn.functional.channel_shuffle(first(x), 3))

    beside_torch(
        "functional/moves/channel_shuffle", functools.partial(F.channel_shuffle, groups=3), torch_fn, draw(2, 2, 3, 12)
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pixel_unshuffle_is_the_inverse(dims):
    x = jnp.asarray(draw(2, *(2, 3, 4)[:dims], 3 * 2**dims), jnp.float32)
    y = F.pixel_shuffle(x, 2, dims=dims)
    assert y.shape == (2, *(4, 6, 8)[:dims], 3)
    np.testing.assert_array_equal(F.pixel_unshuffle(y, 2, dims=dims), x)
    np.testing.assert_array_equal(F.channel_shuffle(F.channel_shuffle(x, 2), x.shape[-1] // 2), x)


UNFOLD = {
    "plain": {"kernel": 2},
    "padded": {"kernel": 3, "stride": 2, "padding": 1},
    "all": {"kernel": (3, 2), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
}
KEYS = ("dilation", "padding", "stride")


def torchs_order(y, places):
    """`[B, C places, L]` of torch to `[B, L, places C]`."""
    batch, channels, length = y.shape
    return y.reshape(batch, channels // places, places, length).permute(0, 3, 2, 1).reshape(batch, length, channels)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", UNFOLD)
def test_unfold_and_fold_are_torchs(name):
    how = UNFOLD[name]
    kernel, rest = how["kernel"], {key: how[key] for key in KEYS if key in how}
    places = int(np.prod(np.broadcast_to(kernel, 2)))
    size, channels = (6, 5), 3
    x = draw(2, *size, channels)

    def unfold(x):
        y = F.unfold(x, kernel, **rest)
        return y.reshape(2, -1, y.shape[-1])

    def torch_unfold(torch, x):
        return torchs_order(torch.nn.functional.unfold(first(x), kernel, **rest), places)

    beside_torch(f"functional/moves/unfold_{name}", unfold, torch_unfold, x)
    windows = jax.eval_shape(lambda x: F.unfold(x, kernel, **rest), x).shape

    def torch_fold(torch, y):
        y = y.reshape(2, -1, places, channels).permute(0, 3, 2, 1).reshape(2, places * channels, -1)
        return last(torch.nn.functional.fold(y, size, kernel, **rest))

    fn = functools.partial(F.fold, size=size, kernel=kernel, **rest)
    beside_torch(f"functional/moves/fold_{name}", fn, torch_fold, draw(*windows, seed=1))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_unfold_is_the_convolution_as_a_matrix_product(dims):
    how = {"stride": 2, "padding": "SAME", "dilation": 1}
    x, w = (jnp.asarray(draw(*s), jnp.float32) for s in ((2, *(6, 5, 4)[:dims], 3), (*(3, 2, 2)[:dims], 3, 4)))
    y = F.unfold(x, w.shape[:dims], **how) @ w.reshape(-1, 4)
    close(y, F.conv(x, w, **how), 1e-5)


def test_patches_are_windows_without_overlap():
    x = jnp.asarray(draw(2, 4, 6, 3), jnp.float32)
    patches = F.patchify(x, (2, 3))
    np.testing.assert_array_equal(patches, F.unfold(x, (2, 3), (2, 3)).reshape(2, 4, 18))
    np.testing.assert_array_equal(F.unpatchify(patches, (4, 6), (2, 3)), x)
    one = F.patchify(x[0], (2, 3))
    np.testing.assert_array_equal(one, patches[0])
    np.testing.assert_array_equal(F.unpatchify(one, (4, 6), (2, 3)), x[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.pad(x, 1, "edge"), "mode is 'edge'; want one of 'zeros'"),
        (lambda x: F.pad(x, 8, "reflect"), r"'reflect' has 7 values to copy on an axis of size 8"),
        (lambda x: F.pad(x, 9, "circular"), r"'circular' has 8 values"),
        (lambda x: F.pad(x, -1), "none negative"),
        (lambda x: F.pad(x, ((1, 2, 3), 1)), r"pairs \(low, high\)"),
        (lambda x: F.crop(x, 4), "takes away all of axis 1"),
        (lambda x: F.pixel_shuffle(x, 2), r"3 channels are no multiple of 2\^2"),
        (lambda x: F.pixel_unshuffle(x, 3), r"sizes \(8, 8\) are no multiples of 3"),
        (lambda x: F.pixel_shuffle(x, 0), "factor of at least 1"),
        (lambda x: F.channel_shuffle(x, 2), "divisor of the last axis"),
        (lambda x: F.unfold(x, 9), "larger than the padded input"),
        (lambda x: F.unfold(x, (2, 2, 2, 2)), "4 spatial axes"),
        (lambda x: F.fold(x, (8, 8), 2), "multiple of prod"),
        (lambda x: F.fold(x, (8, 8), 1, 2), "check size"),
        (lambda x: F.patchify(x, 3), "crop or pad it first"),
        (lambda x: F.unpatchify(x, (4, 4), 2), "divides the size, 4 tokens"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 8, 8, 3)))
