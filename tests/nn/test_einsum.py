"""Linear maps over several axes and highway layers: values and gradients of flax and of a formula.

Tolerances: float32 1e-5, sums of at most 12 terms; float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dlkit import nn, tree

KEY = jax.random.key(0)
CASES = {
    "split": (nn.Einsum("...d,dhk->...hk", (6, 2, 3), bias="hk"), (4, 5, 6)),
    "merge": (nn.Einsum("bthk,hkd->btd", (2, 3, 5), bias="d"), (4, 5, 2, 3)),
    "groups": (nn.Einsum("...gd,gde->...ge", (3, 4, 2), bias="ge"), (7, 3, 4)),
    "no_bias": (nn.Einsum("bct,tu->bcu", (4, 6)), (2, 3, 4)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_flaxs(name, dtype):
    layer, shape = CASES[name]
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda a: jnp.asarray(rng.standard_normal(a.shape).astype(dtype)), jax.eval_shape(layer.init, KEY)
        )
        x = jnp.asarray(rng.standard_normal(shape).astype(dtype))
        bias = None
        if "b" in params:
            sizes = dict(zip(layer.equation.split(",")[1].split("-")[0], layer.shape, strict=True))
            bias = tuple(sizes[axis] for axis in layer.bias)
        theirs = nnx.Einsum(layer.equation, layer.shape, bias, rngs=nnx.Rngs(0), param_dtype=dtype)
        graph, state = nnx.split(theirs)
        cotangent = jnp.cos(jnp.arange(layer(params, x).size, dtype=dtype)).reshape(layer(params, x).shape)

        def loss(params, x):
            y = layer(params, x)
            return jnp.sum(cotangent * y), y

        def other(params, x):
            held = {"kernel": params["w"], "bias": params.get("b")}
            flat = [(path, leaf.replace(held[path[0]])) for path, leaf in nnx.to_flat_state(state)]
            y = nnx.merge(graph, nnx.from_flat_state(flat))(x)
            return jnp.sum(cotangent * y), y

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            want = jax.jit(jax.value_and_grad(other, (0, 1), has_aux=True))(params, x)
        got = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
        bound = {"float32": 1e-5, "float64": 1e-12}[dtype]
        for path, leaf in tree.flatten(got).items():
            np.testing.assert_allclose(leaf, tree.flatten(want)[path], rtol=bound, atol=bound * 10, err_msg=path)


def test_a_bias_of_some_axes():
    layer = nn.Einsum("...gd,gde->...ge", (3, 4, 2), bias="g")
    params = {**layer.init(KEY), "b": jnp.array([1.0, 2.0, 3.0])}
    x = jax.random.normal(KEY, (7, 3, 4))
    want = np.stack([np.asarray(x[:, g] @ params["w"][g]) + g + 1 for g in range(3)], 1)
    np.testing.assert_allclose(layer(params, x), want, atol=1e-6)


def test_fans():
    """A unit input gives outputs of unit variance: the axes that are summed are fan-in, groups are not counted."""
    for equation, shape, size in [
        ("...d,dhk->...hk", (64, 8, 16), (500, 64)),
        ("...gd,gde->...ge", (4, 64, 32), (500, 4, 64)),
    ]:
        layer = nn.Einsum(equation, shape)
        y = layer(layer.init(KEY), jax.random.normal(jax.random.key(1), size))
        assert abs(float(y.std()) - 1) < 0.03


def test_highway():
    """The formula, and its ends: a gate that is shut passes x, one that is open the body."""
    body, gate = nn.Chain(nn.Linear(5, 5), nn.Relu(), nn.BatchNorm(5)), nn.Linear(5, 5)
    layer = nn.Highway(body, gate)
    params, state = layer.init(KEY), layer.init_state()
    x = jax.random.normal(jax.random.key(1), (8, 5))
    y, after = layer.apply(params, state, x, nn.training(None))
    h, moments = body.apply(params["body"], state["body"], x, nn.training(None))
    t = 1 / (1 + np.exp(-np.asarray(gate(params["gate"], x), np.float64)))
    np.testing.assert_allclose(y, t * np.asarray(h) + (1 - t) * np.asarray(x), atol=1e-6)
    assert tree.diff({"body": moments}, after) == ""
    for bias, want in ((-100.0, x), (100.0, h)):
        ends = {**params, "gate": {"w": jnp.zeros((5, 5)), "b": jnp.full(5, bias)}}
        np.testing.assert_allclose(layer.apply(ends, state, x, nn.training(None))[0], want, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Einsum("...d->...h", (3, 2)), "'x,w->y'"),
        (lambda: nn.Einsum("...d,dh->h", (3, 2)), "in both x and y"),
        (lambda: nn.Einsum("...d,dh->...h", (3,)), "one positive size for each"),
        (lambda: nn.Einsum("...d,dhk->...h", (3, 2, 2)), "axis 'k' is neither in x nor in y"),
        (lambda: nn.Einsum("bd,dh->bh", (3, 2), bias="b"), "bias axes that y has and w has, not 'b'"),
        (lambda: nn.Einsum("...d,dhk->...hk", (3, 2, 2), bias="kh"), "in the order of y"),
        (lambda: CASES["split"][0](CASES["split"][0].init(KEY), jnp.ones((2, 5))), "d=6"),
        (lambda: CASES["no_bias"][0](CASES["no_bias"][0].init(KEY), jnp.ones((1, 2, 3, 4))), "the axes 'bct'"),
        (lambda: _highway(), "gate\\(x\\) of shape"),
    ],
)
def test_errors(make, words, unchecked):
    with pytest.raises(ValueError, match=words):
        make()


def _highway():
    layer = nn.Highway(nn.Linear(5, 5), nn.Linear(5, 1))
    layer.apply(layer.init(KEY), None, jnp.ones((2, 5)), nn.EVAL)
