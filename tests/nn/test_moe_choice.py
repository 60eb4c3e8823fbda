"""Experts that choose their tokens, beside a loop over experts in torch: values, gradients, who is chosen by none.

Tolerances: those of `support/beside.py`, float32 1e-5, float64 1e-12; sums of at most a hundred terms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.beside import beside_torch

from dlkit import functional, nn, tree

N, D, HIDDEN, E = 21, 6, 8, 4
KEY = jax.random.key(0)
CASES = {
    "two": nn.MoE(D, HIDDEN, E, 2, choice="experts"),
    "half": nn.MoE(D, HIDDEN, E, 1, capacity_factor=0.5, gated=False, choice="experts"),
}


def expert_loop(torch, layer, p, x):
    """Each expert sorts all tokens by the probability that they give it."""
    probability = torch.softmax(x @ p["router/w"], -1)
    wish = probability.detach().numpy()
    rows, found = [torch.zeros(D, dtype=x.dtype) for _ in range(N)], set()
    for e in range(E):
        for n in np.argsort(-wish[:, e], kind="stable")[: layer.capacity(N)].tolist():
            up = x[n] @ p["up/w"][e]
            silu = torch.nn.functional.silu
            h = silu(x[n] @ p["gate/w"][e]) * up if layer.gated else silu(up)
            rows[n] = rows[n] + probability[n, e] * (h @ p["down/w"][e])
            found.add(n)
    z = (torch.logsumexp(x @ p["router/w"], -1) ** 2).mean()
    return {"y": torch.stack(rows), "z": z, "dropped": torch.tensor(1 - len(found) / N, dtype=x.dtype)}


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.thorough), np.float64])
@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop_over_experts(name, dtype):
    layer = CASES[name]
    with jax.enable_x64(dtype == np.float64):
        rng = np.random.default_rng(1)
        shapes = tree.flatten(jax.eval_shape(layer.init, KEY))
        arrays = {path: 0.7 * rng.standard_normal(s.shape) for path, s in shapes.items()}
        structure = jax.tree.structure(jax.eval_shape(layer.init, KEY))
        state = jax.tree.map(lambda a: a.astype(dtype), layer.init_state())

        def ours(**held):
            x = held.pop("x")
            params = jax.tree.unflatten(structure, [held[path] for path in shapes])
            y, stats = layer.apply(params, state, x, nn.EVAL)
            return {"y": y, "z": stats.z, "dropped": stats.dropped}

        theirs = lambda torch, **held: expert_loop(torch, layer, held, held["x"])  # noqa: E731
        beside_torch(f"nn/moe_choice/{name}", ours, {**arrays, "x": rng.standard_normal((N, D))}, theirs, dtype)


def test_every_expert_has_the_same_load_and_order_does_not_matter():
    """Though the router sends all tokens to one expert first; the balance loss is 1, with nothing to gain."""
    layer = CASES["two"]
    params, x = layer.init(KEY), jax.random.normal(KEY, (N, D)).at[:, 0].set(1.0)
    params["router"]["w"] = params["router"]["w"].at[0, 2].add(5.0)
    step = jax.jit(lambda x: layer.apply(params, layer.init_state(), x, nn.EVAL))
    y, stats = step(x)
    np.testing.assert_allclose(stats.load, [0.25] * 4, rtol=0, atol=1e-7)
    np.testing.assert_allclose(stats.balance, 1, rtol=0, atol=1e-6)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_allclose(step(x[order])[0], y[order], rtol=0, atol=1e-6)


def test_a_token_that_no_expert_takes_is_zero():
    """Room for 2 of 8 tokens in each of 2 experts: the 2 that each wants most, and exactly nothing for the others."""
    logits = jnp.array([[3.0, 0], [2, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 2], [0, 3]])
    y, stats = functional.expert_choice(jnp.ones((8, 1)), logits, lambda x, dot: x, 2)
    p = np.exp([3, 2]) / (1 + np.exp([3, 2]))
    np.testing.assert_allclose(y[:, 0], [*p, 0, 0, 0, 0, *p[::-1]], rtol=0, atol=1e-6)
    assert float(stats.dropped) == 0.5


def test_masked_tokens_count_for_nothing():
    """They may hold NaN, and be so many that the experts' room is not filled: the others are those without them."""
    layer = CASES["two"]
    params, state = layer.init(KEY), layer.init_state()
    x, mask = jax.random.normal(KEY, (2, 7, D)), jnp.arange(7)[None] < jnp.array([[4], [1]])

    def expert(x, dot, params):
        return dot(jax.nn.silu(dot(x, params["gate"]["w"])) * dot(x, params["up"]["w"]), params["down"]["w"])

    def loss(params, x):
        y, after = layer.apply(params, state, x, nn.EVAL, mask=mask)
        return jnp.sum(jnp.sin(y)) + nn.moe_loss(after), (y, after)

    def alone(params, x):
        logits = x @ params["router"]["w"]
        y, after = functional.expert_choice(x, logits, lambda x, dot: expert(x, dot, params), 5)
        return jnp.sum(jnp.sin(y)) + nn.moe_loss(after), (y, after)

    grad = lambda fn: jax.jit(jax.value_and_grad(fn, (0, 1), has_aux=True))  # noqa: E731
    (_, (y, stats)), (dp, dx) = grad(loss)(params, jnp.where(mask[..., None], x, jnp.nan))
    (_, (want, wanted)), (dp_want, dx_want) = grad(alone)(params, x[mask])
    assert not np.asarray(y[~mask]).any()
    assert not np.asarray(dx[~mask]).any()
    got = (y[mask], stats, dp, dx[mask])
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves((want, wanted, dp_want, dx_want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_errors(unchecked):
    choice = lambda capacity, n=3: functional.expert_choice(  # noqa: E731
        jnp.ones((3, 2)), jnp.ones((n, 2)), lambda x, dot: x, capacity
    )
    with pytest.raises(ValueError, match="capacity is 4; want 1 <= capacity <= 3, the number of tokens"):
        choice(4)
    with pytest.raises(ValueError, match=r"x is \[3, 2\], logits \[4, 2\]"):
        choice(1, 4)
    with pytest.raises(ValueError, match="expected choice to be 'tokens' or 'experts'"):
        nn.MoE(4, 8, 2, choice="router")
    with pytest.raises(ValueError, match="leave renormalize=None"):
        nn.MoE(4, 8, 2, choice="experts", renormalize=True)
