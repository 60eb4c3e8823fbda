"""The gradient noise scale: how large a batch pays."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.curvature.estimates import student_quantile
from dlkit.curvature.objective import Counted, Term, as_objective, check_real, mass
from dlkit.optim.second_order import vectors

__all__ = ["NoiseScale", "gradient_noise_scale"]


@dataclass(frozen=True)
class NoiseScale:
    """The gradient's noise beside its size.

    Attributes:
      value: tr(C) / |G|^2, in examples: the "simple" noise scale, an estimate of the critical batch size, at which a
        step of a batch makes half the progress of a step with the full gradient. Infinite where the gradient drowns.
      low, high: its confidence interval (jackknife over batches).
      covariance_trace: tr(C), C the covariance of the gradient of a single example.
      square_norm: |G|^2 of the true gradient, unbiased: it may be negative where there is nothing but noise.
      batches, batch_size: from what it was estimated.
    """

    value: float
    low: float
    high: float
    confidence: float
    covariance_trace: float
    square_norm: float
    batches: int
    batch_size: float

    @property
    def critical_batch_size(self) -> float:
        """`value`, by the name of what it predicts (McCandlish et al., section 2.2)."""
        return self.value

    def __str__(self) -> str:
        return f"noise scale {self.value:.4g} examples in [{self.low:.4g}, {self.high:.4g}] ({self.confidence:.0%})"


@functools.lru_cache(maxsize=64)
def _program(term: Term) -> Counted:
    def measure(mean: Any, params: Any, state: Any, batch: Any) -> Any:
        grad = vectors.wide(jax.grad(term.value)(params, state, batch))
        return grad, vectors.dot(grad, grad), vectors.dot(grad, mean), mass(batch)

    return Counted(measure)


def unbiased(small: Any, big: Any, b: Any, total: Any) -> tuple[Any, Any]:
    """(tr C, |G|^2) from the mean square norm of gradients of batches of b, and that of all `total` examples."""
    square = (total * big - b * small) / (total - b)
    return (small - big) / (1 / b - 1 / total), square


def gradient_noise_scale(loss: Any, params: Any, *, confidence: float = 0.95) -> NoiseScale:
    """The noise scale at `params` from the gradients of the objective's batches, in two passes over them.

    The square norm of a batch's gradient is |G|^2 + tr(C) / B in expectation; batches and their union give two such
    equations. Batches smaller than the first, such as a filled last one, are left out. The data should be shuffled, and
    the estimate is sharper with more and smaller batches.

    Args:
      loss: an `Objective` with at least 4 batches.
      params: where.
      confidence: of the interval.

    Raises:
      ValueError: fewer than 4 full batches.

    Reference: McCandlish, Kaplan, Amodei and the OpenAI Dota team, "An empirical model of large-batch training", 2018,
    equations 2.9 and A.1.
    """
    objective = as_objective(loss)
    check_real("gradient_noise_scale", params)
    program = _program(objective.term)
    zero = jax.tree.map(jnp.zeros_like, vectors.wide(params))
    total, count, first, sizes = zero, 0, None, []
    for batch in objective.batches(params):
        grad, _, _, much = program(zero, params, objective.state, batch)
        sizes.append(float(much))
        first = sizes[0]
        if sizes[-1] == first:
            total, count = vectors.add(total, grad), count + 1
    if count < 4 or first is None:
        raise ValueError(
            f"the noise scale needs at least 4 full batches, got {count}: a smaller batch_size of the Objective "
            "(and data in a list of batches, a Loader, or Arrays)"
        )
    mean = vectors.times(1 / count, total)
    squares, products = [], []
    for batch, size in zip(objective.batches(params), sizes, strict=True):
        if size == first:
            _, square, product, _ = program(mean, params, objective.state, batch)
            squares.append(float(square))
            products.append(float(product))
    small, across, big = np.asarray(squares), np.asarray(products), float(vectors.dot(mean, mean))
    found = unbiased(small.mean(), big, first, first * count)
    # Without batch i: the mean gradient is (n mean - g_i) / (n - 1).
    n = count
    without = (n**2 * big - 2 * n * across + small) / (n - 1) ** 2
    noise, signal = unbiased((small.sum() - small) / (n - 1), without, first, first * (n - 1))
    covariance, square = float(found[0]), float(found[1])
    if square <= 0:
        return NoiseScale(math.inf, 0.0, math.inf, confidence, covariance, square, n, first)
    # The ratio is skewed, its inverse hardly: the interval is that of |G|^2 / tr(C).
    inverse = square / covariance
    error = math.sqrt((n - 1) / n * float(np.sum((signal / noise - np.mean(signal / noise)) ** 2)))
    half = student_quantile(0.5 + confidence / 2, n - 1) * error
    high = 1 / (inverse - half) if inverse > half else math.inf
    return NoiseScale(1 / inverse, 1 / (inverse + half), high, confidence, covariance, square, n, first)
