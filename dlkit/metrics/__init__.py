"""Metrics that are exact whatever the batches: sums that merge, and one division at the end.

A metric is a frozen dataclass with `measure(outputs, targets, weight) -> sums` for one batch (in the compiled step),
`merge(a, b) -> sums`, and `result(sums)` on the host. `docs/metrics.md` has the table.
"""

from dlkit.metrics.bleu import bleu
from dlkit.metrics.calibration import CalibrationError
from dlkit.metrics.classification import (
    Accuracy,
    BinaryAccuracy,
    ConfusionMatrix,
    Perplexity,
    PrecisionRecallF1,
    TopKAccuracy,
)
from dlkit.metrics.masked import AtMasked
from dlkit.metrics.metric import Average, Mean, Metric, Total
from dlkit.metrics.ranking import AUC
from dlkit.metrics.regression import MAE, MSE, R2
from dlkit.metrics.several import measure_all, merge_all, result_all

__all__ = [
    "AUC",
    "MAE",
    "MSE",
    "R2",
    "Accuracy",
    "AtMasked",
    "Average",
    "BinaryAccuracy",
    "CalibrationError",
    "ConfusionMatrix",
    "Mean",
    "Metric",
    "Perplexity",
    "PrecisionRecallF1",
    "TopKAccuracy",
    "Total",
    "bleu",
    "measure_all",
    "merge_all",
    "result_all",
]
