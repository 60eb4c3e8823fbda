"""Values and gradients beside torch's and optax's, in float64 (1e-12) and float32 (1e-5)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.reference import reference

from dlkit import losses

B, C, D = 6, 5, 4
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(B, C))
LABELS = RNG.integers(0, C, B)
SOFT = RNG.dirichlet(np.ones(C), B)
WEIGHTS = RNG.uniform(0.5, 2, C)
X, Y = RNG.normal(size=(B, D)), RNG.normal(size=(B, D))
OUT, TARGET = 2 * RNG.normal(size=(B, D)), 2 * RNG.normal(size=(B, D))
BITS = RNG.integers(0, 2, (B, D))
COUNTS = RNG.integers(0, 7, (B, D))
VARIANCE = RNG.uniform(0.1, 2, (B, D))
PAIRS = np.array([1, -1, 1, -1, -1, 1])
Z = RNG.normal(size=(B, D))


def torch_result(fn: Callable, x: np.ndarray, kwargs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    import torch

    x = torch.tensor(x, requires_grad=True)
    value = fn(torch, torch.nn.functional, x, **{k: torch.tensor(v) for k, v in kwargs.items()})
    # Differentiated with unequal weights, so that no sum over examples hides a permutation.
    value = value.reshape(value.shape[0], -1).mean(1)
    (value * torch.arange(1, 1 + len(value))).sum().backward()
    return {"value": value.detach().numpy(), "grad": x.grad.numpy()}


@dataclass
class Case:
    ours: Callable
    torch: Callable
    x: np.ndarray
    others: dict[str, np.ndarray] = field(default_factory=dict)


# `others` reach our function by position and torch's by name; integers stay integers.
CASES = {
    "cross_entropy_hard": Case(
        losses.cross_entropy,
        lambda t, F, x, y: F.cross_entropy(x, y, reduction="none"),
        LOGITS,
        {"y": LABELS},
    ),
    "cross_entropy_hard_smooth_weighted": Case(
        lambda x, y, w: losses.cross_entropy(x, y, label_smoothing=0.1, class_weight=w),
        lambda t, F, x, y, w: F.cross_entropy(x, y, weight=w, label_smoothing=0.1, reduction="none"),
        LOGITS,
        {"y": LABELS, "w": WEIGHTS},
    ),
    "cross_entropy_soft": Case(
        losses.cross_entropy,
        lambda t, F, x, y: F.cross_entropy(x, y, reduction="none"),
        LOGITS,
        {"y": SOFT},
    ),
    "cross_entropy_soft_smooth_weighted": Case(
        lambda x, y, w: losses.cross_entropy(x, y, label_smoothing=0.2, class_weight=w),
        lambda t, F, x, y, w: F.cross_entropy(x, y, weight=w, label_smoothing=0.2, reduction="none"),
        LOGITS,
        {"y": SOFT, "w": WEIGHTS},
    ),
    "binary_cross_entropy": Case(
        losses.binary_cross_entropy,
        lambda t, F, x, y: F.binary_cross_entropy_with_logits(x, y.to(x.dtype), reduction="none"),
        OUT,
        {"y": BITS},
    ),
    "binary_cross_entropy_pos_weight": Case(
        lambda x, y, w: losses.binary_cross_entropy(x, y, pos_weight=w),
        lambda t, F, x, y, w: F.binary_cross_entropy_with_logits(x, y.to(x.dtype), pos_weight=w, reduction="none"),
        OUT,
        {"y": BITS, "w": WEIGHTS[:D]},
    ),
    "mse": Case(losses.mse, lambda t, F, x, y: F.mse_loss(x, y, reduction="none"), OUT, {"y": TARGET}),
    "l2_loss": Case(
        losses.l2_loss,
        lambda t, F, x, y: 0.5 * F.mse_loss(x, y, reduction="none").sum(1, keepdim=True),
        OUT,
        {"y": TARGET},
    ),
    "mae": Case(losses.mae, lambda t, F, x, y: F.l1_loss(x, y, reduction="none"), OUT, {"y": TARGET}),
    "huber": Case(
        partial(losses.huber, delta=0.7),
        lambda t, F, x, y: F.huber_loss(x, y, delta=0.7, reduction="none"),
        OUT,
        {"y": TARGET},
    ),
    "smooth_l1": Case(
        partial(losses.smooth_l1, beta=0.7),
        lambda t, F, x, y: F.smooth_l1_loss(x, y, beta=0.7, reduction="none"),
        OUT,
        {"y": TARGET},
    ),
    "smooth_l1_beta_0": Case(
        partial(losses.smooth_l1, beta=0),
        lambda t, F, x, y: F.smooth_l1_loss(x, y, beta=0.0, reduction="none"),
        OUT,
        {"y": TARGET},
    ),
    "multiclass_hinge": Case(
        losses.multiclass_hinge,
        lambda t, F, x, y: C * F.multi_margin_loss(x, y, reduction="none"),
        LOGITS,
        {"y": LABELS},
    ),
    "multiclass_hinge_margin": Case(
        partial(losses.multiclass_hinge, margin=2.5),
        lambda t, F, x, y: C * F.multi_margin_loss(x, y, margin=2.5, reduction="none"),
        LOGITS,
        {"y": LABELS},
    ),
    "logistic": Case(
        losses.logistic,
        lambda t, F, x, y: F.soft_margin_loss(x, y.to(x.dtype), reduction="none"),
        OUT,
        {"y": 2 * BITS - 1},
    ),
    "kl_divergence": Case(
        lambda x, p: losses.kl_divergence(jax.nn.log_softmax(x), p),
        lambda t, F, x, p: F.kl_div(F.log_softmax(x, 1), p, reduction="none").sum(1),
        LOGITS,
        {"p": SOFT},
    ),
    "kl_divergence_log_targets": Case(
        lambda x, p: losses.kl_divergence(jax.nn.log_softmax(x), p, log_targets=True),
        lambda t, F, x, p: F.kl_div(F.log_softmax(x, 1), p, reduction="none", log_target=True).sum(1),
        LOGITS,
        {"p": np.log(SOFT)},
    ),
    "poisson_nll": Case(
        losses.poisson_nll,
        lambda t, F, x, y: F.poisson_nll_loss(x, y, reduction="none"),
        OUT,
        {"y": COUNTS},
    ),
    "poisson_nll_rates": Case(
        partial(losses.poisson_nll, log_input=False),
        lambda t, F, x, y: F.poisson_nll_loss(x, y, log_input=False, reduction="none"),
        VARIANCE,
        {"y": COUNTS},
    ),
    "gaussian_nll": Case(
        partial(losses.gaussian_nll, full=True),
        lambda t, F, x, y, v: F.gaussian_nll_loss(x, y, v, full=True, reduction="none"),
        OUT,
        {"y": TARGET, "v": VARIANCE},
    ),
    "gaussian_nll_variance": Case(
        lambda v, m, y: losses.gaussian_nll(m, y, v),
        lambda t, F, x, m, y: F.gaussian_nll_loss(m, y, x, reduction="none"),
        VARIANCE,
        {"m": OUT, "y": TARGET},
    ),
    "cosine_distance": Case(losses.cosine_distance, lambda t, F, x, y: 1 - F.cosine_similarity(x, y), X, {"y": Y}),
    "cosine_embedding": Case(
        partial(losses.cosine_embedding, margin=0.1),
        lambda t, F, x, y, p: F.cosine_embedding_loss(x, y, p, margin=0.1, reduction="none"),
        X,
        {"y": Y, "p": PAIRS},
    ),
    "triplet": Case(
        partial(losses.triplet, margin=0.8),
        lambda t, F, x, p, n: F.triplet_margin_loss(x, p, n, margin=0.8, eps=0.0, reduction="none"),
        X,
        {"p": Y, "n": Z},
    ),
}


def value_and_grad(fn: Callable, x: np.ndarray, others: Mapping[str, Any], dtype: Any):
    def cast(value):
        value = np.asarray(value)
        return jnp.asarray(value, dtype if value.dtype.kind == "f" else jnp.int32)

    rest = [cast(value) for value in others.values()]

    @jax.jit
    def both(x):
        value, pull = jax.vjp(lambda x: fn(x, *rest), x)
        return value, pull(jnp.arange(1, 1 + len(value), dtype=value.dtype))[0]

    value, grad = both(cast(x))
    assert value.dtype == grad.dtype == dtype
    return value, grad


def check(fn, x, others, expected, dtype):
    value, grad = value_and_grad(fn, x, others, dtype)
    assert value.shape == expected["value"].shape
    # float32 holds 7 digits; values here are of order 1 to 10 and sums have at most 5 terms.
    tolerance = 1e-12 if dtype == jnp.float64 else 1e-5
    np.testing.assert_allclose(value, expected["value"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(grad, expected["grad"], rtol=tolerance, atol=tolerance)


def from_torch(name: str) -> dict[str, np.ndarray]:
    case = CASES[name]
    return reference(f"losses/{name}", lambda: torch_result(case.torch, case.x, case.others))


@pytest.mark.parametrize("name", CASES)
def test_torch_float64(name, x64):
    case = CASES[name]
    check(case.ours, case.x, case.others, from_torch(name), jnp.float64)


@pytest.mark.parametrize("name", CASES)
def test_torch_float32(name):
    case = CASES[name]
    check(case.ours, case.x, case.others, from_torch(name), jnp.float32)


def mean(fn: Callable) -> Callable:
    return lambda *args: fn(*args).mean(axis=-1)


OPTAX = {
    "cross_entropy_hard": (
        losses.cross_entropy,
        optax.softmax_cross_entropy_with_integer_labels,
        LOGITS,
        LABELS,
    ),
    "cross_entropy_soft": (losses.cross_entropy, optax.softmax_cross_entropy, LOGITS, SOFT),
    "binary_cross_entropy": (
        losses.binary_cross_entropy,
        mean(optax.sigmoid_binary_cross_entropy),
        OUT,
        BITS.astype(float),
    ),
    "l2_loss": (losses.l2_loss, lambda x, y: optax.l2_loss(x, y).sum(-1), OUT, TARGET),
    "huber": (
        partial(losses.huber, delta=0.7),
        mean(lambda x, y: optax.huber_loss(x, y, delta=0.7)),
        OUT,
        TARGET,
    ),
    "log_cosh": (losses.log_cosh, mean(optax.log_cosh), OUT, TARGET),
    "hinge": (losses.hinge, mean(optax.hinge_loss), OUT, 2.0 * BITS - 1),
    "logistic": (
        losses.logistic,
        mean(lambda x, y: optax.sigmoid_binary_cross_entropy(x, (y + 1) / 2)),
        OUT,
        2.0 * BITS - 1,
    ),
    "crammer_singer": (
        partial(losses.multiclass_hinge, variant="crammer_singer"),
        jax.vmap(optax.losses.multiclass_hinge_loss),
        LOGITS,
        LABELS,
    ),
    "kl_divergence": (losses.kl_divergence, optax.losses.kl_divergence, np.log(SOFT), SOFT[::-1].copy()),
    "binary_focal": (
        partial(losses.binary_focal, gamma=1.5, alpha=0.3),
        mean(lambda x, y: optax.losses.sigmoid_focal_loss(x, y, alpha=0.3, gamma=1.5)),
        OUT,
        BITS.astype(float),
    ),
    "cosine_distance": (losses.cosine_distance, optax.cosine_distance, X, Y),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax_float64(name, x64):
    ours, theirs, x, y = OPTAX[name]
    value, grad = value_and_grad(theirs, x, {"y": y}, jnp.float64)
    check(ours, x, {"y": y}, {"value": np.asarray(value), "grad": np.asarray(grad)}, jnp.float64)
