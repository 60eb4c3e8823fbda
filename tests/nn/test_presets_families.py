"""Ask 10 for layers of several weights: transposed convolution, recurrence, attention. Mean, std, bounds within 2 %.

Each layer is drawn many times, so that biases are as many as weights: their mean then has a standard error of 0.5 %.
"""

import flax.linen as fnn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.distributions import assert_same_statistics, statistics
from support.reference import reference

from dlkit import nn, tree
from dlkit.nn import init_preset

ONE = {"w": "weight", "b": "bias"}
GATES = {
    "input/w": "weight_ih_l0", "hidden/w": "weight_hh_l0", "input/b": "bias_ih_l0", "hidden/b": "bias_hh_l0",
}  # fmt: skip
JOINT = {"q/w": "in_proj_weight[0]", "k/w": "in_proj_weight[1]", "v/w": "in_proj_weight[2]"}
JOINT |= {"q/b": "in_proj_bias[0]", "k/b": "in_proj_bias[1]", "v/b": "in_proj_bias[2]"}
APART = {f"{name}/w": f"{name}_proj_weight" for name in "qkv"} | {k: v for k, v in JOINT.items() if k.endswith("b")}
OUT = {"out/w": "out_proj.weight", "out/b": "out_proj.bias"}

# name: the layer, torch's module, its names for our leaves, how often it is drawn
TORCH = {
    "conv_transpose1d": (nn.ConvTranspose(4, 64, 3, dims=1), ("ConvTranspose1d", (4, 64, 3), {}), ONE, 800),
    "conv_transpose2d": (nn.ConvTranspose(4, 64, 3, stride=2), ("ConvTranspose2d", (4, 64, 3, 2), {}), ONE, 800),
    "conv_transpose2d_grouped": (
        nn.ConvTranspose(8, 64, 3, groups=4), ("ConvTranspose2d", (8, 64, 3), {"groups": 4}), ONE, 800
    ),
    "conv_transpose3d": (nn.ConvTranspose(2, 64, 2, dims=3), ("ConvTranspose3d", (2, 64, 2), {}), ONE, 800),
    "rnn": (nn.RNN(24, 32), ("RNN", (24, 32), {}), GATES, 1600),
    "gru": (nn.GRU(24, 32), ("GRU", (24, 32), {}), GATES, 500),
    "lstm": (nn.LSTM(24, 32), ("LSTM", (24, 32), {}), GATES, 400),
    "lstm_projection": (
        nn.LSTM(24, 32, projection=12), ("LSTM", (24, 32), {"proj_size": 12}), GATES | {"projection/w": "weight_hr_l0"},
        400,
    ),
    "attention": (nn.MultiHeadAttention(64, 4), ("MultiheadAttention", (64, 4), {}), JOINT | OUT, 16),
    "attention_of_a_memory": (
        nn.MultiHeadAttention(64, 4, d_memory=64), ("MultiheadAttention", (64, 4), {}), JOINT | OUT, 16
    ),
    "attention_of_another_width": (
        nn.MultiHeadAttention(64, 4, d_memory=32), ("MultiheadAttention", (64, 4), {"kdim": 32, "vdim": 32}),
        APART | OUT, 24,
    ),
    "additive_attention": (
        nn.AdditiveAttention(32, 64, 48), ("Linear", (64, 48), {}), {"k/w": "weight", "k/b": "bias"}, 1000
    ),
}  # fmt: skip
MANY = 64  # draws of a layer of flax, whose biases are 0
x = jnp.zeros((1, 6, 64))
FLAX = {
    "conv_transpose1d": (nn.ConvTranspose(4, 64, 3, dims=1), fnn.ConvTranspose(64, (3,)), (x[..., :4],)),
    "conv_transpose2d": (
        nn.ConvTranspose(4, 64, 3, stride=2), fnn.ConvTranspose(64, (3, 3), strides=(2, 2)), (x[..., None, :4],)
    ),
    "conv_transpose3d": (
        nn.ConvTranspose(2, 64, 2, stride=(1, 2, 2), dims=3), fnn.ConvTranspose(64, (2, 2, 2), strides=(1, 2, 2)),
        (x[..., None, None, :2],),
    ),
    "rnn": (nn.RNN(24, 64), fnn.SimpleCell(64), (x[:, 0], x[:, 0, :24])),
    "gru": (nn.GRU(24, 64), fnn.GRUCell(64), (x[:, 0], x[:, 0, :24])),
    "lstm": (nn.LSTM(24, 64), fnn.LSTMCell(64), ((x[:, 0], x[:, 0]), x[:, 0, :24])),
    "attention": (nn.MultiHeadAttention(64, 4), fnn.MultiHeadDotProductAttention(4), (x, x)),
    "attention_of_another_width": (
        nn.MultiHeadAttention(64, 4, d_memory=32), fnn.MultiHeadDotProductAttention(4), (x, x[..., :32])
    ),
}  # fmt: skip
FLAX_PARTS = {"query": "q", "key": "k", "value": "v", "out": "out"}


