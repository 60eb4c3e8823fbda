"""Convolutional blocks beside the same blocks written in torch, with batch norms in training and in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import models, nn, tree
from dlkit.nn import EVAL, training

KEY, TRAIN = jax.random.key(0), training(None)


class Torch:
    """The torch functions on channels-first tensors, with dlkit's parameters by path and batch norms that remember."""

    def __init__(self, torch, params, state, train):
        self.f, self.params, self.train = torch.nn.functional, params, train
        self.state = {k: torch.tensor(v) for k, v in state.items()}

    def conv(self, x, path, stride=1, padding=0, groups=1):
        w, b = self.params[f"{path}/w"], self.params.get(f"{path}/b")
        return self.f.conv2d(x, w.permute(3, 2, 0, 1), b, stride=stride, padding=padding, groups=groups)

    def norm(self, x, path):
        mean, var = (self.state[f"{path}/{name}"] for name in ("mean", "var"))
        scale, shift = (self.params[f"{path}/{name}"] for name in ("scale", "shift"))
        return self.f.batch_norm(x, mean, var, scale, shift, self.train, 0.1, 1e-5)

    def linear(self, x, path):
        return self.f.linear(x, self.params[f"{path}/w"].T, self.params[f"{path}/b"])


def shortcut(t, x, block):
    if (block.stride, block.c_in) == (1, block.c_out):
        return x
    return t.norm(t.conv(x, "residual/shortcut/conv", block.stride), "residual/shortcut/norm")


def basic(t, x, block):
    y = t.norm(t.conv(x, "residual/body/conv1", block.stride, 1), "residual/body/norm1").relu()
    y = t.norm(t.conv(y, "residual/body/conv2", 1, 1), "residual/body/norm2")
    return (y + shortcut(t, x, block)).relu()


def bottleneck(t, x, block):
    y = t.norm(t.conv(x, "residual/body/conv1"), "residual/body/norm1").relu()
    y = t.norm(t.conv(y, "residual/body/conv2", block.stride, 1, block.groups), "residual/body/norm2").relu()
    y = t.norm(t.conv(y, "residual/body/conv3"), "residual/body/norm3")
    return (y + shortcut(t, x, block)).relu()


def excite(t, x, prefix, act):
    s = x.mean((2, 3))
    s = t.linear(act(t.linear(s, f"{prefix}reduce")), f"{prefix}expand").sigmoid()
    return x * s[:, :, None, None]


