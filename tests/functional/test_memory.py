"""Addresses and the memory: torch and plain loops, values and gradients; addresses stay distributions.

Tolerances: float64 1e-12; float32 sums to 1 within 1e-5 after hundreds of steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional as F

B, H, N, M, S = 2, 3, 6, 4, 3


def inputs():
    rng = np.random.default_rng(2)

    def distribution(*shape):
        w = rng.uniform(size=shape)
        return w / w.sum(-1, keepdims=True)

    return {
        "memory": rng.standard_normal((B, N, M)),
        "key": rng.standard_normal((B, H, M)),
        "strength": rng.uniform(0, 5, (B, H)),
        "before": distribution(B, H, N),
        "gate": rng.uniform(size=(B, H)),
        "shift": distribution(B, H, S),
        "power": rng.uniform(1, 3, (B, H)),
        "erase": rng.uniform(size=(B, H, M)),
        "add": rng.standard_normal((B, H, M)),
    }


def weigh(shape):
    """The weights of a sum of the outputs."""
    return np.cos(1 + np.arange(np.prod(shape))).reshape(shape)


def step(p):
    """One step of all heads, through every function."""
    w = F.content_address(p["memory"], p["key"], p["strength"])
    w = F.interpolate_address(w, p["before"], p["gate"])
    w = F.sharpen_address(F.shift_address(w, p["shift"]), p["power"])
    memory = F.write_memory(p["memory"], w, p["erase"], p["add"])
    return {"address": w, "memory": memory, "read": F.read_memory(memory, w)}


def torch_step():
    """The equations of the paper, one slot and one head at a time."""
    import torch

    p = {name: torch.tensor(value, requires_grad=True) for name, value in inputs().items()}
    addresses, memories, reads = [], [], []
    for b in range(B):
        heads = []
        for h in range(H):
            cosine = [torch.nn.functional.cosine_similarity(p["key"][b, h], p["memory"][b, i], dim=0) for i in range(N)]
            content = torch.softmax(p["strength"][b, h] * torch.stack(cosine), 0)
            gated = p["gate"][b, h] * content + (1 - p["gate"][b, h]) * p["before"][b, h]
            turn = [[(i - j + 1) % N for j in range(N)] for i in range(N)]  # which shift takes slot j to slot i
            moved = [sum(gated[j] * p["shift"][b, h, k] for j, k in enumerate(row) if k < S) for row in turn]
            powers = torch.stack(moved) ** p["power"][b, h]
            heads.append(powers / powers.sum())
        memory = p["memory"][b]
        for h in range(H):
            memory = memory * (1 - torch.outer(heads[h], p["erase"][b, h]))
        for h in range(H):
            memory = memory + torch.outer(heads[h], p["add"][b, h])
        addresses.append(torch.stack(heads))
        memories.append(memory)
        reads.append(torch.stack([sum(heads[h][i] * memory[i] for i in range(N)) for h in range(H)]))
    out = {"address": torch.stack(addresses), "memory": torch.stack(memories), "read": torch.stack(reads)}
    sum((torch.tensor(weigh(y.shape)) * y).sum() for y in out.values()).backward()
    values = {name: y.detach().numpy() for name, y in out.items()}
    return values | {f"d{name}": value.grad.numpy() for name, value in p.items()}


def test_one_step_equals_torch(x64):
    def loss(p):
        out = step(p)
        return sum(jnp.sum(weigh(y.shape) * y) for y in out.values()), out

    p = jax.tree.map(jnp.asarray, inputs())
    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(p)
    got = out | {f"d{name}": g for name, g in grads.items()}
    want = reference("memory/step", torch_step)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_addresses_stay_distributions_over_many_steps():
    """Random heads, sharp and flat, for 300 steps in float32."""
    rng = np.random.default_rng(0)

    def advance(carry, key):
        memory, w = carry
        k = jax.random.split(key, 8)
        scale = 10 ** jax.random.uniform(k[0], (), minval=-2.0, maxval=2.0)
        content = F.content_address(memory, jax.random.normal(k[1], (H, M)), scale * jax.random.uniform(k[2], (H,)))
        w = F.interpolate_address(content, w, jax.random.uniform(k[3], (H,)))
        w = F.shift_address(w, F.softmax(scale * jax.random.normal(k[4], (H, S))))
        w = F.sharpen_address(w, 1 + scale * jax.random.uniform(k[5], (H,)))
        add = jax.random.normal(k[6], (H, M))
        return (F.write_memory(memory, w, jax.random.uniform(k[7], (H, M)), add), w), w

    first = jnp.zeros((H, N)).at[:, 0].set(1.0)
    memory = jnp.asarray(rng.standard_normal((N, M)).astype(np.float32))
    _, ws = jax.jit(lambda keys: jax.lax.scan(advance, (memory, first), keys))(jax.random.split(jax.random.key(0), 300))
    assert (np.asarray(ws) >= 0).all()
    np.testing.assert_allclose(np.asarray(ws, np.float64).sum(-1), 1, rtol=0, atol=1e-5)


def test_gradients_are_finite_where_formulas_divide_by_zero():
    """An empty memory, a key of zeros, an address of exact zeros, a large power."""

    def loss(memory, key, address, power):
        w = F.content_address(memory, key, jnp.ones(1))
        return jnp.sum(jnp.sin(F.sharpen_address(address, power))) + jnp.sum(w**2)

    address = jnp.array([[1.0, 0.0, 0.0]])
    grads = jax.grad(loss, (0, 1, 2, 3))(jnp.zeros((3, 2)), jnp.zeros((1, 2)), address, jnp.array([50.0]))
    assert all(np.isfinite(g).all() for g in grads)
    assert F.sharpen_address(address, jnp.array([50.0])).tolist() == [[1, 0, 0]]
    tiny = F.sharpen_address(jnp.array([1e-20, 3e-20]), jnp.array(3.0))  # 1e-60 is 0 in float32
    np.testing.assert_allclose(tiny, [1 / 28, 27 / 28], rtol=1e-5)


def test_shifts_go_around():
    w = jnp.array([0.0, 0.0, 1.0])
    assert F.shift_address(w, jnp.array([0.0, 0.0, 1.0])).tolist() == [1, 0, 0]
    assert F.shift_address(w, jnp.array([1.0, 0.0, 0.0])).tolist() == [0, 1, 0]
    assert F.shift_address(w, jnp.ones(1)).tolist() == w.tolist()


def test_writing_with_sharp_heads_replaces_slots():
    memory = jnp.arange(6.0).reshape(3, 2)
    address = jnp.array([[0.0, 1.0, 0.0]])
    new = F.write_memory(memory, address, jnp.ones((1, 2)), jnp.array([[7.0, 8.0]]))
    assert new.tolist() == [[0, 1], [7, 8], [4, 5]]
    assert F.read_memory(new, address).tolist() == [[7, 8]]


def test_dtype_stays():
    p = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), inputs())
    assert {y.dtype for y in step(p).values()} == {jnp.dtype(jnp.bfloat16)}


def test_errors(unchecked):
    with pytest.raises(ValueError, match=r"memory is \[3, 2\] and key is \[1, 4\]"):
        F.content_address(jnp.ones((3, 2)), jnp.ones((1, 4)), jnp.ones(1))
    with pytest.raises(ValueError, match="shift has 2 entries for 3 slots; want an odd number"):
        F.shift_address(jnp.ones(3), jnp.ones(2))
