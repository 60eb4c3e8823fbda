"""Normalization beside torch in values and gradients, and what torch has not: weights, axes, half precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import close, fingerprint
from support.reference import reference

from dlkit import functional as F

DTYPES = [(jnp.float64, 1e-12), (jnp.float32, 1e-5)]  # rounding of sums over some ten to hundred values


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(fn, cotangent, *inputs):
    y, pull = jax.vjp(fn, *inputs)
    return y, *pull(cotangent)


def beside_torch(name, fn, torch_fn, *inputs):
    """`torch_fn(torch, *inputs)` works channels last too."""
    cotangent = np.random.default_rng(9).standard_normal(inputs[0].shape)

    def compute():
        import torch

        leaves = [torch.tensor(a, requires_grad=True) for a in inputs]
        y = torch_fn(torch, *leaves)
        y.backward(torch.tensor(cotangent))
        return {"all": fingerprint(y.detach(), *(leaf.grad for leaf in leaves))}

    want = reference(f"functional/norms/{name}", compute)["all"]
    for dtype, tolerance in DTYPES:
        got = value_and_gradients(fn, *(jnp.asarray(a, dtype) for a in (cotangent, *inputs)))
        assert all(a.dtype == dtype for a in got)
        close(fingerprint(*got), want, tolerance)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [(-1,), (1, 2)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_and_rms_norm_are_torch(axes, eps):
    x = draw(4, 5, 6) * 2 + 1
    shape = x.shape[-len(axes) :]
    scale, shift = draw(*shape, seed=1), draw(*shape, seed=2)
    beside_torch(
        f"layer_{len(axes)}_{eps}",
        lambda x, scale, shift: F.layer_norm(x, scale, shift, eps=eps, axes=axes),
        lambda torch, x, scale, shift: torch.nn.functional.layer_norm(x, shape, scale, shift, eps),
        x,
        scale,
        shift,
    )
    beside_torch(
        f"rms_{len(axes)}_{eps}",
        lambda x, scale: F.rms_norm(x, scale, eps=eps, axes=axes),
        lambda torch, x, scale: torch.nn.functional.rms_norm(x, shape, scale, eps),
        x,
        scale,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("spatial", "groups"), [((), 3), ((5,), 1), ((3, 4), 2), ((3, 2, 2), 6)])
def test_group_norm_is_torch(spatial, groups):
    x, scale, shift = draw(3, *spatial, 6) * 2 + 1, draw(6, seed=1), draw(6, seed=2)
    beside_torch(
        f"group_{len(spatial)}_{groups}",
        lambda x, scale, shift: F.group_norm(x, groups, scale, shift),
        lambda torch, x, scale, shift: torch.nn.functional.group_norm(x.movedim(-1, 1), groups, scale, shift).movedim(
            1, -1
        ),
        x,
        scale,
        shift,
    )


def batch_norm(x, scale, shift):
    return F.normalize(x, *F.batch_norm_stats(x), scale, shift)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spatial", [(), (5,), (3, 4), (3, 2, 2)])
def test_batch_norm_in_training_is_torch(spatial):
    x, scale, shift = draw(4, *spatial, 3) * 2 + 1, draw(3, seed=1), draw(3, seed=2)
    beside_torch(
        f"batch_{len(spatial)}",
        batch_norm,
        lambda torch, x, scale, shift: torch.nn.functional.batch_norm(
            x.movedim(-1, 1), None, None, scale, shift, training=True
        ).movedim(1, -1),
        x,
        scale,
        shift,
    )


@pytest.mark.usefixtures("x64")
def test_running_variance_of_torch_follows_from_the_count():
    x = draw(4, 3, 2) * 2 + 1

    def compute():
        import torch

        mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        torch.nn.functional.batch_norm(torch.tensor(x).movedim(-1, 1), mean, var, training=True, momentum=1.0)
        return {"mean": mean, "var": var}

    want = reference("functional/norms/running", compute)
    mean, var = F.batch_norm_stats(jnp.asarray(x))
    n = F.statistics_count(jnp.asarray(x))
    assert n == 12
    close(mean, want["mean"], 1e-12)
    close(var * n / (n - 1), want["var"], 1e-12)


@pytest.mark.usefixtures("x64")
def test_evaluation_with_given_statistics():
    x = draw(4, 3, 2)
    mean, var, scale, shift = np.array([1.0, -1.0]), np.array([4.0, 0.25]), np.array([2.0, 3.0]), np.array([0.5, 0.0])
    got = F.normalize(*map(jnp.asarray, (x, mean, var, scale, shift)), eps=1e-3)
    close(got, (x - mean) / np.sqrt(var + 1e-3) * scale + shift, 1e-12)


@pytest.mark.usefixtures("x64")
def test_rows_of_weight_zero_take_no_part_whatever_they_hold():
    x = draw(5, 4, 3)
    spoiled = np.concatenate([x, np.full((2, 4, 3), np.nan)])
    weight = jnp.asarray([1.0] * 5 + [0.0] * 2, jnp.float32)
    cotangent = jnp.asarray(draw(3))

    def total(x, weight):
        mean, var = F.batch_norm_stats(x, weight=weight)
        return (cotangent * (mean + var)).sum(), (mean, var)

    (_, clean), want = jax.value_and_grad(total, has_aux=True)(jnp.asarray(x), None)
    (_, stats), got = jax.value_and_grad(total, has_aux=True)(jnp.asarray(spoiled), weight)
    for a, b in zip(stats, clean, strict=True):
        close(a, b, 1e-12)
    close(got[:5], want, 1e-12)
    np.testing.assert_array_equal(got[5:], 0)
    assert F.statistics_count(jnp.asarray(spoiled), weight=weight) == 20


@pytest.mark.usefixtures("x64")
def test_weights_count_as_repetitions():
    x = draw(3, 4, 2)
    weight = np.array([[1.0, 2.0, 0.0, 3.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 4.0, 1.0]])
    rows = np.repeat(x.reshape(12, 2), weight.ravel().astype(int), axis=0)
    mean, var = F.batch_norm_stats(jnp.asarray(x), weight=jnp.asarray(weight))
    close(mean, rows.mean(0), 1e-12)
    close(var, rows.var(0), 1e-12)
    zero = F.batch_norm_stats(jnp.asarray(x), weight=jnp.zeros((3, 4)))
    np.testing.assert_array_equal(jnp.stack(zero), 0)


def test_a_large_mean_costs_no_digits_of_the_variance():
    x = np.random.default_rng(0).standard_normal((64, 8)) + 3e3
    x = x.astype(np.float32)
    _, var = F.batch_norm_stats(jnp.asarray(x))
    exact = x.astype(np.float64).var(0)
    np.testing.assert_allclose(var, exact, rtol=1e-5)
    # The one-pass formula in the same precision is useless here, so the tolerance means something.
    one_pass = np.square(x).mean(0) - np.square(x.mean(0))
    assert np.abs(one_pass / exact - 1).max() > 0.1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_float32_rounded_once(dtype):
    x = jnp.asarray(draw(8, 5, 6) * 20 + 5, dtype)
    scale, shift = jnp.asarray(draw(6, seed=1), jnp.float32), jnp.asarray(draw(6, seed=2), dtype)
    for fn in (
        F.layer_norm,
        lambda x, scale, shift: F.rms_norm(x, scale),
        lambda x, scale, shift: F.group_norm(x, 3, scale, shift),
        batch_norm,
    ):
        y = fn(x, scale, shift)
        assert y.dtype == dtype
        wide = fn(x.astype(jnp.float32), scale, shift.astype(jnp.float32))
        np.testing.assert_array_equal(y, wide.astype(dtype))
    assert all(a.dtype == jnp.float32 for a in F.batch_norm_stats(x))


def test_leading_axes_are_free():
    x = jnp.asarray(draw(2, 3, 4, 6), jnp.float32)
    close(F.group_norm(x, 2, batch_axes=2), jnp.stack([F.group_norm(row, 2) for row in x]), 1e-6)
    close(F.layer_norm(x), jax.vmap(F.layer_norm)(x), 1e-6)
    assert F.layer_norm(x[0, 0, 0]).shape == (6,)


def test_constant_inputs_have_finite_gradients():
    x = jnp.full((4, 6), 3.0)
    for fn in (
        F.layer_norm,
        F.rms_norm,
        lambda x: F.group_norm(x, 2),
        lambda x: F.normalize(x, *F.batch_norm_stats(x)),
    ):
        assert bool(jnp.isfinite(jax.jit(jax.grad(lambda x, fn=fn: (fn(x) ** 2).sum()))(x)).all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.layer_norm(x, jnp.ones(5)), r"layer_norm: scale is \[5\].*want scale \[6\]"),
        (lambda x: F.layer_norm(x, axes=3), r"axes is 3, but x is \[4, 5, 6\]"),
        (lambda x: F.layer_norm(x, axes=(1, 1)), r"distinct axes"),
        (lambda x: F.group_norm(x, 4), r"groups=4.*divide the 6 channels"),
        (lambda x: F.group_norm(x, 3, batch_axes=3), r"batch_axes=3"),
        (lambda x: F.batch_norm_stats(x, weight=jnp.ones(5)), r"weight is \[5\]"),
        (lambda x: F.batch_norm_stats(x, axes=(1,), weight=jnp.ones(4)), r"all of them reduced"),
        (lambda x: F.normalize(x, jnp.ones(6), jnp.ones(5)), r"var is \[5\]"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((4, 5, 6)))