def inverted(t, x, block):
    at = "body/" if (block.stride, block.c_in) == (1, block.c_out) else ""
    act = t.f.relu6 if block.activation == nn.Relu6() else t.f.silu
    y = x
    if block.expansion != 1:
        y = act(t.norm(t.conv(y, f"{at}expand"), f"{at}norm1"))
    groups = block.c_in * block.expansion
    y = act(t.norm(t.conv(y, f"{at}depthwise", block.stride, block.kernel // 2, groups), f"{at}norm2"))
    if block.squeeze:
        y = excite(t, y, f"{at}excite/", act)
    y = t.norm(t.conv(y, f"{at}project"), f"{at}norm3")
    return x + y if at else y


def convnext(t, x, block):
    y = t.conv(x, "body/depthwise", 1, block.kernel // 2, block.d).movedim(1, -1)
    scale, shift = t.params["body/norm/scale"], t.params["body/norm/shift"]
    y = t.f.layer_norm(y, (block.d,), scale, shift, 1e-6)
    y = t.linear(t.f.gelu(t.linear(y, "body/expand")), "body/project") * t.params["body/scale/scale"]
    return x + y.movedim(-1, 1)


CASES = {
    "basic": (nn.BasicBlock(4, 4), basic),
    "basic_strided": (nn.BasicBlock(3, 4, stride=2), basic),
    "bottleneck": (nn.Bottleneck(4, 4, groups=2, width=6), bottleneck),
    "bottleneck_strided": (nn.Bottleneck(4, 8, stride=2), bottleneck),
    "inverted": (nn.InvertedResidual(4, 4, expansion=2), inverted),
    "inverted_excited": (
        nn.InvertedResidual(3, 4, stride=2, expansion=2, kernel=5, activation=nn.Silu(), squeeze=2),
        inverted,
    ),
    "inverted_thin": (nn.InvertedResidual(4, 4, expansion=1), inverted),
    "convnext": (nn.ConvNeXtBlock(4, kernel=3, expansion=2), convnext),
    "squeeze_excite": (nn.SqueezeExcite(4, 3), lambda t, x, block: excite(t, x, "", t.f.relu)),
}


def beside(name, mode, dtype):
    layer, theirs = CASES[name]
    rng = np.random.default_rng(6)
    shapes = tree.flatten(jax.eval_shape(layer.init, KEY))
    arrays = {path: rng.standard_normal(s.shape) for path, s in shapes.items()}
    states = tree.flatten(jax.eval_shape(layer.init_state))
    state = {path: np.square(rng.standard_normal(s.shape)).astype(dtype) + 0.5 for path, s in states.items()}
    structures = [jax.tree.structure(jax.eval_shape(made)) for made in (lambda: layer.init(KEY), layer.init_state)]
    train = mode.train

    def ours(**held):
        x = held.pop("x")
        params = jax.tree.unflatten(structures[0], [held[path] for path in shapes])
        before = jax.tree.unflatten(structures[1], [jnp.asarray(state[path]) for path in states])
        y, after = layer.apply(params, before, x, mode)
        return {"y": y, **(tree.flatten(after) if states else {})}

    def reference(torch, **held):
        t = Torch(torch, held, state, train)
        y = theirs(t, held["x"].movedim(-1, 1), layer).movedim(1, -1)
        return {"y": y, **t.state}

    x = rng.standard_normal((3, 5, 4, getattr(layer, "c_in", 4)))
    beside_torch(f"nn/conv_blocks/{name}_{train}", ours, {**arrays, "x": x}, reference, dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", [TRAIN, EVAL], ids=["training", "evaluation"])
def test_torch_in_float32(name, mode):
    beside(name, mode, np.float32)


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float64(name, x64):
    beside(name, TRAIN, np.float64)


def test_a_block_is_what_it_builds():
    """Same parameters from one key, same paths, same outputs."""
    block = nn.Bottleneck(8, 16, stride=2)
    built = block.build()
    params, x = block.init(KEY), jax.random.normal(KEY, (2, 6, 6, 8))
    assert not tree.diff(params, built.init(KEY))
    np.testing.assert_array_equal(
        params["residual"]["body"]["conv2"]["w"], built.init(KEY)["residual"]["body"]["conv2"]["w"]
    )
    y, after = block.apply(params, block.init_state(), x, TRAIN)
    want, held = built.apply(params, built.init_state(), x, TRAIN)
    np.testing.assert_array_equal(y, want)
    assert not tree.diff(after, held)


def test_errors_inside_a_block_give_the_path():
    model = nn.Chain(stage=nn.Chain(block1=nn.BasicBlock(4, 4)))
    with pytest.raises(ValueError, match="c_in=4") as caught:
        model.apply(model.init(KEY), model.init_state(), jnp.ones((1, 5, 5, 3)), EVAL)
    assert "in layer stage/block1/residual/body/conv1" in caught.value.__notes__[0]


def test_shortcut_of_ones_own():
    block = nn.BasicBlock(4, 8, 2, shortcut=models.PadShortcut(4, 8, 2))
    assert tree.count(jax.eval_shape(block.init, KEY)) == 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8


def test_layer_scale_and_drop_path_are_in_the_block():
    block = nn.ConvNeXtBlock(4, rate=0.5, scale_init=nn.initializers.Ones())
    params, x = block.init(KEY), jax.random.normal(KEY, (64, 3, 3, 4))
    y = block.apply(params, None, x, training(KEY))[0]
    kept = np.asarray((y != x).any((1, 2, 3)))
    assert 0.2 < kept.mean() < 0.8
    full = block.apply(params, None, x, EVAL)[0]
    np.testing.assert_allclose((y - x)[kept], 2 * (full - x)[kept], atol=1e-4)


def test_what_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        nn.Bottleneck(4, 6)
    with pytest.raises(ValueError, match="dims=2, got 2 axes"):
        nn.SqueezeExcite(4, 2)(nn.SqueezeExcite(4, 2).init(KEY), jnp.ones((3, 4)))
    with pytest.raises(TypeError, match="floating"):
        nn.SqueezeExcite(4, 2)(nn.SqueezeExcite(4, 2).init(KEY), jnp.ones((1, 3, 3, 4), jnp.int32))


def test_a_preset_reaches_the_layers_inside():
    params = nn.init_preset(nn.ConvNeXtBlock(64), "torch").init(KEY)["body"]
    assert params["expand"]["b"].any()
    assert abs(params["expand"]["w"]).max() <= 1 / 8  # torch: uniform within 1 / sqrt(fan_in)
    assert tree.flatten(params).keys() == tree.flatten(nn.ConvNeXtBlock(64).init(KEY)["body"]).keys()
