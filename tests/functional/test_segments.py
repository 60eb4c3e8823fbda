"""Segment operations: torch's scatter_reduce, values and gradients; padding, empty segments, ties, large logits.

Tolerances: float32 1e-5, sums of a handful of terms; float64 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import functional as F

N, E = 5, 12
IDS = np.array([0, 3, 3, 1, 0, 4, 3, -1, 0, 5, 1, 3])  # segment 2 is empty, -1 and 5 are no segments
REDUCE = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}


def problem(dtype, ties=False):
    rng = np.random.default_rng(3)
    data = rng.standard_normal((E, 3)).astype(dtype)
    # Not at 0: torch counts the 0 that it starts from among the equal maxima, though told to leave it out.
    return (np.round(data) + dtype(0.25) if ties else data), rng.standard_normal((N, 3)).astype(dtype)


def torch_reduce(how, data, c):
    """`scatter_reduce` on the rows that belong to a segment."""

    def compute():
        import torch

        x = torch.tensor(data, requires_grad=True)
        inside = (IDS >= 0) & (IDS < N)
        index = torch.tensor(IDS[inside])[:, None].expand(-1, data.shape[1])
        zeros = torch.zeros(c.shape, dtype=x.dtype)
        y = zeros.scatter_reduce(0, index, x[torch.tensor(inside)], REDUCE[how], include_self=False)
        (y * torch.tensor(c)).sum().backward()
        return {"y": y.detach().numpy(), "dx": x.grad.numpy()}

    return compute


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("how", REDUCE)
def test_reductions_equal_torch(how, ties):
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-12)):
        with jax.enable_x64(dtype == np.float64):
            data, c = problem(dtype, ties)

            def loss(x, c=c):
                y = getattr(F, f"segment_{how}")(x, jnp.asarray(IDS), N)
                return jnp.sum(y * c), y

            (_, y), dx = jax.jit(jax.value_and_grad(loss, has_aux=True))(data)
            name = f"segments/{how}_{'ties' if ties else 'plain'}_{np.dtype(dtype).name}"
            want = reference(name, torch_reduce(how, data, c))
            assert y.dtype == dtype
            np.testing.assert_allclose(y, want["y"], rtol=0, atol=tolerance)
            np.testing.assert_allclose(dx, want["dx"], rtol=0, atol=tolerance)


def test_softmax_equals_torch(x64):
    """Each segment by torch's softmax over its rows."""
    data, _ = problem(np.float64)
    c = np.cos(np.arange(E * 3.0)).reshape(E, 3)

    def compute():
        import torch

        x = torch.tensor(data, requires_grad=True)
        rows = [torch.zeros(3, dtype=x.dtype)] * E
        for s in range(N):
            members = np.flatnonzero(s == IDS)
            for i, p in zip(members, torch.softmax(x[members], 0), strict=True):
                rows[i] = p
        y = torch.stack(rows)
        (y * torch.tensor(c)).sum().backward()
        return {"y": y.detach().numpy(), "dx": x.grad.numpy()}

    def loss(x):
        y = F.segment_softmax(x, jnp.asarray(IDS), N)
        return jnp.sum(y * c), y

    (_, y), dx = jax.jit(jax.value_and_grad(loss, has_aux=True))(data)
    want = reference("segments/softmax", compute)
    np.testing.assert_allclose(y, want["y"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx, want["dx"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["sum", "mean", "max", "min", "softmax"])
def test_rows_of_no_segment_may_hold_anything(how):
    data, _ = problem(np.float32)
    outside = (IDS < 0) | (IDS >= N)
    spoiled = np.where(outside[:, None], np.float32(np.nan), data)

    def loss(x):
        y = getattr(F, f"segment_{how}")(x, jnp.asarray(IDS), N)
        return jnp.sum(jnp.sin(y)), y

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, y), dx = run(data)
    (_, y_spoiled), dx_spoiled = run(spoiled)
    assert np.array_equal(y, y_spoiled)
    assert np.array_equal(dx, dx_spoiled)
    assert np.isfinite(dx).all()
    assert not np.asarray(dx)[outside].any()


def test_softmax_of_extreme_logits():
    logits = jnp.array([1e30, 1e30, -1e30, -jnp.inf, -jnp.inf, 3.0])
    ids = jnp.array([0, 0, 0, 1, 1, 2])
    p, grad = jax.value_and_grad(lambda x: jnp.sum(F.segment_softmax(x, ids, 3)[:1]))(logits)
    y = F.segment_softmax(logits, ids, 3)
    assert y.tolist() == [0.5, 0.5, 0.0, 0.0, 0.0, 1.0]
    assert np.isfinite(p)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtype_stays_and_sums_are_wide(dtype):
    ones = jnp.ones((1000, 1), dtype)
    ids = jnp.zeros(1000, jnp.int32)
    y = F.segment_sum(ones, ids, 1)
    assert y.dtype == dtype
    assert float(y[0, 0]) == 1000  # summed in bfloat16 it stops at 256
    assert F.segment_mean(ones, ids, 1).dtype == F.segment_softmax(ones, ids, 1).dtype == dtype
    assert F.degree(ids, 2).tolist() == [1000, 0]


def test_integers_and_no_rows():
    assert F.segment_sum(jnp.array([1, 2]), jnp.array([1, 1]), 2).tolist() == [0, 3]
    assert F.segment_max(jnp.array([-1, -2]), jnp.array([1, 1]), 2).tolist() == [0, -1]
    none = jnp.zeros((0, 3))
    for how in ("sum", "mean", "max", "min"):
        assert getattr(F, f"segment_{how}")(none, jnp.zeros(0, jnp.int32), 2).tolist() == [[0.0] * 3] * 2


def test_sorted_ids_give_the_same():
    data, _ = problem(np.float32)
    order = np.argsort(IDS, kind="stable")
    for how in ("sum", "mean", "max", "min"):
        fn = getattr(F, f"segment_{how}")
        got = fn(jnp.asarray(data[order]), jnp.asarray(IDS[order]), N, indices_are_sorted=True)
        np.testing.assert_allclose(got, fn(jnp.asarray(data), jnp.asarray(IDS), N), rtol=0, atol=1e-6)


def test_take_rows_is_the_adjoint_of_segment_sum():
    data, c = problem(np.float32)
    grad = jax.grad(lambda x: jnp.sum(F.segment_sum(x, jnp.asarray(IDS), N) * c))(data)
    np.testing.assert_array_equal(grad, F.take_rows(jnp.asarray(c), jnp.asarray(IDS)))


def test_errors(unchecked):
    with pytest.raises(ValueError, match=r"segment_sum: data is \[3, 2\] and ids are \[4\]"):
        F.segment_sum(jnp.ones((3, 2)), jnp.zeros(4, jnp.int32), 2)
    with pytest.raises(ValueError, match="num_segments is -1"):
        F.segment_max(jnp.ones(3), jnp.zeros(3, jnp.int32), -1)
    with pytest.raises(ValueError, match="'prod'"):
        F.aggregate(jnp.ones(3), jnp.zeros(3, jnp.int32), 2, "prod")
