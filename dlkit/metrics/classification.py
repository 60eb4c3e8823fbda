"""Metrics of classes: accuracy, top-k, perplexity, confusion matrix, precision, recall and F1."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.batches import check_same_shape, class_labels, is_class, spread, widened
from dlkit.metrics.metric import Average, Metric, Total, total

__all__ = ["Accuracy", "BinaryAccuracy", "ConfusionMatrix", "Perplexity", "PrecisionRecallF1", "TopKAccuracy"]


def _labels(metric: str, outputs: Array, targets: Array) -> Array:
    """Integer class labels `[...]` for scores `[..., C]`; soft labels stand for their most probable class."""
    if targets.shape == outputs.shape:
        return jnp.argmax(targets, axis=-1).astype(jnp.int32)
    return class_labels(metric, outputs, targets, soft=True)


def _in_top(outputs: Array, labels: Array, k: int) -> Array:
    """Whether fewer than k classes come before the target. Of equal scores the lower class comes first, as in argmax;
    a row with a NaN is wrong, where argmax would call it class 0."""
    hits = is_class(outputs, labels)
    classes = jax.lax.broadcasted_iota(jnp.int32, outputs.shape, outputs.ndim - 1)
    score = jnp.sum(jnp.where(hits, outputs, 0), axis=-1, keepdims=True)
    before = (outputs > score) | ((outputs == score) & (classes < labels[..., None]))
    usable = jnp.any(hits, axis=-1) & ~jnp.any(jnp.isnan(outputs), axis=-1)
    return usable & (jnp.sum(before, axis=-1) < k)


@dataclass(frozen=True)
class TopKAccuracy(Average):
    """The weighted share of examples whose target is among the k highest scores.

    >>> metric = TopKAccuracy(2)
    >>> scores = jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> metric.result(metric.measure(scores, jnp.array([1, 2])))
    0.5

    Outputs are scores `[..., C]`, targets integers `[...]` or soft labels `[..., C]`. Of equal scores the lower class
    comes first. A row with a NaN score counts as wrong, and so does a label outside [0, C). scikit-learn
    `top_k_accuracy_score` and Keras `SparseTopKCategoricalAccuracy` give the same where scores differ.

    Raises:
      ValueError: k is below 1, or the shapes do not fit.
      TypeError: labels of shape `[...]` are not integers.
    """

    k: int

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"TopKAccuracy: got k={self.k}, expected 1 or more")

    def values(self, outputs: Array, targets: Array) -> Array:
        return _in_top(outputs, _labels("TopKAccuracy", outputs, targets), self.k)


@dataclass(frozen=True)
class Accuracy(Average):
    """The weighted share of examples whose highest score is the target's.

    >>> metric = Accuracy()
    >>> sums = metric.measure(jnp.array([[2.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1]))
    >>> metric.result(sums)
    0.5

    Outputs are scores `[..., C]`, targets integers `[...]` or soft labels `[..., C]`; for one score an example see
    `BinaryAccuracy`. Ties, NaN and labels outside [0, C) are as in `TopKAccuracy`.

    Raises:
      ValueError: the shapes do not fit.
      TypeError: labels of shape `[...]` are not integers.
    """

    def values(self, outputs: Array, targets: Array) -> Array:
        return _in_top(outputs, _labels("Accuracy", outputs, targets), 1)


@dataclass(frozen=True)
class BinaryAccuracy(Average):
    """The weighted share of scores on the right side of the threshold; several a row are counted one by one.

    >>> metric = BinaryAccuracy()
    >>> metric.result(metric.measure(jnp.array([2.0, -1.0]), jnp.array([1, 1])))
    0.5

    Args:
      threshold: above it a score means the positive class: 0 for logits, 0.5 for probabilities. (Keras
        `BinaryAccuracy`: 0.5, whatever the outputs are.)

    Outputs and targets have one shape. A target is positive if it is above 0, so labels may be {0, 1} or {-1, +1}. A
    NaN score counts as wrong.

    Raises:
      ValueError: the shapes differ.
    """

    threshold: float = 0.0

    def values(self, outputs: Array, targets: Array) -> Array:
        check_same_shape("BinaryAccuracy", outputs, targets)
        return ((outputs > self.threshold) == (targets > 0)) & ~jnp.isnan(outputs)


@dataclass(frozen=True)
class Perplexity(Average):
    r"""The exponential of the mean negative log-probability of the targets.

    .. math:: \exp\left(-\frac{\sum_i w_i \log p_i(y_i)}{\sum_i w_i}\right), \qquad p = \mathrm{softmax}(\text{logits})

    >>> metric = Perplexity()
    >>> round(metric.result(metric.measure(jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int))), 4)
    5.0

    Outputs are logits `[..., C]`, targets integers `[...]`; a label outside [0, C) of a row that counts gives NaN. It
    is the exponential of the mean over all tokens, not the mean of exponentials over batches.

    Raises:
      ValueError: the shapes do not fit.
      TypeError: labels are not integers.
    """

    def values(self, outputs: Array, targets: Array) -> Array:
        labels = _labels("Perplexity", outputs, targets)
        log_p = jax.nn.log_softmax(widened(outputs))
        hits = is_class(outputs, labels)
        return jnp.where(jnp.any(hits, axis=-1), -jnp.sum(jnp.where(hits, log_p, 0), axis=-1), jnp.nan)

    def result(self, sums: dict[str, Total]) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(super().result(sums)))


def _true_and_predicted(metric: Any, outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Labels and predictions, `[...]` int32, from scores `[..., C]`, or from one score an element if C is 2."""
    name, classes = type(metric).__name__, metric.classes
    if outputs.shape == targets.shape and classes == 2:
        return targets.astype(jnp.int32), (outputs > metric.threshold).astype(jnp.int32)
    if outputs.ndim == 0 or outputs.shape[-1] != classes:
        one_score = " (or one score an example, of the targets' shape)" if classes == 2 else ""
        raise ValueError(f"{name}: expected outputs [..., {classes}]{one_score}, got {list(outputs.shape)}")
    return _labels(name, outputs, targets), jnp.argmax(outputs, axis=-1).astype(jnp.int32)


