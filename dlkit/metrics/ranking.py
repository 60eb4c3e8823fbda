"""The area under the ROC curve, exact."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.batches import spread, widened
from dlkit.metrics.metric import Metric, array_module

__all__ = ["AUC"]


def _auc(scores: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    """The weighted share of (positive, negative) pairs in the right order, a tie counting one half."""
    if np.isnan(scores).any():
        return float("nan")
    _, place = np.unique(scores, return_inverse=True)
    place = place.ravel()
    ups = np.bincount(place, weights=weight * positive)
    downs = np.bincount(place, weights=weight * ~positive)
    pairs = ups.sum() * downs.sum()
    below = np.cumsum(downs) - downs
    return float(np.sum(ups * (below + 0.5 * downs)) / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class AUC(Metric):
    r"""The area under the receiver operating characteristic, the probability that a positive outscores a negative.

    .. math:: \mathrm{AUC} = P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)

    It depends on all pairs, so no sums of fixed size hold it: a measurement keeps the score, target and weight of every
    example (12 bytes each, for two classes), `merge` concatenates, and `result` sorts once. That is exact, whatever the
    batches. In a `lax.scan`, collect measurements as outputs rather than in the carry: `result` accepts extra leading
    axes. Keras `AUC` adds up fixed sums over 200 thresholds instead, and is off by the width of a bin.

    >>> metric = AUC()
    >>> first = metric.measure(jnp.array([0.1, 0.9]), jnp.array([0, 1]))
    >>> metric.result(metric.merge(first, metric.measure(jnp.array([0.5, 0.2]), jnp.array([0, 1]))))
    0.75

    Args:
      classes: C. For 2, outputs are one score an example, or scores `[..., 2]`, whose difference is taken. For more,
        outputs are logits `[..., C]`, and the result is the mean over classes of "this class against the rest" by
        softmax probability (scikit-learn: `multi_class="ovr", average="macro"`).

    Targets are integers `[...]`: {0, 1}, or classes. The result is NaN if a class has no positive or no negative
    example, or if a score that counts is NaN.

    Raises:
      ValueError: C is below 2, the shapes do not fit, or (in `result`) a label that counts is outside [0, C).

    Reference: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, 1982.
    """

    fixed_size: ClassVar[bool] = False
    classes: int = 2

    def __post_init__(self):
        if self.classes < 2:
            raise ValueError(f"AUC: got classes={self.classes}, expected 2 or more")

    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Array]:
        scores, targets = widened(outputs), jnp.asarray(targets)
        if scores.shape == (*targets.shape, self.classes):
            scores = scores[..., 1] - scores[..., 0] if self.classes == 2 else jax.nn.softmax(scores)
        elif not (self.classes == 2 and scores.shape == targets.shape):
            wanted = [*targets.shape, self.classes]
            raise ValueError(f"AUC: targets {list(targets.shape)} need outputs {wanted}, got {list(scores.shape)}")
        rows = targets.size
        return {
            "score": scores.reshape(rows, *(() if self.classes == 2 else (self.classes,))),
            "target": targets.astype(jnp.int32).reshape(rows),
            "weight": spread(weight, targets.shape).reshape(rows),
        }

    def merge(self, a: Any, b: Any) -> Any:
        # On the host where both are: numpy concatenates without compiling anew for every length.
        xp = array_module(a, b)
        return jax.tree.map(lambda x, y: xp.concatenate([x, y]), a, b)

    def result(self, sums: Any) -> float:
        weight = np.asarray(sums["weight"], np.float64).ravel()
        counted = weight != 0
        weight, target = weight[counted], np.asarray(sums["target"]).ravel()[counted]
        wrong = (target < 0) | (target >= self.classes)
        if wrong.any():
            raise ValueError(f"AUC: targets must lie in [0, {self.classes}), got {target[wrong][0]}")
        if self.classes == 2:
            return _auc(np.asarray(sums["score"]).ravel()[counted], target == 1, weight)
        scores = np.asarray(sums["score"]).reshape(-1, self.classes)[counted]
        return float(np.mean([_auc(scores[:, c], target == c, weight) for c in range(self.classes)]))
