"""Feed-forward networks with copied weights: values and gradients of torch.

Tolerances: float32 1e-5, sums of at most 24 terms; float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, tree

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
D, HIDDEN = 6, 24
CASES = {
    "relu": (nn.FeedForward(D, HIDDEN), "relu"),
    "gelu_no_bias": (nn.FeedForward(D, HIDDEN, nn.Gelu(), bias=False), "gelu"),
    "swiglu": (nn.GatedFeedForward(D, HIDDEN), "silu"),
    "geglu": (nn.GatedFeedForward(D, HIDDEN, nn.Gelu(), bias=True), "gelu"),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name, dtype):
    layer, activation = CASES[name]
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        shapes = tree.flatten(jax.eval_shape(layer.init, jax.random.key(0)))
        arrays = {path: (rng.standard_normal(leaf.shape) * 0.5).astype(dtype) for path, leaf in shapes.items()}
        x, cotangent = (rng.standard_normal((2, 3, D)).astype(dtype) for _ in range(2))

        def compute():
            import torch
            import torch.nn.functional as F

            held = {path: torch.tensor(a, requires_grad=True) for path, a in arrays.items()}
            t = torch.tensor(x, requires_grad=True)

            def linear(part, t):
                return F.linear(t, held[f"{part}/w"].T, held.get(f"{part}/b"))

            h = getattr(F, activation)(linear("gate" if "gate/w" in held else "up", t))
            h = h * linear("up", t) if "gate/w" in held else h
            y = linear("down", h)
            (y * torch.tensor(cotangent)).sum().backward()
            grads = {f"grad/{path}": leaf.grad.numpy() for path, leaf in held.items()}
            return {"y": y.detach().numpy(), "grad_x": t.grad.numpy(), **grads}

        want = reference(f"nn/feed_forward/{name}_{dtype}", compute)

        def loss(params, x):
            y, _ = layer.apply(params, None, x, nn.EVAL)
            return jnp.sum(y * cotangent), y

        params = tree.map_with_path(lambda path, _: jnp.asarray(arrays[path]), jax.eval_shape(layer.init, KEY))
        (_, y), (grads, grad_x) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, jnp.asarray(x))
        got = {"y": y, "grad_x": grad_x} | {f"grad/{path}": leaf for path, leaf in tree.flatten(grads).items()}
        assert got.keys() == want.keys()
        for key, value in got.items():
            bound = TOLERANCE[dtype] * max(1.0, np.abs(want[key]).max())
            assert np.abs(np.asarray(value) - want[key]).max() <= bound, key


KEY = jax.random.key(0)


def test_the_gated_network_is_gated_linear_and_linear():
    """The same as `GatedLinear`, whose one matrix is [value, gate], with a `Linear` behind it."""
    layer = nn.GatedFeedForward(D, HIDDEN)
    params = layer.init(KEY)
    x = jax.random.normal(jax.random.key(1), (4, D))
    both = jnp.concatenate([params["up"]["w"], params["gate"]["w"]], axis=1)
    h = nn.GatedLinear(D, HIDDEN, bias=False)({"w": both, "activation": {}}, x)
    y, _ = layer.apply(params, None, x, nn.EVAL)
    np.testing.assert_allclose(h @ params["down"]["w"], y, atol=1e-6)


def test_dropout_acts_on_the_hidden_units():
    """With every input at work on one hidden unit each, a dropped unit silences exactly its outputs."""
    layer = nn.FeedForward(64, 64, rate=0.25, bias=False)
    params = {"up": {"w": jnp.eye(64)}, "down": {"w": jnp.eye(64)}, "activation": {}}
    y, _ = layer.apply(params, None, jnp.ones((50, 64)), nn.training(KEY))
    values = np.unique(np.asarray(y))
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(float((y == 0).mean()) - 0.25) < 0.03  # 4 standard errors


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.FeedForward(4, 0), "hidden"),
        (lambda: nn.GatedFeedForward(4, 8, rate=1.5), "rate"),
        (lambda: nn.FeedForward(4, 8).apply(nn.FeedForward(4, 8).init(KEY), None, jnp.ones((2, 5)), nn.EVAL), "d=4"),
    ],
)
def test_errors(make, words, unchecked):
    with pytest.raises(ValueError, match=words):
        make()
