"""Mixture of experts against a loop over tokens and experts: values, gradients, losses, who is dropped.

Tolerances: float32 1e-5 relative to the largest value, sums of at most 24 terms; float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional, nn, optim, tree

N, D, HIDDEN, E = 21, 6, 8, 4
KEY = jax.random.key(0)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
CASES = {
    "mixtral": nn.MoE(D, HIDDEN, E, 2),
    "raw_weights": nn.MoE(D, HIDDEN, E, 3, renormalize=False, activation=nn.Gelu()),
    "switch": nn.MoE(D, HIDDEN, E, 1, gated=False, activation=nn.Relu()),
    "room_for_all": nn.MoE(D, HIDDEN, E, 2, capacity_factor=100.0),
    "capacity": nn.MoE(D, HIDDEN, E, 2, capacity_factor=0.8),
}


def arrays_of(layer, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(layer.init, KEY)
    return {p: (rng.standard_normal(a.shape) * 0.7).astype(dtype) for p, a in tree.flatten(shapes).items()}


def run_torch(layer, arrays, x, cotangent):
    """A loop over choices, in order of preference, then tokens: an expert with no room left says nothing."""
    import torch
    import torch.nn.functional as F

    held = {p: torch.tensor(a, requires_grad=True) for p, a in arrays.items()}
    t = torch.tensor(x, requires_grad=True)
    logits = t @ held["router/w"]
    p = torch.softmax(logits, -1)
    weights, experts = torch.topk(p, layer.top_k)
    if layer.renormalize or (layer.renormalize is None and layer.top_k > 1):
        weights = weights / weights.sum(-1, keepdim=True)
    act = {nn.Silu: F.silu, nn.Gelu: F.gelu, nn.Relu: F.relu}[type(layer.activation)]
    room = [layer.capacity(N) or N * layer.top_k] * E
    rows, kept, load = [torch.zeros(D, dtype=t.dtype) for _ in range(N)], 0, torch.zeros(E, dtype=t.dtype)
    for choice in range(layer.top_k):
        for n in range(N):
            e = int(experts[n, choice])
            load[e] += 1 / (N * layer.top_k)
            if room[e] == 0:
                continue
            room[e] -= 1
            kept += 1
            up = t[n] @ held["up/w"][e]
            h = act(t[n] @ held["gate/w"][e]) * up if layer.gated else act(up)
            rows[n] = rows[n] + weights[n, choice] * (h @ held["down/w"][e])
    y = torch.stack(rows)
    balance = E * (load * p.mean(0)).sum()
    z = (torch.logsumexp(logits, -1) ** 2).mean()
    ((y * torch.tensor(cotangent)).sum() + 0.3 * balance + 0.2 * z).backward()
    grads = {f"grad/{path}": leaf.grad.numpy() for path, leaf in held.items()}
    stats = {"balance": balance.detach().numpy(), "z": z.detach().numpy(), "load": load.numpy()}
    dropped = np.asarray(1 - kept / (N * layer.top_k))
    return {"y": y.detach().numpy(), "x": t.grad.numpy(), **stats, "dropped": dropped, **grads}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_losses_are_those_of_a_loop(name, dtype):
    layer = CASES[name]
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(1)
        arrays = arrays_of(layer, dtype)
        x, cotangent = (rng.standard_normal((N, D)).astype(dtype) for _ in range(2))
        want = reference(f"nn/moe/{name}_{dtype}", lambda: run_torch(layer, arrays, x, cotangent))
        state = jax.tree.map(lambda a: a.astype(dtype), layer.init_state())

        def loss(params, x):
            y, after = layer.apply(params, state, x, nn.EVAL)
            return jnp.sum(y * cotangent) + nn.moe_loss(after, balance=0.3, z=0.2), (y, after)

        params = tree.map_with_path(lambda path, _: jnp.asarray(arrays[path]), jax.eval_shape(layer.init, KEY))
        step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (_, (y, stats)), (grads, grad_x) = step(params, jnp.asarray(x))
        got = {"y": y, "x": grad_x, **stats._asdict()} | {f"grad/{p}": g for p, g in tree.flatten(grads).items()}
        assert got.keys() == want.keys()
        for key, value in got.items():
            bound = TOLERANCE[dtype] * max(1.0, np.abs(want[key]).max())
            assert np.abs(np.asarray(value) - want[key]).max() <= bound, key
        assert (float(stats.dropped) > 0.1) == (name == "capacity")


@pytest.mark.parametrize("implementation", ["blocks", "ragged"])
def test_both_dropless_products(implementation):
    """Gradients and second derivatives too; the experts' sizes here range from none to most of the tokens."""
    rng = np.random.default_rng(2)
    n, count = 150, 4
    logits = jnp.asarray(rng.standard_normal((n, count)) + np.array([3.0, 0.0, 1.0, -50.0]), jnp.float32)
    x, w = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in [(n, 5), (count, 5, 5)])

    def run(x, w, logits):
        y, _ = functional.moe(x, logits, lambda x, dot: jnp.tanh(dot(x, w)), 2, implementation=implementation)
        return y

    def dense(x, w, logits):
        weights, experts = functional.route(logits, 2)
        every = jnp.tanh(jnp.einsum("nd,edh->neh", x, w))
        return jnp.einsum("nkh,nk->nh", jnp.take_along_axis(every, experts[..., None], 1), weights)

    def measures(fn):
        def loss(x, w, logits):
            return jnp.sum(jnp.sin(fn(x, w, logits)))

        def along(x):
            return jnp.sum(jax.grad(loss)(x, w, logits) * jnp.cos(x))

        return jax.jit(lambda: (fn(x, w, logits), jax.grad(loss, (0, 1, 2))(x, w, logits), jax.grad(along)(x)))()

    for a, b in zip(*(jax.tree.leaves(measures(fn)) for fn in (run, dense)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(jnp.abs(b).max())))


