"""Conditional norms and folded batch norms beside torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch
from support.reference import reference

from dlkit import nn
from dlkit.nn import EVAL, training

KEY = jax.random.key(0)


def normal(*shape):
    return np.random.default_rng(4).standard_normal(shape)


def adaptive_layer_norm(dtype):
    layer = nn.ConditionalNorm(nn.LayerNorm(6, affine=False), nn.Film(3, 6))
    arrays = {"w": normal(3, 12), "b": normal(12), "x": normal(2, 5, 6), "cond": normal(2, 3)}

    def ours(w, b, x, cond):
        return layer.apply({"norm": {}, "film": {"w": w, "b": b}}, None, x, EVAL, cond=cond)[0]

    def theirs(torch, w, b, x, cond):
        scale, shift = torch.nn.functional.linear(cond, w.T, b).chunk(2, dim=-1)
        y = torch.nn.functional.layer_norm(x, (6,))
        return y * (1 + scale[:, None]) + shift[:, None]

    beside_torch("nn/conditional/adaptive_layer_norm", ours, arrays, theirs, dtype)


def test_torch_in_float32():
    adaptive_layer_norm(np.float32)


def test_torch_in_float64(x64):
    adaptive_layer_norm(np.float64)


def test_a_norm_that_remembers_keeps_its_state():
    layer = nn.ConditionalNorm(nn.BatchNorm(4, affine=False), nn.Film(3, 4))
    params, state = layer.init(KEY), layer.init_state()
    x = jnp.asarray(5 + normal(64, 4), jnp.float32)
    y, after = layer.apply(params, state, x, training(None), cond=jnp.ones((64, 3)))
    plain, want = layer.norm.apply({}, state["norm"], x, training(None))
    np.testing.assert_array_equal(y, plain)  # w and b start at 0
    np.testing.assert_array_equal(after["norm"]["mean"], want["mean"])


def test_what_film_refuses():
    layer = nn.Film(3, 4)
    params = layer.init(KEY)
    with pytest.raises(ValueError, match="got no `cond`"):
        layer(params, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="first axes of x"):
        layer(params, jnp.ones((2, 4)), cond=jnp.ones((5, 3)))
    with pytest.raises(ValueError, match="d_cond=3"):
        layer(params, jnp.ones((2, 4)), cond=jnp.ones((2, 2)))


@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_convolution_is_torchs(bias):
    conv, norm = nn.Conv(3, 4, 3, padding=1, bias=bias), nn.BatchNorm(4)
    rng = np.random.default_rng(5)
    array = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    params = {"w": array(3, 3, 3, 4)} | ({"b": array(4)} if bias else {})
    scales = {"scale": array(4), "shift": array(4)}
    state = {"mean": array(4), "var": np.square(array(4)) + 0.1}
    x = array(2, 5, 5, 3)

    def compute():
        import torch

        theirs, bn = torch.nn.Conv2d(3, 4, 3, padding=1, bias=bias), torch.nn.BatchNorm2d(4)
        with torch.no_grad():
            theirs.weight.copy_(torch.tensor(params["w"]).permute(3, 2, 0, 1))
            if bias:
                theirs.bias.copy_(torch.tensor(params["b"]))
            bn.weight.copy_(torch.tensor(scales["scale"]))
            bn.bias.copy_(torch.tensor(scales["shift"]))
            bn.running_mean.copy_(torch.tensor(state["mean"]))
            bn.running_var.copy_(torch.tensor(state["var"]))
            one = torch.nn.utils.fusion.fuse_conv_bn_eval(theirs.eval(), bn.eval())
            y = one(torch.tensor(x).movedim(-1, 1)).movedim(1, -1)
        return {"w": one.weight.permute(2, 3, 1, 0).detach().numpy(), "b": one.bias.detach().numpy(), "y": y.numpy()}

    want = reference(f"nn/conditional/fold_{bias}", compute)
    params, scales, state = jax.tree.map(jnp.asarray, (params, scales, state))
    one, held = nn.fold_batch_norm(conv, params, norm, scales, state)
    got = {**held, "y": one(held, jnp.asarray(x))}
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5 * np.abs(value).max(), err_msg=name)
    after, _ = norm.apply(scales, state, conv(params, jnp.asarray(x)), EVAL)
    np.testing.assert_allclose(got["y"], after, atol=1e-5 * np.abs(after).max())


def test_what_fold_refuses(unchecked):
    norm = nn.BatchNorm(4)
    with pytest.raises(TypeError, match="expected a Linear or a Conv"):
        nn.fold_batch_norm(nn.Relu(), {}, norm, {}, norm.init_state())
    with pytest.raises(ValueError, match="expected one size"):
        nn.fold_batch_norm(nn.Linear(3, 2), nn.Linear(3, 2).init(KEY), norm, {}, norm.init_state())
