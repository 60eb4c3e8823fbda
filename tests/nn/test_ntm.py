"""The Neural Turing Machine: a loop in torch, values and gradients; pieces of a sequence; lengths; where heads are.

Tolerances: float32 1e-5, ten roundings a step over five steps; float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, optim, tree

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
LAYERS = {
    "lstm": nn.NTM(3, 2, hidden=6, slots=5, width=4, reads=2, writes=2),
    "feedforward": nn.NTM(3, 2, hidden=6, slots=7, width=3, shifts=2, controller="feedforward"),
}


def problem(layer, dtype):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(layer.init, jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(0.7 * rng.standard_normal(s.shape).astype(dtype)), shapes)
    x = jnp.asarray(rng.standard_normal((2, 5, 3)).astype(dtype))
    return params, x, np.cos(1 + np.arange(20.0)).reshape(2, 5, 2).astype(dtype)


def torch_loop(layer, params, x, c):
    """One example, one step, one head at a time, from the equations of the paper."""
    import torch
    from torch.nn import functional as TF

    p = {path: torch.tensor(np.asarray(v), requires_grad=True) for path, v in tree.flatten(params).items()}
    xs = torch.tensor(np.asarray(x), requires_grad=True)
    n, m, r, s, d = layer.slots, layer.width, layer.reads, layer.shifts, layer.hidden
    size = m + 3 + 2 * s + 1

    def address(memory, raw, before):
        key, strength, gate, power = torch.tanh(raw[:m]), TF.softplus(raw[m]), torch.sigmoid(raw[m + 1]), raw[m + 2]
        content = torch.softmax(strength * TF.cosine_similarity(key[None], memory, dim=1), 0)
        gated = gate * content + (1 - gate) * before
        shift = torch.softmax(raw[m + 3 :], 0)
        moved = sum(shift[k + s] * torch.roll(gated, k) for k in range(-s, s + 1))
        powers = moved ** (1 + TF.softplus(power))
        return powers / powers.sum()

    outputs, places = [], []
    for example in xs:
        memory = torch.full((n, m), 1e-6, dtype=xs.dtype)
        read = torch.zeros(r, m, dtype=xs.dtype)
        first = torch.eye(n, dtype=xs.dtype)[0]
        heads = [first] * (r + layer.writes)
        h = cell = torch.zeros(d, dtype=xs.dtype)
        for given in example:
            joined = torch.cat([given, read.reshape(-1)])
            if layer.controller == "lstm":
                z = joined @ p["controller/input/w"] + p["controller/input/b"] + h @ p["controller/hidden/w"]
                i, f, g, o = z.split(d)
                cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(cell)
            else:
                h = torch.tanh(joined @ p["controller/w"] + p["controller/b"])
            raw = h @ p["heads/w"] + p["heads/b"]
            each = [raw[k * size : (k + 1) * size] for k in range(r + layer.writes)]
            written = raw[(r + layer.writes) * size :].reshape(layer.writes, 2, m)
            heads[r:] = [address(memory, each[r + k], heads[r + k]) for k in range(layer.writes)]
            for k in range(layer.writes):
                memory = memory * (1 - torch.outer(heads[r + k], torch.sigmoid(written[k, 0])))
            for k in range(layer.writes):
                memory = memory + torch.outer(heads[r + k], torch.tanh(written[k, 1]))
            heads[:r] = [address(memory, each[k], heads[k]) for k in range(r)]
            read = torch.stack([heads[k] @ memory for k in range(r)])
            outputs.append(torch.cat([h, read.reshape(-1)]) @ p["output/w"] + p["output/b"])
            places.append(torch.stack(heads))
    y = torch.stack(outputs).reshape(*xs.shape[:2], -1)
    (y * torch.tensor(c)).sum().backward()
    place = torch.stack(places).reshape(*xs.shape[:2], -1, n).detach().numpy()
    gradients = {f"d{path}": v.grad.numpy() for path, v in p.items()}
    return {"y": y.detach().numpy(), "addresses": place, "dx": xs.grad.numpy(), **gradients}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_a_loop_in_torch(name, dtype):
    layer = LAYERS[name]
    with jax.enable_x64(dtype == np.float64):
        params, x, c = problem(layer, dtype)

        def loss(params, x):
            y, _ = layer.apply(params, None, x, nn.EVAL)
            return jnp.sum(y * c), y

        (_, y), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
        where = jax.jit(layer.addresses)(params, x)
        got = {"y": y, "addresses": np.concatenate([where["read"], where["write"]], 2), "dx": dx}
        got |= {f"d{path}": g for path, g in tree.flatten(dp).items()}
        want = reference(f"ntm/{name}_{np.dtype(dtype).name}", lambda: torch_loop(layer, params, x, c))
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].dtype == dtype, key
        bound = TOLERANCE[dtype] * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[key], value, rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("name", LAYERS)
def test_pieces_of_a_sequence_give_what_the_whole_gives(name):
    layer = LAYERS[name]
    params, x, _ = problem(layer, np.float32)
    whole, last = layer.apply(params, layer.init_cache(2, 5), x, nn.EVAL)
    state, parts = layer.init_cache(2, 5), []
    for piece in (x[:, :2], x[:, 2:3], x[:, 3:]):
        y, state = layer.apply(params, state, piece, nn.EVAL)
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=0, atol=1e-6)
    np.testing.assert_allclose(layer.apply(params, None, x, nn.EVAL)[0], whole, rtol=0, atol=1e-6)
    for path, leaf in tree.flatten(last).items():
        np.testing.assert_allclose(tree.flatten(state)[path], leaf, rtol=0, atol=1e-6, err_msg=path)


def test_what_comes_after_the_length_changes_nothing():
    layer = LAYERS["lstm"]
    params, x, c = problem(layer, np.float32)
    lengths = jnp.array([2, 5])
    spoiled = x.at[0, 2:].set(jnp.nan)

    @jax.jit
    def run(params, x):
        def loss(params):
            y, carry = layer.apply(params, layer.init_cache(2, 5), x, nn.EVAL, lengths=lengths)
            return jnp.sum(y * c), (y, carry)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (y, carry)), grads = run(params, spoiled)
    short, after = layer.apply(params, layer.init_cache(2, 5), x[:, :2], nn.EVAL)
    np.testing.assert_allclose(y[0, :2], short[0], rtol=0, atol=1e-6)
    assert not y[0, 2:].any()
    np.testing.assert_allclose(carry["memory"][0], after["memory"][0], rtol=0, atol=1e-6)
    for path, grad in tree.flatten(run(params, x)[1]).items():
        np.testing.assert_array_equal(tree.flatten(grads)[path], grad, err_msg=path)
        assert np.isfinite(grad).all(), path


def test_addresses_stay_distributions():
    """Random weights, small and large, random inputs, 200 steps."""
    layer = nn.NTM(3, 2, hidden=8, slots=9, width=4, reads=2)
    addresses = jax.jit(layer.addresses)
    for seed in range(6):
        params = layer.init(jax.random.key(seed))
        params = jax.tree.map(lambda w: w * 10.0 ** (seed - 2), params)  # noqa: B023
        where = addresses(params, jax.random.normal(jax.random.key(seed), (2, 200, 3)))
        for heads in where.values():
            assert (np.asarray(heads) >= 0).all()
            np.testing.assert_allclose(np.asarray(heads, np.float64).sum(-1), 1, rtol=0, atol=1e-5)


def copy_batch(key, length, bits=4, batch=16):
    """Random bits, a mark, then silence: the bits again are the answer. `[B, 2 length + 1, bits + 1]`."""
    given = jax.random.bernoulli(key, 0.5, (batch, length, bits)).astype(jnp.float32)
    x = jnp.zeros((batch, 2 * length + 1, bits + 1)).at[:, :length, :bits].set(given).at[:, length, bits].set(1.0)
    return x, given


def test_learns_to_copy():
    """The loss of a short run on sequences of 3 falls well below that of guessing, log 2."""
    layer = nn.NTM(5, 4, hidden=32, slots=8, width=8)
    params = layer.init(jax.random.key(0))
    tx = optim.chain(optim.clip_by_global_norm(10.0), optim.adam(1e-2))

    def loss(params, key):
        x, given = copy_batch(key, 3)
        y = layer.apply(params, None, x, nn.training(None))[0][:, 4:]
        return jnp.mean(jnp.maximum(y, 0.0) - y * given + jnp.log1p(jnp.exp(-jnp.abs(y))))

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, key)
            updates, state = tx.update(grads, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), value

        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(1), 300))

    _, losses = train(params)
    assert abs(losses[0] - np.log(2)) < 0.1
    assert np.mean(losses[-20:]) < 0.3


def test_errors(unchecked):
    layer = LAYERS["lstm"]
    params, x, _ = problem(layer, np.float32)
    with pytest.raises(ValueError, match=r"shifts of 0 \.\. 1 for 4 slots"):
        nn.NTM(3, 2, slots=4, shifts=2)
    with pytest.raises(ValueError, match="at least 1"):
        nn.NTM(3, 2, reads=0)
    with pytest.raises(ValueError, match="'lstm' or 'feedforward'"):
        nn.NTM(3, 2, controller="gru")
    with pytest.raises(ValueError, match=r"expected \[..., T, 3\]"):
        layer.apply(params, None, x[0, 0], nn.EVAL)
    with pytest.raises(ValueError, match="size 3 because d_in=3, got 2"):
        layer.apply(params, None, x[..., :2], nn.EVAL)
    with pytest.raises(ValueError, match=r"'memory' is float32 of shape \(3, 5, 4\): expected .* \(2, 5, 4\)"):
        layer.apply(params, layer.init_cache(3, 5), x, nn.EVAL)
