"""The density of eigenvalues by stochastic Lanczos quadrature."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlkit.curvature.dense import as_operator
from dlkit.curvature.estimates import check_probes, signs
from dlkit.curvature.lanczos import Krylov

__all__ = ["Density", "spectral_density"]


@dataclass(frozen=True, eq=False)
class Density:
    """A density of eigenvalues.

    Attributes:
      grid, density: the curve, smoothed by normal distributions of width `sigma`. It integrates to 1.
      standard_error: of the curve, from the spread of the probes.
      nodes, weights: `[probes, steps]`: eigenvalues and their shares, each row of weights adding up to 1.
      size: rows of the matrix.
    """

    grid: np.ndarray
    density: np.ndarray
    standard_error: np.ndarray
    sigma: float
    nodes: np.ndarray
    weights: np.ndarray
    size: int

    def mean(self, fn: Any) -> float:
        """The mean of `fn` over the eigenvalues: tr f(A) / n. Exact for each probe where f is a polynomial.

        >>> float(round(spectral_density(np.diag([1.0, 2.0, 3.0])).mean(np.square), 6))
        4.666667
        """
        return float(np.mean(np.sum(self.weights * fn(self.nodes), axis=1)))

    def share_above(self, value: float) -> float:
        """The share of eigenvalues above `value`."""
        return self.mean(lambda nodes: (nodes > value).astype(np.float64))


def spectral_density(
    operator: Any,
    *,
    probes: int = 8,
    steps: int = 60,
    sigma: float | None = None,
    points: int = 2000,
    seed: int = 0,
) -> Density:
    """The density of the eigenvalues, without finding them: Gauss quadrature from Lanczos on random vectors.

    Each probe gives `steps` nodes and weights that are exact for polynomials of degree 2 steps - 1 in z' p(A) z; their
    mean over probes is that of tr p(A) / n. The error falls as 1 / sqrt(probes n).

    Args:
      operator: an `Operator`, or a symmetric matrix.
      probes: vectors of random signs. They share the passes over the data.
      steps: of Lanczos, at most n; `probes * steps` vectors of n numbers are kept on the host.
      sigma: the width of the smoothing; None for a hundredth of the spectrum's width.
      points: of the curve. seed: of the probes.

    >>> found = spectral_density(np.diag(np.arange(10.0)))
    >>> round(float(np.sum(found.density[1:] * np.diff(found.grid))), 6)
    1.0

    Raises:
      ValueError: `probes`, `steps` below 1, or `sigma` not above 0.

    References: Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017; Ghorbani,
    Krishnan and Xiao, "An investigation into neural net optimization via Hessian eigenvalue density", 2019.
    """
    check_probes(probes, 1)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    operator, rng = as_operator(operator), np.random.default_rng(seed)
    process = Krylov(operator, signs(rng, probes, operator.size), rng)
    for _ in range(min(steps, operator.size)):
        process.step()
    found = [process.ritz(i) for i in range(probes)]
    nodes = np.stack([values for values, _, _ in found])
    weights = np.stack([inner[0] ** 2 for _, inner, _ in found])
    low, high = float(nodes.min()), float(nodes.max())
    if sigma is None:
        sigma = max(high - low, 1e-3 * (max(abs(low), abs(high)) or 1.0)) / 100
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    # The grid must resolve the narrowest peak, else the curve would not integrate to 1.
    count = max(points, math.ceil(3 * (high - low + 12 * sigma) / sigma))
    grid = np.linspace(low - 6 * sigma, high + 6 * sigma, count)
    curves = np.zeros((probes, count))
    for curve, values, shares in zip(curves, nodes, weights, strict=True):
        for value, share in zip(values, shares, strict=True):
            curve += share * np.exp(-0.5 * ((grid - value) / sigma) ** 2)
    curves /= sigma * math.sqrt(2 * math.pi)
    error = curves.std(axis=0, ddof=1) / math.sqrt(probes) if probes > 1 else np.full(count, np.inf)
    return Density(grid, curves.mean(axis=0), error, float(sigma), nodes, weights, operator.size)
