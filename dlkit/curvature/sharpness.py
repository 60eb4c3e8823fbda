"""How sharp a minimum is: the worst loss nearby, and the curvature."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.curvature.estimates import Estimate, trace
from dlkit.curvature.lanczos import top_eigenpairs
from dlkit.curvature.objective import as_objective
from dlkit.curvature.products import hessian_product
from dlkit.optim.second_order import vectors

__all__ = ["Sharpness", "keskar_sharpness", "sam_gap", "sharpness"]


def keskar_sharpness(loss: Any, params: Any, *, eps: float = 1e-3, steps: int = 10, seed: int = 0) -> float:
    """100 (max f(x + z) - f(x)) / (1 + f(x)) over the box |z_i| <= eps (|x_i| + 1).

    The maximum is looked for by ascent along the sign of the gradient, projected to the box, from a random corner: a
    step of the box's width at first, then of half of it, and so on, and the best point counts. So it is a lower bound,
    which is the maximum itself where the loss is linear in the box. The paper takes L-BFGS-B for the same number of
    steps, and no method finds more than a local maximum.

    Args:
      loss: an `Objective`, or a scalar function of the parameters, not below 0 if the number is to be compared.
      params: the minimum.
      eps: the paper has 1e-3 and 5e-4.
      steps: gradients. seed: of the corner.

    Raises:
      ValueError: `eps` not above 0, or `steps` below 1.

    Reference: Keskar et al., "On large-batch training for deep learning: generalization gap and sharp minima", 2017,
    metric 2.1 with A = I.
    """
    if not eps > 0 or steps < 1:
        raise ValueError(f"eps must be above 0 and steps at least 1, got {eps} and {steps}")
    objective, rng = as_objective(loss), np.random.default_rng(seed)
    box = jax.tree.map(lambda x: eps * (np.abs(np.asarray(x, np.float64)) + 1), params)
    base, best = objective(params), -np.inf
    z = jax.tree.map(lambda b: b * (rng.integers(0, 2, b.shape) * 2.0 - 1), box)
    width = 2.0
    for _ in range(steps):
        value, grad = objective.value_and_grad(_moved(params, z))
        best = max(best, value)
        z = jax.tree.map(
            lambda z, b, g, width=width: np.clip(z + width * b * np.sign(np.asarray(g, np.float64)), -b, b),
            z,
            box,
            grad,
        )
        width = max(width / 2, 0.25)
    best = max(best, objective(_moved(params, z)), base)
    return 100 * (best - base) / (1 + base)


def _moved(params: Any, z: Any) -> Any:
    return vectors.move(params, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), z))


def sam_gap(loss: Any, params: Any, *, rho: float = 0.05) -> float:
    """f(x + rho g / |g|) - f(x), g the gradient: what sharpness-aware minimization adds to the loss.

    >>> round(sam_gap(lambda x: jnp.sum(x**2) / 2, jnp.array([3.0, 4.0]), rho=0.1), 4)  # rho |x| + rho^2 / 2
    0.505

    Raises:
      ValueError: `rho` not above 0.

    Reference: Foret et al., "Sharpness-aware minimization for efficiently improving generalization", 2021, equation 2.
    """
    if not rho > 0:
        raise ValueError(f"rho must be above 0, got {rho}")
    objective = as_objective(loss)
    value, grad = objective.value_and_grad(params)
    norm = float(vectors.norm(grad))
    if norm == 0:
        return 0.0
    return objective(vectors.move(params, vectors.times(rho / norm, grad))) - value


@dataclass(frozen=True)
class Sharpness:
    """Several measures of one point: `lambda_max` is within `residual` of an eigenvalue."""

    loss: float
    lambda_max: float
    residual: float
    trace: Estimate
    keskar: float
    sam_gap: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4g}, lambda_max {self.lambda_max:.4g}, trace {self.trace}, "
            f"Keskar {self.keskar:.4g} %, SAM gap {self.sam_gap:.4g}"
        )


def sharpness(
    loss: Any, params: Any, *, eps: float = 1e-3, rho: float = 0.05, probes: int = 16, seed: int = 0
) -> Sharpness:
    """The measures of sharpness in one record.

    None is invariant to rescaling a ReLU network's layers (Dinh et al. 2017): compare models of one architecture
    trained alike, or look at a filter-normalized landscape.

    Args:
      loss, params: what, and where. eps: of `keskar_sharpness`. rho: of `sam_gap`. probes: of the trace. seed: of all.

    >>> print(sharpness(lambda x: jnp.sum(x**2), jnp.array([1.0])))
    loss 1, lambda_max 2, trace 2 in [2, 2] with confidence 95%, Keskar 0.2002 %, SAM gap 0.1025
    """
    objective = as_objective(loss)
    operator = hessian_product(objective, params)
    top = top_eigenpairs(operator, seed=seed)
    return Sharpness(
        objective(params),
        float(top.values[0]),
        float(top.residuals[0]),
        trace(operator, probes=probes, seed=seed),
        keskar_sharpness(objective, params, eps=eps, seed=seed),
        sam_gap(objective, params, rho=rho),
    )