def _check_classes(metric: Any) -> None:
    if metric.classes < 2:
        raise ValueError(f"{type(metric).__name__}: got classes={metric.classes}, expected 2 or more")


def _count(bins: Array, weight: Array, length: int) -> Total:
    """The weight that falls into each bin. Added one by one and not by a matmul, which may round its inputs on
    accelerators."""
    high = jnp.zeros(length, weight.dtype).at[bins.ravel()].add(weight.ravel(), mode="drop")
    return Total(high, jnp.zeros_like(high))


def _check_outside(name: str, classes: int, outside: Total) -> None:
    if outside.value():
        raise ValueError(f"{name}: targets of total weight {outside.value():g} lie outside [0, {classes})")


@dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """How much weight has true class i (row) and predicted class j (column).

    >>> metric = ConfusionMatrix(2)
    >>> metric.result(metric.measure(jnp.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), jnp.array([0, 1, 1])))
    array([[1., 0.],
           [1., 1.]])

    Args:
      classes: C.
      threshold: for two classes and one score an example: above it the prediction is class 1.

    Outputs are scores `[..., C]` with integer targets `[...]` (or soft labels, for C above 2), or, if C is 2, one score
    an example with targets of the same shape in {0, 1}. The result is a float64 array `[C, C]`, rows and columns as in
    scikit-learn's `confusion_matrix`.

    Raises:
      ValueError: C is below 2, the shapes do not fit, or (in `result`) a label that counts is outside [0, C).
    """

    classes: int
    threshold: float = 0.0

    def __post_init__(self):
        _check_classes(self)

    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Total]:
        true, predicted = _true_and_predicted(self, jnp.asarray(outputs), jnp.asarray(targets))
        weight = spread(weight, true.shape)
        inside = (true >= 0) & (true < self.classes)
        cells = jnp.where(inside, true * self.classes + predicted, self.classes**2)
        counts = _count(cells, weight, self.classes**2)
        counts = jax.tree.map(lambda x: x.reshape(self.classes, self.classes), counts)
        return {"counts": counts, "outside": total(~inside, weight)}

    def result(self, sums: dict[str, Total]) -> np.ndarray:
        _check_outside("ConfusionMatrix", self.classes, sums["outside"])
        return sums["counts"].value()


