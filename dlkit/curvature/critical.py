"""What kind of point the gradient vanishes at."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dlkit.curvature.lanczos import top_eigenpairs
from dlkit.curvature.objective import as_objective
from dlkit.curvature.products import hessian_product

__all__ = ["CriticalPoint", "classify_critical_point"]

Kind = Literal["minimum", "maximum", "saddle", "degenerate", "not critical"]


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """What `classify_critical_point` found.

    Attributes:
      kind: "minimum", "maximum", "saddle"; "degenerate" where an eigenvalue is zero and the others have one sign, so
        that the second derivatives do not decide; "not critical" where the gradient is not zero.
      smallest, largest: the extreme eigenvalues of the Hessian.
      negative: how many eigenvalues are negative (the index of a saddle); None where not all were computed.
      eigenvalues: all of them, ascending, where the matrix was small; else None.
      grad_norm: the length of the gradient.
      tolerance: what counts as zero among the eigenvalues.
    """

    kind: Kind
    smallest: float
    largest: float
    negative: int | None
    eigenvalues: np.ndarray | None
    grad_norm: float
    tolerance: float

    def __str__(self) -> str:
        index = "" if self.negative is None else f", {self.negative} negative"
        return (
            f"{self.kind}: eigenvalues from {self.smallest:.4g} to {self.largest:.4g}{index}, "
            f"|gradient| {self.grad_norm:.2g}"
        )


def classify_critical_point(
    loss: Any, params: Any, *, rtol: float = 1e-4, step_tol: float = 1e-3, dense: int = 1000, seed: int = 0
) -> CriticalPoint:
    """Minimum, maximum, saddle or degenerate, by the extreme eigenvalues of the Hessian.

    Args:
      loss: an `Objective`, or a scalar function of the parameters.
      params: the point.
      rtol: an eigenvalue below `rtol` times the largest |eigenvalue| counts as zero.
      step_tol: the point is critical if |gradient| is at most `step_tol` times the largest |eigenvalue|, times
        max(1, |params|): if the nearest stationary point of a quadratic would be about so far.
      dense: up to so many parameters all eigenvalues are computed; above, the two extreme ones by Lanczos.
      seed: of Lanczos.

    >>> import jax.numpy as jnp
    >>> print(classify_critical_point(lambda p: p["x"] * p["y"], {"x": jnp.array(0.0), "y": jnp.array(0.0)}))
    saddle: eigenvalues from -1 to 1, 1 negative, |gradient| 0

    Raises:
      TypeError: parameters that are not real; a loss that is no real scalar.
    """
    objective = as_objective(loss)
    _, grad = objective.value_and_grad(params)
    operator = hessian_product(objective, params)
    gradient, at = operator.vector(grad), operator.vector(params)
    eigenvalues = None
    if operator.size <= dense:
        eigenvalues = np.linalg.eigvalsh(operator.matrix(limit=dense))
        low, high, error = float(eigenvalues[0]), float(eigenvalues[-1]), 0.0
    else:
        ends = [top_eigenpairs(operator, which=which, tol=rtol / 2, seed=seed) for which in ("smallest", "largest")]
        low, high = (float(end.values[0]) for end in ends)
        error = max(float(end.residuals[0]) for end in ends)
    scale = max(abs(low), abs(high))
    tolerance = max(rtol * scale, 4 * operator.rounding * scale, error)
    grad_norm = float(np.linalg.norm(gradient))
    kind: Kind
    if grad_norm > step_tol * max(scale, np.finfo(np.float32).tiny) * max(1.0, float(np.linalg.norm(at))):
        kind = "not critical"
    elif low < -tolerance and high > tolerance:
        kind = "saddle"
    elif low > tolerance:
        kind = "minimum"
    elif high < -tolerance:
        kind = "maximum"
    else:
        kind = "degenerate"
    negative = None if eigenvalues is None else int(np.sum(eigenvalues < -tolerance))
    return CriticalPoint(kind, low, high, negative, eigenvalues, grad_norm, tolerance)
