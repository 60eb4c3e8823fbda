"""Additive attention against the equation in torch, and what masked places may hold. Tolerance float64 1e-12."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional as F
from dlkit import nn, tree

LAYER = nn.AdditiveAttention(4, 6, 5)
LENGTHS = np.array([4, 2])


def arrays():
    rng = np.random.default_rng(0)
    shapes = {"q/w": (4, 5), "k/w": (6, 5), "k/b": (5,), "score/w": (5, 1), "x": (2, 3, 4), "memory": (2, 4, 6)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}, rng.standard_normal((2, 3, 6))


def torch_case():
    import torch

    given, c = arrays()
    a = {name: torch.tensor(v, requires_grad=True) for name, v in given.items()}
    hidden = (a["x"] @ a["q/w"])[:, :, None] + (a["memory"] @ a["k/w"] + a["k/b"])[:, None]
    s = (torch.tanh(hidden) @ a["score/w"])[..., 0]
    s = s.masked_fill(torch.arange(4) >= torch.tensor(LENGTHS)[:, None, None], -torch.inf)
    y = torch.softmax(s, -1) @ a["memory"]
    (y * torch.tensor(c)).sum().backward()
    return {"y": y.detach().numpy(), **{f"d{name}": v.grad.numpy() for name, v in a.items()}}


def split(given):
    params = {"q": {"w": given["q/w"]}, "k": {"w": given["k/w"], "b": given["k/b"]}, "score": {"w": given["score/w"]}}
    return jax.tree.map(jnp.asarray, (params, given["x"], given["memory"]))


def run(params, x, memory, c):
    mask = F.padding_mask(jnp.asarray(LENGTHS), 4)[:, 0]

    def loss(params, x, memory):
        y = LAYER(params, x, memory=memory, mask=mask)
        return jnp.sum(c * y), y

    (_, y), (dp, dx, dm) = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, memory)
    return {"y": y, "dx": dx, "dmemory": dm, **{f"d{path}": g for path, g in tree.flatten(dp).items()}}


def test_torch_and_what_is_masked_may_be_nan(x64):
    given, c = arrays()
    want = reference("nn/attention_additive/case", torch_case)
    params, x, memory = split(given)
    hidden = jnp.arange(4)[None, :, None] >= jnp.asarray(LENGTHS)[:, None, None]
    for held in (memory, jnp.where(hidden, jnp.nan, memory)):
        got = run(params, x, held, c)
        assert got.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_weights_sum_to_one_and_a_query_that_sees_nothing_gives_0():
    params, x, memory = jax.tree.map(lambda a: a.astype(jnp.float32), split(arrays()[0]))
    mask = jnp.ones((3, 4), bool).at[1].set(False)
    p = LAYER.weights(params, x, memory, mask)
    np.testing.assert_allclose(p.sum(-1), np.tile([1.0, 0.0, 1.0], (2, 1)), atol=1e-6)
    y, gradient = jax.value_and_grad(lambda x: jnp.sum(LAYER(params, x, memory=memory, mask=mask)[:, 1] ** 2))(x)
    assert float(y) == 0
    assert not gradient.any()


def test_errors(unchecked):
    params = LAYER.init(jax.random.key(0))
    x, memory = jnp.ones((2, 3, 4)), jnp.ones((2, 5, 6))
    with pytest.raises(ValueError, match="memory="):
        LAYER(params, x)
    with pytest.raises(ValueError, match="d_memory=6"):
        LAYER(params, x, memory=x)
    with pytest.raises(ValueError, match=r"want \[3, 5\]"):
        LAYER(params, x, memory=memory, mask=jnp.ones((3, 4), bool))
    with pytest.raises(TypeError, match="True = attend"):
        LAYER(params, x, memory=memory, mask=jnp.ones((3, 5)))
