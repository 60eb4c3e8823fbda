"""Recurrent layers with torch's weights: outputs, final states, and the gradients of all weights and of the input.

The weights go over as torch names them, so the mapping below is the import of a `state_dict`. Tolerances: float32 1e-5,
a few roundings of sums of at most a hundred terms; float64 1e-12.

The cases `*_deep_both_lengths` are ask 51 (weights of torch); gate order and `forget_bias`: `test_recurrent.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import nn, tree

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
D_IN, D, BATCH, TIME = 3, 4, 3, 5
LENGTHS = np.array([5, 2, 3])

# name: our layer, torch's class and its keywords, whether rows have lengths
CASES = {
    "rnn_relu": (nn.RNN(D_IN, D, "relu"), "RNN", {"nonlinearity": "relu"}, False),
    "rnn_deep_both_lengths": (
        nn.DeepRNN(nn.RNN(D_IN, D), 2, bidirectional=True),
        "RNN",
        {"num_layers": 2, "bidirectional": True},
        True,
    ),
    "gru": (nn.GRU(D_IN, D), "GRU", {}, False),
    "gru_no_bias_lengths": (nn.GRU(D_IN, D, bias=False), "GRU", {"bias": False}, True),
    "gru_deep_both_lengths": (
        nn.DeepRNN(nn.GRU(D_IN, D), 2, bidirectional=True),
        "GRU",
        {"num_layers": 2, "bidirectional": True},
        True,
    ),
    "lstm": (nn.LSTM(D_IN, D), "LSTM", {}, False),
    "lstm_deep": (nn.DeepRNN(nn.LSTM(D_IN, D), 3), "LSTM", {"num_layers": 3}, False),
    "lstm_deep_both_lengths": (
        nn.DeepRNN(nn.LSTM(D_IN, D), 2, bidirectional=True),
        "LSTM",
        {"num_layers": 2, "bidirectional": True},
        True,
    ),
    "lstm_projection_both_lengths": (
        nn.DeepRNN(nn.LSTM(D_IN, D, projection=2), 2, bidirectional=True),
        "LSTM",
        {"num_layers": 2, "bidirectional": True, "proj_size": 2},
        True,
    ),
}
NAMES = {"input/w": "weight_ih", "hidden/w": "weight_hh", "input/b": "bias_ih", "hidden/b": "bias_hh"}
NAMES |= {"projection/w": "weight_hr"}


def torch_name(path):
    """`layers/1/backward/input/w` is `weight_ih_l1_reverse`. Matrices are transposed."""
    *where, part, leaf = path.split("/")
    level = where[1] if "layers" in where else "0"
    return f"{NAMES[f'{part}/{leaf}']}_l{level}" + ("_reverse" if "backward" in where else "")


def from_state_dict(layer, state):
    """The parameters of `layer`, from torch's `state_dict`."""
    shapes = jax.eval_shape(layer.init, jax.random.key(0))
    return tree.map_with_path(lambda path, _: jnp.asarray(state[torch_name(path)].T), shapes)


def random_state_dict(layer, rng, dtype):
    shapes = tree.flatten(jax.eval_shape(layer.init, jax.random.key(0)))
    return {torch_name(p): (0.5 * rng.standard_normal(s.shape[::-1])).astype(dtype) for p, s in shapes.items()}


def carries(layer, state):
    """The final carries in torch's order, `[layers directions, B, size]` of each of h and c."""
    if isinstance(layer, nn.DeepRNN):
        held = [one for level in state["layers"] for one in (level.values() if "forward" in level else [level])]
    else:
        held = [state]
    return {f"{name}_n": jnp.stack([one[name] for one in held]) for name in held[0]}


def compare(name, dtype):
    layer, module, keywords, with_lengths = CASES[name]
    rng = np.random.default_rng(3)
    state = random_state_dict(layer, rng, dtype)
    x = rng.standard_normal((BATCH, TIME, D_IN)).astype(dtype)
    c = rng.standard_normal((BATCH, TIME, layer.d_out)).astype(dtype)

    def compute():
        import torch
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        kind = torch.float64 if dtype is np.float64 else torch.float32
        theirs = getattr(torch.nn, module)(D_IN, D, batch_first=True, **keywords).to(kind)
        theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        given = torch.tensor(x, requires_grad=True)
        held = given
        if with_lengths:
            held = pack_padded_sequence(given, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
        y, final = theirs(held)
        if with_lengths:
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=TIME)
        final = dict(zip(("h_n", "c_n"), final if module == "LSTM" else (final,), strict=False))
        ((y * torch.tensor(c)).sum() + sum(torch.sin(one).sum() for one in final.values())).backward()
        found = {"y": y, "dx": given.grad, **final, **{f"d{k}": p.grad for k, p in theirs.named_parameters()}}
        return {k: v.detach().numpy() for k, v in found.items()}

    want = reference(f"nn/recurrent/{name}_{np.dtype(dtype).name}", compute)
    inputs = {"lengths": jnp.asarray(LENGTHS)} if with_lengths else {}
    if with_lengths:
        x = np.where(np.arange(TIME)[None, :, None] < LENGTHS[:, None, None], x, np.nan)  # what torch never sees

    def loss(params, x):
        y, final = layer.apply(params, layer.init_cache(BATCH, TIME, dtype), x, nn.EVAL, **inputs)
        final = carries(layer, final)
        return jnp.sum(c * y) + sum(jnp.sin(one).sum() for one in final.values()), {"y": y, **final}

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, got), (dp, dx) = run(from_state_dict(layer, state), jnp.asarray(x))
    got |= {"dx": dx, **{f"d{torch_name(path)}": g.T for path, g in tree.flatten(dp).items()}}
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].dtype == dtype, key
        bound = TOLERANCE[dtype] * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[key], value, rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float32(name):
    compare(name, np.float32)


@pytest.mark.parametrize("name", CASES)
def test_torch_in_float64(name, x64):
    compare(name, np.float64)
