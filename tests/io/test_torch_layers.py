"""Layers of torch with random weights: outputs after `from_torch`, and the same state_dict back, bit for bit.

Tolerance 1e-5 relative to the largest output: float32, sums of fewer than 100 terms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import io, nn

IMAGE = ("image", (2, 6, 6, 4))
TEXT = ("text", (2, 5, 4))

# name: ours, what makes torch's, the input (channels last), names of modules
CASES = {
    "linear": (nn.Linear(4, 3), lambda t: t.Linear(4, 3), TEXT),
    "linear_no_bias": (nn.Linear(4, 3, bias=False), lambda t: t.Linear(4, 3, bias=False), TEXT),
    "conv": (
        nn.Conv(4, 6, 3, stride=2, padding=1, groups=2),
        lambda t: t.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        IMAGE,
    ),
    "conv1d": (nn.Conv(4, 6, 3, padding=0, dims=1), lambda t: t.Conv1d(4, 6, 3), ("image", (2, 6, 4))),
    "conv_transpose": (
        nn.ConvTranspose(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        lambda t: t.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGE,
    ),
    "batch_norm": (nn.BatchNorm(4, eps=1e-4), lambda t: t.BatchNorm2d(4, eps=1e-4), IMAGE),
    "layer_norm": (nn.LayerNorm(4), lambda t: t.LayerNorm(4), TEXT),
    "rms_norm": (nn.RMSNorm(4, eps=1e-6), lambda t: t.RMSNorm(4, eps=1e-6), TEXT),
    "group_norm": (nn.GroupNorm(2, 4), lambda t: t.GroupNorm(2, 4), IMAGE),
    "instance_norm": (nn.InstanceNorm(4, affine=True), lambda t: t.InstanceNorm2d(4, affine=True), IMAGE),
    "embedding": (nn.Embedding(9, 4), lambda t: t.Embedding(9, 4), ("ids", (2, 5))),
    "prelu": (nn.PRelu(4), lambda t: t.PReLU(4), IMAGE),
    "rnn": (nn.RNN(4, 3, "relu"), lambda t: t.RNN(4, 3, nonlinearity="relu", batch_first=True), TEXT),
    "lstm_deep_both": (
        nn.DeepRNN(nn.LSTM(4, 3), 2, bidirectional=True),
        lambda t: t.LSTM(4, 3, 2, bidirectional=True, batch_first=True),
        TEXT,
    ),
    "lstm_projection": (nn.LSTM(4, 3, projection=2), lambda t: t.LSTM(4, 3, proj_size=2, batch_first=True), TEXT),
    "gru_both": (
        nn.Bidirectional(nn.GRU(4, 3)),
        lambda t: t.GRU(4, 3, bidirectional=True, batch_first=True),
        TEXT,
    ),
    "gru_deep_no_bias": (
        nn.DeepRNN(nn.GRU(4, 3, bias=False), 3),
        lambda t: t.GRU(4, 3, 3, bias=False, batch_first=True),
        TEXT,
    ),
    "attention": (nn.MultiHeadAttention(4, 2), lambda t: t.MultiheadAttention(4, 2, batch_first=True), TEXT),
    "attention_no_bias": (
        nn.MultiHeadAttention(4, 2, bias=False),
        lambda t: t.MultiheadAttention(4, 2, bias=False, batch_first=True),
        TEXT,
    ),
}


def inputs(kind, shape):
    rng = np.random.default_rng(1)
    return rng.integers(0, 9, shape) if kind == "ids" else rng.standard_normal(shape).astype(np.float32)


def from_live_torch(name):
    import torch

    _, make, (kind, shape) = CASES[name]
    torch.manual_seed(0)
    module = make(torch.nn).eval()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():  # norms too start with numbers that differ
                value.copy_(torch.rand_like(value) + (0.5 if "var" in key else -0.5))
        x = torch.tensor(inputs(kind, shape))
        if kind == "image":
            x = x.movedim(-1, 1)
        y = module(x, x, x) if isinstance(module, torch.nn.MultiheadAttention) else module(x)
        y = y[0] if isinstance(y, tuple) else y
        y = y.movedim(1, -1) if kind == "image" else y
    return {f"w:{k}": v.numpy() for k, v in module.state_dict().items()} | {"y": y.numpy()}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", CASES)
def test_layer(name):
    layer, _, (kind, shape) = CASES[name]
    told = reference(f"io/torch_layers/{name}", lambda: from_live_torch(name))
    weights = {k[2:]: v for k, v in told.items() if k.startswith("w:")}
    params, state, report = io.from_torch(layer, weights)
    x = inputs(kind, shape)
    y, _ = layer.apply(params, state, jnp.asarray(x, jnp.int32 if kind == "ids" else jnp.float32), nn.EVAL)
    assert np.abs(np.asarray(y) - told["y"]).max() <= 1e-5 * np.abs(told["y"]).max()
    assert {*report.used, *report.skipped} == weights.keys()
    back = io.to_torch(layer, params, state)
    assert all(back[k].tobytes() == v.tobytes() and back[k].shape == v.shape for k, v in weights.items() if k in back)
    assert back.keys() == set(report.used)


def test_report_of_a_model_lists_every_kind(key):
    model = nn.Chain(conv=nn.Conv(3, 4, 3), norm=nn.BatchNorm(4), head=nn.Linear(4, 2))
    state = io.to_torch(model, model.init(key))
    assert sorted(state)[:3] == ["conv.bias", "conv.weight", "head.bias"]
    io.from_torch(model, state | {"norm.num_batches_tracked": np.array(3)})
    wrong = {k: v for k, v in state.items() if k != "norm.running_var"}
    wrong |= {"head.weight": np.zeros((5, 4), np.float32), "fc.weight": np.zeros(3, np.float32)}
    with pytest.raises(io.WeightsError) as failed:
        io.from_torch(model, wrong)
    report = failed.value.report
    assert report.missing == ("norm.running_var",)
    assert report.unexpected == ("fc.weight",)
    assert report.mismatched == ("head.weight: expected [2, 4], got [5, 4]",)
    assert len(report.used) == 6
    report = io.from_torch(model, wrong, strict=False)[2]
    assert report.kept == ("params/head/w", "state/norm/var")


def test_what_torch_does_not_have_is_refused():
    with pytest.raises(TypeError, match="no peepholes"):
        io.torch_sources(nn.LSTM(2, 3, peephole=True))
    with pytest.raises(TypeError, match="no zoneout"):
        io.torch_sources(nn.Zoneout(nn.LSTM(2, 3), 0.1))
    assert io.torch_sources(nn.VariationalDropout(nn.LSTM(2, 3), 0.1)) == io.torch_sources(nn.LSTM(2, 3))
    with pytest.raises(TypeError, match="Maxout at m has parameters"):
        io.torch_sources(nn.Chain(m=nn.Maxout(2, 3)))
    assert jax.tree.leaves(io.torch_sources(nn.Relu())) == []
