"""Metrics of real values: mean squared and absolute error, R2."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.batches import check_same_shape, spread, widened
from dlkit.metrics.metric import Average, Metric, Total, array_module, total

__all__ = ["MAE", "MSE", "R2"]


@dataclass(frozen=True)
class MSE(Average):
    r"""Mean squared error over all examples and their elements: :math:`\mathrm{mean}\, (\hat y - y)^2`.

    >>> MSE().result(MSE().measure(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])))
    5.0

    Raises:
      ValueError: outputs and targets differ in shape.
    """

    def values(self, outputs: Array, targets: Array) -> Array:
        check_same_shape("MSE", outputs, targets)
        outputs = widened(outputs)
        return jnp.square(outputs - targets.astype(outputs.dtype))


@dataclass(frozen=True)
class MAE(Average):
    r"""Mean absolute error over all examples and their elements: :math:`\mathrm{mean}\, |\hat y - y|`.

    >>> MAE().result(MAE().measure(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 0.0]])))
    2.0

    Raises:
      ValueError: outputs and targets differ in shape.
    """

    def values(self, outputs: Array, targets: Array) -> Array:
        check_same_shape("MAE", outputs, targets)
        outputs = widened(outputs)
        return jnp.abs(outputs - targets.astype(outputs.dtype))


@dataclass(frozen=True)
class R2(Metric):
    r"""Coefficient of determination: the share of the targets' variance that the outputs explain.

    .. math:: R^2 = 1 - \frac{\sum_i w_i (y_i - \hat y_i)^2}{\sum_i w_i (y_i - \bar y)^2}

    >>> metric = R2()
    >>> round(metric.result(metric.measure(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 4.0]))), 4)
    0.7857

    The sums are taken about the first batch's mean, not about 0: with targets near 1e4 the difference of the plain sums
    of squares has no correct digit in float32. `merge` moves the second sums to the first one's centre, so sums of R2
    are merged with `merge`, never by adding leaves.

    Args:
      multioutput: "uniform_average" (one number) or "raw_values" (an array, one an output), as in scikit-learn.

    The axes that `weight` has (the first, if it is None) count examples, the rest are outputs, each with its own R2.
    Constant targets give 1 if every residual is 0, else 0; fewer than two examples give NaN (both as scikit-learn).

    Raises:
      ValueError: the shapes differ, or an unknown `multioutput`.
    """

    multioutput: Literal["uniform_average", "raw_values"] = "uniform_average"

    def __post_init__(self):
        if self.multioutput not in ("uniform_average", "raw_values"):
            raise ValueError(f'R2: got multioutput={self.multioutput!r}, expected "uniform_average" or "raw_values"')

    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Any]:
        outputs, targets = widened(outputs), jnp.asarray(targets)
        check_same_shape("R2", outputs, targets)
        targets = targets.astype(outputs.dtype)
        axes = 1 if weight is None else np.ndim(weight)
        weight = spread(weight, targets.shape[:axes], outputs.dtype)
        mass = total(jnp.ones_like(weight), weight)
        centre = total(targets, weight).high / jnp.where(mass.high == 0, 1, mass.high)
        away = targets - jnp.broadcast_to(centre, targets.shape[axes:])[(None,) * axes]
        return {
            "weight": mass,
            "rows": total((weight != 0).astype(outputs.dtype), jnp.ones_like(weight)),
            "centre": centre,
            "first": total(away, weight),
            "second": total(jnp.square(away), weight),
            "residual": total(jnp.square(targets - outputs), weight),
        }

    def merge(self, a: Any, b: Any) -> Any:
        # Sums of nothing have no centre of their own.
        centre = array_module(a, b).where(a["weight"].high == 0, b["centre"], a["centre"])
        a, b = _recentred(a, centre), _recentred(b, centre)
        merged = jax.tree.map(lambda x, y: x + y, a, b, is_leaf=lambda x: isinstance(x, Total))
        return {**merged, "centre": centre}

    def result(self, sums: Any) -> float | np.ndarray:
        weight = sums["weight"].value()
        if sums["rows"].value() < 2:
            scores = np.full(np.shape(sums["centre"]), np.nan)
        else:
            spread_ = sums["second"].value() - np.square(sums["first"].value()) / weight
            residual = sums["residual"].value()
            share = np.divide(residual, spread_, out=np.where(residual > 0, 1.0, 0.0), where=spread_ > 0)
            scores = 1 - share
        return float(np.mean(scores)) if self.multioutput == "uniform_average" else scores


def _recentred(sums: Any, centre: Any) -> Any:
    """The same sums about another centre: with d the shift, S1 + w d and S2 + 2 d S1 + w d^2."""
    shift = sums["centre"] - centre
    weight = sums["weight"].high

    def plus(sum_: Total, extra: Any) -> Total:
        return sum_ + Total(extra, 0 * extra)

    return {
        **sums,
        "first": plus(sums["first"], weight * shift),
        "second": plus(sums["second"], 2 * shift * sums["first"].high + weight * shift * shift),
    }
