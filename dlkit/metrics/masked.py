"""Metrics of hidden tokens."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from dlkit.metrics.metric import Metric

__all__ = ["AtMasked"]


@dataclass(frozen=True)
class AtMasked(Metric):
    """A metric of the hidden tokens alone: outputs have `logits` `[B, T, C]` and `masked` `[B, T]`.

    >>> from dlkit import metrics, models
    >>> outputs = models.MaskedOutputs(jnp.eye(3)[None], jnp.array([[True, True, False]]))
    >>> metric = AtMasked(metrics.Accuracy())
    >>> metric.result(metric.measure(outputs, jnp.array([[0, 2, 2]])))
    0.5
    """

    metric: Metric

    def measure(self, outputs: Any, targets: Any, weight: Any = None) -> Any:
        hidden = outputs.masked.astype(jnp.float32)
        weight = hidden if weight is None else hidden * jnp.asarray(weight).reshape(-1, 1)
        return self.metric.measure(outputs.logits, targets, weight)

    def merge(self, a: Any, b: Any) -> Any:
        return self.metric.merge(a, b)

    def result(self, sums: Any) -> Any:
        return self.metric.result(sums)
