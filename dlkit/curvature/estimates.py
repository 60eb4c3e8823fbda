"""Trace and diagonal of a matrix from products with random vectors, with confidence intervals."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dlkit.curvature.dense import as_operator

__all__ = ["Diagonal", "Estimate", "diagonal", "trace"]


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval `[low, high]`, and how often such an interval holds the true one."""

    value: float
    low: float
    high: float
    confidence: float
    products: int

    def __str__(self) -> str:
        return f"{self.value:.6g} in [{self.low:.6g}, {self.high:.6g}] with confidence {self.confidence:.0%}"


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The diagonal of a matrix as a tree like the parameters, and the standard error of each entry."""

    value: Any
    standard_error: Any
    products: int


def student_quantile(p: float, dof: int) -> float:
    """The t with P(T <= t) = p, p above 1/2, for Student's distribution."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    log_scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)

    def below(t: float) -> float:
        # With x = sqrt(dof) tan(a) the integrand is a power of a cosine, which few nodes integrate.
        end = math.atan(t / math.sqrt(dof))
        a = end * (nodes + 1) / 2
        return 0.5 + math.exp(log_scale) * math.sqrt(dof) * end / 2 * float(weights @ np.cos(a) ** (dof - 1))

    low, high = 0.0, 1.0
    while below(high) < p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < p else (low, middle)
    return high


def estimate(samples: np.ndarray, confidence: float, products: int, shift: float = 0.0) -> Estimate:
    """Mean of independent samples with Student's interval."""
    mean = float(np.mean(samples)) + shift
    if len(samples) < 2:
        return Estimate(mean, -math.inf, math.inf, confidence, products)
    error = float(np.std(samples, ddof=1)) / math.sqrt(len(samples))
    half = student_quantile(0.5 + confidence / 2, len(samples) - 1) * error
    return Estimate(mean, mean - half, mean + half, confidence, products)


def signs(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.integers(0, 2, (m, n)).astype(np.float64) * 2 - 1


def check_probes(probes: int, least: int) -> None:
    if probes < least:
        raise ValueError(f"probes must be at least {least}, got {probes}")


def trace(
    operator: Any,
    *,
    probes: int = 32,
    method: Literal["hutchinson", "hutch++"] = "hutchinson",
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The sum of the eigenvalues, estimated, with a confidence interval.

    "hutchinson": the mean of z' A z over random signs z; the error falls as 1 / sqrt(probes). "hutch++" takes the trace
    on the range of a third of the probes exactly and estimates only what is left: its error falls as 1 / probes, which
    pays where few eigenvalues carry most of the trace.

    Args:
      operator: an `Operator`, or a symmetric matrix.
      probes: products in all.
      confidence: of the interval, Student's, from the spread of the samples. Exact for normal samples only.
      seed: of the probes.

    >>> print(trace(np.diag([1.0, 2.0, 3.0]), probes=4))  # without off-diagonal entries every probe is exact
    6 in [6, 6] with confidence 95%

    Raises:
      ValueError: fewer than 2 probes (6 for "hutch++"), an unknown method, or a confidence outside (0, 1).

    References: Hutchinson 1990; Meyer, Musco, Musco and Woodruff, "Hutch++", 2021.
    """
    operator, rng = as_operator(operator), np.random.default_rng(seed)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if method not in ("hutchinson", "hutch++"):
        raise ValueError(f"method must be 'hutchinson' or 'hutch++', got {method!r}")
    check_probes(probes, 2 if method == "hutchinson" else 6)
    if method == "hutchinson":
        z = signs(rng, probes, operator.size)
        return estimate(np.einsum("mn,mn->m", z, operator.apply(z)), confidence, probes)
    third = min(probes // 3, operator.size)
    sketch = operator.apply(signs(rng, third, operator.size))
    basis = np.linalg.qr(sketch.T)[0].T  # [third, n], orthonormal rows
    inside = float(np.einsum("mn,mn->", basis, operator.apply(basis)))
    rest = probes - 2 * third
    z = signs(rng, rest, operator.size)
    z = z - (z @ basis.T) @ basis
    return estimate(np.einsum("mn,mn->m", z, operator.apply(z)), confidence, probes, shift=inside)


def diagonal(operator: Any, *, probes: int = 32, seed: int = 0) -> Diagonal:
    """The diagonal, estimated as the mean of z * (A z) over random signs z, with each entry's standard error.

    An entry's variance is the sum of squares of the rest of its row, over the number of probes.

    Args:
      operator: an `Operator`, whose `tree` shapes the result, or a symmetric matrix.
      probes: products. seed: of the probes.

    >>> diagonal(np.diag([1.0, 2.0]), probes=2).value.tolist()
    [1.0, 2.0]

    Raises:
      ValueError: fewer than 2 probes.

    Reference: Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", 2007.
    """
    check_probes(probes, 2)
    operator, rng = as_operator(operator), np.random.default_rng(seed)
    mean, squares = np.zeros(operator.size), np.zeros(operator.size)
    step = getattr(operator, "width", probes)
    for start in range(0, probes, step):  # memory of one block of probes
        z = signs(rng, min(step, probes - start), operator.size)
        for i, sample in enumerate(z * operator.apply(z), start + 1):  # Welford's update
            delta = sample - mean
            mean += delta / i
            squares += delta * (sample - mean)
    error = np.sqrt(squares / (probes - 1) / probes)
    return Diagonal(operator.tree(mean), operator.tree(error), probes)