@dataclass(frozen=True)
class PrecisionRecallF1(Metric):
    r"""Precision, recall and their harmonic mean, from the weight of true positives, predictions and labels.

    .. math:: P_c = \frac{TP_c}{\text{predicted}_c}, \quad R_c = \frac{TP_c}{\text{actual}_c}, \quad
       F_c = \frac{2\, TP_c}{\text{predicted}_c + \text{actual}_c}

    >>> metric = PrecisionRecallF1(2, average="binary")
    >>> metric.result(metric.measure(jnp.array([2.0, 1.0, -1.0]), jnp.array([1, 0, 1])))
    {'precision': 0.5, 'recall': 0.5, 'f1': 0.5}

    Args:
      classes: C.
      average: "macro" (mean over all C classes), "weighted" (by the weight of each true class), "micro" (counts of all
        classes summed first), "binary" (class 1 of two), or "none" (arrays `[C]`).
      threshold: for two classes and one score an example: above it the prediction is class 1.

    Outputs and targets are as for `ConfusionMatrix`. 0 / 0 is 0, as with scikit-learn's `zero_division=0`;
    scikit-learn's macro mean leaves out classes that occur in neither labels nor predictions unless given `labels`.

    Raises:
      ValueError: C is below 2, an unknown average, "binary" with C above 2, the shapes do not fit, or (in `result`) a
        label that counts is outside [0, C).
    """

    classes: int
    average: Literal["macro", "micro", "weighted", "binary", "none"] = "macro"
    threshold: float = 0.0

    def __post_init__(self):
        _check_classes(self)
        known = ("macro", "micro", "weighted", "binary", "none")
        if self.average not in known:
            raise ValueError(f"PrecisionRecallF1: got average={self.average!r}, expected one of {known}")
        if self.average == "binary" and self.classes != 2:
            raise ValueError(f'PrecisionRecallF1: average="binary" is for 2 classes, got {self.classes}; use "macro"')

    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Total]:
        true, predicted = _true_and_predicted(self, jnp.asarray(outputs), jnp.asarray(targets))
        weight = spread(weight, true.shape)
        inside = (true >= 0) & (true < self.classes)
        true = jnp.where(inside, true, self.classes)
        return {
            "true_positive": _count(jnp.where(true == predicted, true, self.classes), weight, self.classes),
            "predicted": _count(jnp.where(inside, predicted, self.classes), weight, self.classes),
            "actual": _count(true, weight, self.classes),
            "outside": total(~inside, weight),
        }

    def result(self, sums: dict[str, Total]) -> dict[str, Any]:
        _check_outside("PrecisionRecallF1", self.classes, sums["outside"])
        hits, predicted, actual = (sums[name].value() for name in ("true_positive", "predicted", "actual"))
        share = actual / max(actual.sum(), np.finfo(float).tiny)
        if self.average == "micro":
            hits, predicted, actual = (x.sum(keepdims=True) for x in (hits, predicted, actual))
        scores = {
            "precision": _ratio(hits, predicted),
            "recall": _ratio(hits, actual),
            "f1": _ratio(2 * hits, predicted + actual),
        }
        if self.average == "none":
            return scores
        if self.average == "binary":
            return {name: float(score[1]) for name, score in scores.items()}
        if self.average == "weighted":
            return {name: float(score @ share) for name, score in scores.items()}
        return {name: float(score.mean()) for name, score in scores.items()}


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)
