"""Looking at models and runs: summaries, costs, pictures."""

from dlkit.inspect.codes import latent_scatter, picture_grid, reconstructions
from dlkit.inspect.evaluations import EvaluationCounter, Evaluations, count_evaluations
from dlkit.inspect.flops import flops
from dlkit.inspect.plots import confusion_matrix, learning_curves, misclassified
from dlkit.inspect.summary import Row, Summary, summary

__all__ = [
    "EvaluationCounter",
    "Evaluations",
    "Row",
    "Summary",
    "confusion_matrix",
    "count_evaluations",
    "flops",
    "latent_scatter",
    "learning_curves",
    "misclassified",
    "picture_grid",
    "reconstructions",
    "summary",
]