def test_blocks_have_every_mode():
    """Forward mode and both orders of the two modes, where tokens and weights move: those of `ragged_dot`."""
    rng = np.random.default_rng(2)
    x, w, *moves = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((N, D), (E, D, D), (N, D), (E, D, D))
    )
    logits = jnp.asarray(rng.standard_normal((N, E)), jnp.float32)

    def products(implementation):
        def f(x, w):
            return jnp.sin(functional.moe(x, logits, lambda a, dot: dot(a, w), 2, implementation=implementation)[0])

        gradient = jax.grad(lambda *a: f(*a).sum(), (0, 1))
        forward = lambda *a: jax.jvp(f, a, tuple(moves))[1]  # noqa: E731
        return (
            forward(x, w),
            jax.grad(lambda *a: jnp.square(forward(*a)).sum(), (0, 1))(x, w),
            jax.jvp(gradient, (x, w), tuple(moves))[1],
        )

    ragged, blocks = (jax.tree.leaves(jax.jit(lambda i=i: products(i))()) for i in ("ragged", "blocks"))
    for want, got in zip(ragged, blocks, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(jnp.abs(want).max()))


def test_what_is_kept_is_exact_and_what_is_dropped_passes():
    """All tokens want one expert that has room for three: those three get its output, the others nothing at all."""
    layer = nn.MoE(D, HIDDEN, E, 1, capacity_factor=3 * E / N)
    params = layer.init(KEY)
    params["router"]["w"] = jnp.zeros((D, E)).at[0, 2].set(9.0)
    x = jax.random.normal(jax.random.key(1), (N, D)).at[:, 0].set(1.0)
    y, stats = layer.apply(params, layer.init_state(), x, nn.EVAL)
    h = jax.nn.silu(x @ params["gate"]["w"][2]) * (x @ params["up"]["w"][2])
    want = jax.nn.softmax(x @ params["router"]["w"])[:, 2:3] * (h @ params["down"]["w"][2])
    np.testing.assert_allclose(y[:3], want[:3], atol=1e-6)
    assert np.array_equal(y[3:], np.zeros((N - 3, D)))
    assert abs(float(stats.dropped) - (1 - 3 / N)) < 1e-6
    np.testing.assert_allclose(stats.load, [0, 0, 1, 0])
    free, stats = nn.MoE(D, HIDDEN, E, 1).apply(params, layer.init_state(), x, nn.EVAL)
    np.testing.assert_allclose(free, want, atol=1e-6)
    assert float(stats.dropped) == 0


