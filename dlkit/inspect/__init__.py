"""Looking at models and runs: summaries, costs, signals, surfaces, pictures."""

from dlkit.inspect.attention import attention_map
from dlkit.inspect.attribution import integrated_gradients, occlusion, saliency, smooth_grad
from dlkit.inspect.codes import latent_plane, latent_scatter, picture_grid, reconstructions
from dlkit.inspect.collectives import Collective, collectives
from dlkit.inspect.evaluations import EvaluationCounter, Evaluations, count_evaluations
from dlkit.inspect.flops import flops
from dlkit.inspect.grad_cam import grad_cam, layer_gradients
from dlkit.inspect.graphs import graph_layout, graph_plot
from dlkit.inspect.maps import filters_plot, heat_plot, maps_plot
from dlkit.inspect.maximization import Maximized, maximize_activation
from dlkit.inspect.paths import descend, paths_plot
from dlkit.inspect.plots import confusion_matrix, learning_curves, misclassified
from dlkit.inspect.signal import Signal, signal_profile
from dlkit.inspect.summary import Row, Summary, summary
from dlkit.inspect.surfaces import SURFACES, Surface, quadratic

__all__ = [
    "SURFACES",
    "Collective",
    "EvaluationCounter",
    "Evaluations",
    "Maximized",
    "Row",
    "Signal",
    "Summary",
    "Surface",
    "attention_map",
    "collectives",
    "confusion_matrix",
    "count_evaluations",
    "descend",
    "filters_plot",
    "flops",
    "grad_cam",
    "graph_layout",
    "graph_plot",
    "heat_plot",
    "integrated_gradients",
    "latent_plane",
    "latent_scatter",
    "layer_gradients",
    "learning_curves",
    "maps_plot",
    "maximize_activation",
    "misclassified",
    "occlusion",
    "paths_plot",
    "picture_grid",
    "quadratic",
    "reconstructions",
    "saliency",
    "signal_profile",
    "smooth_grad",
    "summary",
]
