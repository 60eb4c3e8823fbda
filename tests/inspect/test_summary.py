"""Summaries: totals counted by hand, FLOPs against closed forms, and a billion parameters in no time."""

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import models, nn
from dlkit.inspect import flops, summary


@pytest.mark.parametrize(
    ("model", "shape", "parameters", "state"),
    [
        (models.mlp((784, 512, 256, 10)), (1, 784), 535_818, 0),
        (models.cnn((8, 8, 1), 10, (16, 32)), (2, 8, 8, 1), 6_090, 0),
        (models.resnet20(), (1, 32, 32, 3), 269_722, 2 * (7 * 16 + 6 * 32 + 6 * 64)),
    ],
)
def test_totals_equal_hand_counts(model, shape, parameters, state):
    s = summary(model, shape)
    assert (s.parameters, s.trainable, s.nbytes) == (parameters, parameters, 4 * parameters)
    assert sum(row.size for row in s.rows if row.kind == "state") == state
    assert s.output_shape == (shape[0], 10)
    text = str(s)
    assert f"{parameters:,}" in text
    assert all(row.path in text for row in s.rows)


def test_mlp_flops_are_two_a_weight():
    s = summary(nn.Linear(64, 32, bias=False), (8, 64))
    assert s.flops == 2 * 8 * 64 * 32
    # The whole network: matmuls, one addition a bias, one maximum a ReLU.
    assert summary(models.mlp((64, 32, 10)), (8, 64)).flops == 8 * (2 * (64 * 32 + 32 * 10) + 32 + 10 + 32)


def test_convolution_flops_leave_out_the_padding():
    s = summary(nn.Conv(3, 5, 3, padding="VALID", bias=False), (2, 10, 9, 3))
    assert s.flops == 2 * 2 * 8 * 7 * 9 * 3 * 5


def test_resnet20_flops_against_a_count_by_hand():
    # The taps of a row of n outputs that fall inside the picture: 3 n - 2, or 3 n - 1 at stride 2.
    taps = 94**2 * (3 * 16 + 6 * 16 * 16)
    taps += 47**2 * 16 * 32 + 46**2 * 5 * 32 * 32
    taps += 23**2 * 32 * 64 + 22**2 * 5 * 64 * 64
    counted = summary(models.resnet20(), (1, 32, 32, 3)).flops
    assert counted is not None
    # Norms, shortcuts and maxima are a little more than one operation an activation.
    assert 2 * (taps + 640) < counted < 2 * (taps + 640) * 1.02


@pytest.mark.parametrize("scan", [True, False])
def test_a_scanned_stack_counts_every_block(scan):
    block = nn.Residual(nn.Linear(16, 16, bias=False))
    counted = summary(nn.Stack(block, 12, scan=scan), (4, 16)).flops
    assert counted == pytest.approx(12 * 4 * (2 * 16 * 16 + 16), rel=0.01)


def test_nested_scans_and_loops_of_unknown_length():
    inner = nn.Stack(nn.Linear(8, 8, bias=False), 5)
    assert summary(nn.Stack(inner, 3), (2, 8)).flops == pytest.approx(15 * 2 * 2 * 64, rel=0.05)

    def until_large(x):
        return jax.lax.while_loop(lambda x: jnp.all(x < 10), lambda x: 2 * x, x)

    assert flops(until_large, jnp.ones(3)) is None


@dataclass(frozen=True)
class Copy(nn.Pure[Any]):
    def __call__(self, params, x):
        return x[..., ::-1]


def test_unknown_is_said_and_never_0():
    s = summary(Copy(), (4, 3))
    assert s.flops is None
    assert "FLOPs       unknown" in str(s)
    assert "FLOPs" not in str(summary(nn.Linear(2, 3)))


def test_frozen_and_state_are_told_apart():
    s = summary(nn.Chain(nn.Linear(4, 3), nn.BatchNorm(3), head=nn.Linear(3, 2)), (5, 4), frozen="linear1/**")
    kinds = {row.path: row.kind for row in s.rows}
    assert kinds["linear1/w"] == "frozen"
    assert kinds["head/w"] == "trainable"
    assert kinds["batch_norm1/mean"] == "state"
    assert (s.parameters, s.trainable) == (15 + 6 + 8, 6 + 8)
    assert "frozen 15" in str(s)
    with pytest.raises(ValueError, match="matches none"):
        summary(nn.Linear(4, 3), frozen="nothing/**")


def test_dtypes_and_bytes():
    s = summary(nn.Embedding(10, 4), (3,), dtype=jnp.int32)
    assert s.output_shape == (3, 4)
    assert s.rows[0].nbytes == 160


@pytest.mark.parametrize("like", [np.ones((8, 4), np.float16), jax.ShapeDtypeStruct((8, 4), "float16")])
def test_an_input_stands_for_its_shape_and_dtype(like):
    model = nn.Chain(nn.Rescale(2.0), nn.Relu())
    assert summary(model, like) == summary(model, (8, 4), dtype="float16")


def test_a_wrong_input_names_the_layer():
    with pytest.raises(ValueError, match="d_in=4") as info:
        summary(nn.Chain(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)), (5, 3))
    assert any("linear3" in note for note in info.value.__notes__)


def test_a_billion_parameters_in_two_seconds_with_nothing_allocated():
    model = models.mlp((4096, 16384, 16384, 16384, 16384, 16384, 10), norm="layer")
    before = {id(a) for a in jax.live_arrays()}
    started = time.process_time()
    s = summary(model, (1, 4096))
    seconds = time.process_time() - started
    largest = max((a.nbytes for a in jax.live_arrays() if id(a) not in before), default=0)
    assert s.parameters > 1_000_000_000
    assert s.flops is not None
    assert s.flops > 2_000_000_000
    assert largest < 1_000_000
    assert seconds < 2
