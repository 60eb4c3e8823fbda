"""Looking at models and runs: summaries, costs, signals, surfaces, pictures."""

from dlkit.inspect.attention import attention_map
from dlkit.inspect.codes import latent_scatter, picture_grid, reconstructions
from dlkit.inspect.evaluations import EvaluationCounter, Evaluations, count_evaluations
from dlkit.inspect.flops import flops
from dlkit.inspect.paths import descend, paths_plot
from dlkit.inspect.plots import confusion_matrix, learning_curves, misclassified
from dlkit.inspect.signal import Signal, signal_profile
from dlkit.inspect.summary import Row, Summary, summary
from dlkit.inspect.surfaces import SURFACES, Surface, quadratic

__all__ = [
    "SURFACES",
    "EvaluationCounter",
    "Evaluations",
    "Row",
    "Signal",
    "Summary",
    "Surface",
    "attention_map",
    "confusion_matrix",
    "count_evaluations",
    "descend",
    "flops",
    "latent_scatter",
    "learning_curves",
    "misclassified",
    "paths_plot",
    "picture_grid",
    "quadratic",
    "reconstructions",
    "signal_profile",
    "summary",
]
