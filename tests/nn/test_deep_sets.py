"""Deep sets beside a loop over sets in torch, values and gradients; order and what is masked change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import functional, nn

SIZES = (4, 1, 3)
MASK = np.arange(4)[None] < np.array(SIZES)[:, None]


def draw(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"x": (3, 4, 5), "w1": (5, 6), "b1": (6,), "w2": (6, 2), "b2": (2,)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def layer(pool):
    return nn.DeepSets(nn.Chain(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 2), pool)


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.thorough), np.float64])
@pytest.mark.parametrize("pool", ["sum", "mean", "max", pytest.param("min", marks=pytest.mark.thorough)])
def test_equals_a_loop_over_sets(pool, dtype):
    def ours(x, w1, b1, w2, b2):
        params = {"inner": {"linear1": {"w": w1, "b": b1}, "tanh1": {}}, "outer": {"w": w2, "b": b2}}
        return layer(pool).apply(params, None, x, nn.EVAL, mask=jnp.asarray(MASK))[0]

    def theirs(torch, x, w1, b1, w2, b2):
        reduce = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}[pool]
        return torch.stack([reduce(torch.tanh(s[:n] @ w1 + b1), 0) @ w2 + b2 for s, n in zip(x, SIZES, strict=True)])

    with jax.enable_x64(dtype == np.float64):
        beside_torch(f"nn/deep_sets/{pool}", ours, draw(), theirs, dtype)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_order_and_masked_members_change_nothing(pool):
    """Masked members may hold NaN; a set without members pools to 0, with finite gradients."""
    model = layer(pool)
    params, x = model.init(jax.random.key(0)), draw()["x"].astype(np.float32)
    mask = MASK & (np.arange(3) != 1)[:, None]

    @jax.jit
    def run(x, mask):
        def loss(params, x):
            y, _ = model.apply(params, None, x, nn.EVAL, mask=mask)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    (_, y), (dp, dx) = run(x, mask)
    np.testing.assert_allclose(y[1], params["outer"]["b"], rtol=0, atol=1e-7)
    assert not np.asarray(dx)[~mask].any()
    spoilt = np.where(mask[..., None], x, np.nan)[:, ::-1]
    (_, y_other), (dp_other, dx_other) = run(spoilt, mask[:, ::-1])
    for a, b in zip(jax.tree.leaves((y, dp, dx)), jax.tree.leaves((y_other, dp_other, dx_other[:, ::-1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_what_layers_inside_remember_comes_back():
    model = nn.DeepSets(nn.Linear(5, 6), nn.Chain(nn.BatchNorm(6)))
    state = model.init_state()
    _, after = model.apply(
        model.init(jax.random.key(0)), state, jnp.asarray(draw()["x"], jnp.float32), nn.training(None)
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert not np.array_equal(after["outer"]["batch_norm1"]["mean"], state["outer"]["batch_norm1"]["mean"])


def test_errors(unchecked):
    model = layer("sum")
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="'sum', 'mean', 'max', 'min', got 'prod'"):
        layer("prod")
    with pytest.raises(ValueError, match=r"shape \(5,\): expected \[..., N, d\]"):
        model.apply(params, None, jnp.ones(5), nn.EVAL)
    with pytest.raises(ValueError, match=r"mask of shape \(4,\) for x of shape \(3, 4, 5\): expected \(3, 4\)"):
        model.apply(params, None, jnp.ones((3, 4, 5)), nn.EVAL, mask=jnp.ones(4, bool))
    with pytest.raises(ValueError, match=r"x is \[2, 5\] and mask \[3\]"):
        functional.pool_set(jnp.ones((2, 5)), jnp.ones(3, bool))
    with pytest.raises(ValueError, match="pool_set got 'prod'"):
        functional.pool_set(jnp.ones((2, 5)), how="prod")
