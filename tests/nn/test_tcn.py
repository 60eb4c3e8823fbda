"""Temporal convolutional networks beside torch's weight norm and padded convolutions; what an output sees.

Tolerances: those of `support/beside.py`, float32 1e-5, float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import nn, tree

KEY = jax.random.key(0)
CASES = {
    "block": nn.TCNBlock(4, 4, 3, dilation=2),
    "block_plain": nn.TCNBlock(3, 4, 2, dilation=3, weight_norm=False, activation=nn.Tanh()),
    "network": nn.TCN(3, (4, 4, 5), 2),
}


def block(torch, p, x, kernel, dilation, act):
    """x `[B, C, T]`, p by the paths below the block."""
    f = torch.nn.functional

    def conv(x, path):
        if f"{path}/magnitude" in p:
            v = p[f"{path}/layer/w"]
            w, b = p[f"{path}/magnitude"] * v / v.pow(2).sum((0, 1), keepdim=True).sqrt(), p[f"{path}/layer/b"]
        else:
            w, b = p[f"{path}/w"], p[f"{path}/b"]
        x = f.pad(x, (dilation * (w.shape[0] - 1), 0))
        return f.conv1d(x, w.permute(2, 1, 0), b, dilation=dilation)

    y = act(conv(act(conv(x, "residual/body/conv1")), "residual/body/conv2"))
    return act(y + (conv(x, "residual/shortcut") if "residual/shortcut/w" in p else x))


def torch_network(torch, layer, p, x):
    x = x.movedim(-1, 1)
    act = torch.tanh if layer.activation == nn.Tanh() else torch.relu
    if isinstance(layer, nn.TCNBlock):
        return block(torch, p, x, layer.kernel, layer.dilation, act).movedim(1, -1)
    for i in range(len(layer.channels)):
        start = f"block{i + 1}/"
        held = {path.removeprefix(start): v for path, v in p.items() if path.startswith(start)}
        x = block(torch, held, x, layer.kernel, 2**i, act)
    return x.movedim(1, -1)


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.thorough), np.float64])
@pytest.mark.parametrize("name", [pytest.param("block", marks=pytest.mark.thorough), "block_plain", "network"])
def test_equals_torch(name, dtype):
    layer = CASES[name]
    with jax.enable_x64(dtype == np.float64):
        rng = np.random.default_rng(1)
        shapes = tree.flatten(jax.eval_shape(layer.init, KEY))
        arrays = {path: rng.standard_normal(s.shape) for path, s in shapes.items()}
        structure = jax.tree.structure(jax.eval_shape(layer.init, KEY))

        def ours(**held):
            x = held.pop("x")
            params = jax.tree.unflatten(structure, [held[path] for path in shapes])
            return layer.apply(params, None, x, nn.EVAL)[0]

        theirs = lambda torch, **held: torch_network(torch, layer, held, held["x"])  # noqa: E731
        x = rng.standard_normal((2, 9, layer.c_in))
        beside_torch(f"nn/tcn/{name}", ours, {**arrays, "x": x}, theirs, dtype)


def test_an_output_sees_the_past_as_far_as_it_says():
    """By gradient: from the present back to `receptive_field` times, and nothing after the present."""
    layer = nn.TCN(2, (3, 3), kernel=3, activation=nn.Tanh())
    params, x = layer.init(KEY), jax.random.normal(KEY, (20, 2))
    seen = jax.jit(jax.jacobian(lambda x: layer.apply(params, None, x, nn.EVAL)[0].sum(-1)))(x)
    seen = np.asarray((seen != 0).any(-1))
    assert layer.receptive_field == 13
    back = np.arange(20)[:, None] - np.arange(20)[None]
    np.testing.assert_array_equal(seen, (back >= 0) & (back < 13))


def test_dropout_takes_channels_for_all_times():
    layer = nn.TCNBlock(4, 64, rate=0.5, activation=nn.Tanh())  # 0 only where it is dropped
    params, x = layer.init(KEY), jax.random.normal(KEY, (4, 30, 4))
    body = layer.build()["residual"].body
    y, _ = body.apply(params["residual"]["body"], None, x, nn.training(KEY))
    dropped = np.asarray(y == 0)
    assert np.array_equal(dropped.all(1), dropped.any(1))
    assert 0.3 < dropped.mean() < 0.7
    assert not np.asarray(body.apply(params["residual"]["body"], None, x, nn.EVAL)[0] == 0).any()


def test_errors():
    with pytest.raises(ValueError, match="at least one number of channels"):
        nn.TCN(3, ())
    with pytest.raises(ValueError, match="rate"):
        nn.TCNBlock(3, 4, rate=2.0)
    with pytest.raises(ValueError, match="c_in=3"):
        nn.TCN(3, (4,)).apply(nn.TCN(3, (4,)).init(KEY), None, jnp.ones((2, 5, 4)), nn.EVAL)