def each(init, key, many):
    # One after another: batches of QR decompositions in several places of one program can block XLA's threads on CPU.
    return jax.jit(lambda keys: jax.lax.map(init, keys))(jax.random.split(key, many))


def drawn(layer, many):
    """Every leaf of `many` draws."""
    return tree.flatten(each(layer.init, jax.random.key(0), many))


@pytest.mark.parametrize("name", TORCH)
def test_torch(name):
    layer, (module, arguments, keywords), names, many = TORCH[name]

    def compute():
        import torch

        torch.manual_seed(0)
        found = {leaf: [] for leaf in names}
        for _ in range(many):
            theirs = getattr(torch.nn, module)(*arguments, **keywords)
            for leaf, where in names.items():
                path, _, third = where.partition("[")
                values = theirs.get_parameter(path).detach().numpy()
                found[leaf].append(np.split(values, 3)[int(third[0])] if third else values)
        kinds = {leaf: statistics(values) for leaf, values in found.items()}
        return {f"{leaf}_{k}": v for leaf, values in kinds.items() for k, v in values.items()}

    want = reference(f"nn/presets_families/{name}", compute)
    got = drawn(init_preset(layer, "torch"), many)
    assert names.keys() == got.keys() or name == "additive_attention"
    for leaf in names:
        expected = {k: want[f"{leaf}_{k}"] for k in ("mean", "std", "low", "high")}
        assert_same_statistics(statistics(got[leaf]), expected, f"{name}/{leaf}", bounded=True)


def ours(name, path):
    """Our leaf for a leaf of flax, whose gates are layers of their own: `ii`, `if`, ... and `hi`, `hf`, ..."""
    *parts, leaf = path.split("/")
    leaf = {"kernel": "w", "bias": "b"}[leaf]
    if name.startswith("attention"):
        return f"{FLAX_PARTS[parts[0]]}/{leaf}"
    return f"{'input' if parts[0].startswith('i') else 'hidden'}/{leaf}" if parts else leaf


@pytest.mark.parametrize("name", FLAX)
def test_flax(name):
    layer, theirs, inputs = FLAX[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = each(lambda key: theirs.init(key, *inputs), jax.random.key(1), MANY)
    want = {}
    for path, value in tree.flatten(found["params"]).items():
        want.setdefault(ours(name, path), []).append(np.asarray(value).ravel())
    got = drawn(init_preset(layer, "flax"), MANY)
    assert want.keys() <= got.keys()
    for leaf, value in got.items():
        if leaf not in want:  # flax has one bias where torch and dlkit have two
            assert leaf.endswith("/b")
            np.testing.assert_array_equal(value, 0)
            continue
        orthogonal = leaf == "hidden/w"  # its entries have no bound of their own
        expected = statistics(np.concatenate(want[leaf]))
        assert_same_statistics(statistics(value), expected, f"{name}/{leaf}", bounded=not orthogonal)
        if orthogonal:
            one = np.split(np.asarray(value[0], np.float64), value.shape[-1] // 64, axis=1)
            for gate in one:
                np.testing.assert_allclose(gate.T @ gate, np.eye(64), atol=1e-5)  # float32