@pytest.mark.parametrize("factor", [None, 0.5])
def test_masked_tokens_count_for_nothing(factor):
    """They may hold NaN: the others' outputs, gradients and statistics are those without them."""
    layer = nn.MoE(D, HIDDEN, E, 2, capacity_factor=factor)
    params, state = layer.init(KEY), layer.init_state()
    x = jax.random.normal(jax.random.key(1), (2, 7, D))
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    capacity = layer.capacity(14)

    def loss(params, x, mask):
        y, after = layer.apply(params, state, x, nn.EVAL, mask=mask)
        return jnp.sum(jnp.sin(y)) + nn.moe_loss(after), (y, after)

    (_, (y, stats)), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        params, jnp.where(mask[..., None], x, jnp.nan), mask
    )
    real = x[mask]

    def alone(params, x):
        def expert(x, dot):
            h = jax.nn.silu(dot(x, params["gate"]["w"])) * dot(x, params["up"]["w"])
            return dot(h, params["down"]["w"])

        y, after = functional.moe(x, x @ params["router"]["w"], expert, 2, capacity=capacity)
        return jnp.sum(jnp.sin(y)) + nn.moe_loss(after), (y, after)

    (_, (want, wanted)), expected = jax.jit(jax.value_and_grad(alone, (0, 1), has_aux=True))(params, real)
    np.testing.assert_allclose(y[mask], want, atol=1e-6)
    assert np.array_equal(y[~mask], np.zeros((3, D)))
    assert (float(stats.dropped) > 0) == (factor is not None)
    for a, b in zip(stats, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for path, grad in tree.flatten(grads[0]).items():
        np.testing.assert_allclose(grad, tree.flatten(expected[0])[path], atol=1e-5, err_msg=path)
    np.testing.assert_allclose(grads[1][mask], expected[1], atol=1e-5)
    assert np.array_equal(grads[1][~mask], np.zeros((3, D)))


@pytest.mark.parametrize("order", ["pre", "parallel"])
def test_padding_of_a_block_takes_no_room(order):
    """What stands in the padding of a batch changes no token and no statistic, through a stack of blocks."""
    plain = nn.transformer_block(D, 2, causal=True)
    experts = nn.MoE(D, HIDDEN, E, 2, capacity_factor=0.5)
    model = nn.Stack(nn.TransformerBlock(plain.attention, experts, plain.norm1, plain.norm2, order=order), 2)
    params, state = model.init(KEY), model.init_state()
    real = jnp.arange(7)[None] < jnp.array([[7], [4]])
    x, other = (jax.random.normal(jax.random.key(i), (2, 7, D)) for i in (1, 2))
    step = jax.jit(lambda x, mask: model.apply(params, state, x, nn.EVAL, mlp_mask=mask))
    spoilt = jnp.where(real[..., None], x, other)
    one, two = step(x, real), step(spoilt, real)
    np.testing.assert_allclose(one[0][real], two[0][real], atol=1e-6)
    for a, b in zip(one[1]["mlp"], two[1]["mlp"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    everywhere = jnp.ones_like(real)
    assert not np.allclose(step(x, everywhere)[1]["mlp"].balance, step(spoilt, everywhere)[1]["mlp"].balance)


def test_the_balance_loss_balances():
    """A router that starts with all tokens on one expert: with the loss the load evens out, without it does not."""
    layer = nn.MoE(8, 8, experts=4, top_k=1)
    teacher = nn.Linear(8, 8).init(jax.random.key(5))
    start = layer.init(KEY)
    start["router"]["w"] = start["router"]["w"].at[0].add(jnp.array([4.0, 0, 0, 0]))
    x = jax.random.normal(jax.random.key(1), (256, 8)).at[:, 0].set(1.0)
    y = x @ teacher["w"]
    tx = optim.adam(0.02)

    @jax.jit
    def train(params, weight):
        def loss(params):
            out, after = layer.apply(params, layer.init_state(), x, nn.training(None))
            return jnp.mean((out - y) ** 2) + nn.moe_loss(after, weight, 0.0), after

        def step(held, _):
            grads, after = jax.grad(loss, has_aux=True)(held[0])
            updates, opt = tx.update(grads, held[1], held[0])
            return (optim.apply_updates(held[0], updates), opt), after.load

        return jax.lax.scan(step, (params, tx.init(params)), length=400)[1]

    with_loss, without = train(start, 0.3), train(start, 0.0)
    assert float(with_loss[0].max()) > 0.8
    assert float(with_loss[-20:].mean(0).var()) < 0.1 * float(without[-1].var())
    assert float(with_loss[-20:].mean(0).max()) < 0.45


def test_the_losses_of_a_stack_reach_every_router():
    """Two routers in a scanned stack, inside of a model: the loss is their sum, its gradient is in both."""
    usual = nn.transformer_block(D, 2, causal=True)
    block = nn.TransformerBlock(usual.attention, nn.MoE(D, HIDDEN, E), nn.LayerNorm(D), nn.LayerNorm(D))
    model = nn.Chain(blocks=nn.Stack(block, 2, remat="full"))
    params, state = model.init(KEY), model.init_state()
    x = jax.random.normal(jax.random.key(1), (2, 5, D))

    def loss(params):
        _, after = model.apply(params, state, x, nn.training(None))
        return nn.moe_loss(after, 1.0, 0.0), after

    (value, after), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    stats = after["blocks"]["mlp"]
    assert stats.load.shape == (2, E)
    np.testing.assert_allclose(value, stats.balance.sum(), rtol=1e-6)
    assert all(float(jnp.abs(g).max()) > 0 for g in grads["blocks"]["mlp"]["router"]["w"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.MoE(4, 8, 2, 3), "top_k in 1 .. experts=2"),
        (lambda: nn.MoE(4, 8, 2, capacity_factor=0.0), "capacity_factor above 0"),
        (lambda: nn.moe_loss({"a": jnp.zeros(())}), "no RouterStats"),
        (lambda: functional.moe(jnp.ones((3, 2)), jnp.ones((4, 2)), lambda x, dot: x, 1), r"x is \[3, 2\]"),
        (lambda: functional.moe(jnp.ones((3, 2)), jnp.ones((3, 2)), lambda x, dot: x, 1, capacity=0), "capacity is 0"),
        (lambda: functional.route(jnp.ones((3, 2)), 3), "k is 3; want 1 <= k <= 2"),
        (lambda: run(nn.MoE(4, 8, 2), mask=jnp.ones((3, 1), bool)), r"mask of shape \(3, 1\)"),
    ],
)
def test_errors(make, words, unchecked):
    with pytest.raises(ValueError, match=words):
        make()


def run(layer, **inputs):
    return layer.apply(layer.init(KEY), layer.init_state(), jnp.ones((3, 4)), nn.EVAL, **inputs)
