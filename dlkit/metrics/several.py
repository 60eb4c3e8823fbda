"""A mapping of metrics by name, measured, merged and evaluated together."""

from collections.abc import Mapping
from typing import Any

from jax.typing import ArrayLike

from dlkit.metrics.metric import Metric

__all__ = ["measure_all", "merge_all", "result_all"]


def measure_all(
    metrics: Mapping[str, Metric], outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None
) -> dict[str, Any]:
    """The sums of one batch, by name. Call it inside the compiled step: what is common is computed once.

    >>> import jax.numpy as jnp
    >>> from dlkit.metrics import MAE, MSE
    >>> metrics = {"mse": MSE(), "mae": MAE()}
    >>> sums = measure_all(metrics, jnp.array([1.0, 3.0]), jnp.zeros(2))
    >>> sums = merge_all(metrics, sums, measure_all(metrics, jnp.array([2.0]), jnp.zeros(1)))
    >>> {name: round(value, 4) for name, value in result_all(metrics, sums).items()}
    {'mse': 4.6667, 'mae': 2.0}
    """
    return {name: metric.measure(outputs, targets, weight) for name, metric in metrics.items()}


def merge_all(metrics: Mapping[str, Metric], a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The sums of two batches (devices, hosts), by name, each merged as its metric says."""
    return {name: metric.merge(a[name], b[name]) for name, metric in metrics.items()}


def result_all(metrics: Mapping[str, Metric], sums: Mapping[str, Any]) -> dict[str, Any]:
    """The values, by name: floats and arrays. A metric of several values gives `name/precision`, `name/recall`, ..."""
    results: dict[str, Any] = {}
    for name, metric in metrics.items():
        value = metric.result(sums[name])
        if isinstance(value, dict):
            results.update({f"{name}/{part}": one for part, one in value.items()})
        else:
            results[name] = value
    return results
