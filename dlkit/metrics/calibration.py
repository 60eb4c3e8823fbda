"""Whether a confidence of 0.8 is right 8 times in 10."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.batches import spread, widened
from dlkit.metrics.metric import Metric, Total

__all__ = ["CalibrationError"]


@dataclass(frozen=True)
class CalibrationError(Metric):
    r"""Expected calibration error: the gap between confidence and accuracy, over equal bins of confidence.

    .. math:: \mathrm{ECE} = \sum_{m=1}^{M} \frac{W_m}{W} \left|\mathrm{acc}_m - \mathrm{conf}_m\right|

    where bin m holds the examples whose confidence, the largest probability, lies in ((m - 1) / M, m / M].

    >>> metric = CalibrationError(bins=10)
    >>> sure = jnp.log(jnp.array([[0.75, 0.25]] * 4))
    >>> round(metric.result(metric.measure(sure, jnp.array([0, 0, 1, 1]))), 4)  # 0.75 sure, right half the time
    0.25

    Args:
      bins: M.
      norm: "l1" for the sum above, "max" for the largest gap of a bin (maximum calibration error).

    Outputs are logits `[..., C]` with integer targets `[...]`, or one logit an example with targets in {0, 1}, which
    is the same as the two logits (0, s). The value depends on the number of bins: state it with the value. torchmetrics
    has the same definition for several classes; for binary tasks it bins the probability of class 1 instead.

    Raises:
      ValueError: bins is below 1, an unknown norm, or the shapes do not fit.

    Reference: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """

    bins: int = 15
    norm: Literal["l1", "max"] = "l1"

    def __post_init__(self):
        if self.bins < 1:
            raise ValueError(f"CalibrationError: got bins={self.bins}, expected 1 or more")
        if self.norm not in ("l1", "max"):
            raise ValueError(f'CalibrationError: got norm={self.norm!r}, expected "l1" or "max"')

    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Total]:
        outputs, targets = widened(outputs), jnp.asarray(targets)
        if outputs.shape == targets.shape:
            outputs = jnp.stack([jnp.zeros_like(outputs), outputs], axis=-1)
        if targets.shape != outputs.shape[:-1]:
            raise ValueError(
                f"CalibrationError: outputs {list(outputs.shape)} need targets {list(outputs.shape[:-1])}, "
                f"got {list(targets.shape)}"
            )
        probabilities = jax.nn.softmax(outputs)
        confidence = jnp.max(probabilities, axis=-1)
        correct = jnp.argmax(probabilities, axis=-1).astype(jnp.int32) == targets.astype(jnp.int32)
        weight = spread(weight, targets.shape, confidence.dtype)
        # A row of weight 0 may be NaN, whose bin is no integer.
        confidence = jnp.where(weight != 0, confidence, 1)
        place = jnp.clip(jnp.ceil(confidence * self.bins).astype(jnp.int32) - 1, 0, self.bins - 1)

        def per_bin(values: Array) -> Total:
            high = jnp.zeros(self.bins, weight.dtype).at[place.ravel()].add((values * weight).ravel())
            return Total(high, jnp.zeros_like(high))

        return {
            "weight": per_bin(jnp.ones_like(weight)),
            "confidence": per_bin(confidence),
            "correct": per_bin(correct.astype(weight.dtype)),
        }

    def result(self, sums: dict[str, Total]) -> float:
        weight = sums["weight"].value()
        if not weight.sum():
            return float("nan")
        gap = np.abs(sums["correct"].value() - sums["confidence"].value())
        if self.norm == "l1":
            return float(gap.sum() / weight.sum())
        return float(np.max(np.divide(gap, weight, out=np.zeros_like(gap), where=weight != 0)))
