"""The geometry of a loss: Hessians, spectra, sharpness, landscapes and noise, of any model on data of any size.

Everything takes an `Objective`, the mean loss over data as a function of the parameters, or a plain scalar function.
"""

from dlkit.curvature.connectivity import Curve, connect_modes
from dlkit.curvature.critical import CriticalPoint, classify_critical_point
from dlkit.curvature.density import Density, spectral_density
from dlkit.curvature.directions import Plane, filter_normalize, path_plane, random_direction, stacked_axes
from dlkit.curvature.estimates import Diagonal, Estimate, diagonal, trace
from dlkit.curvature.lanczos import (
    Eigenpairs,
    Spectrum,
    condition_number,
    lanczos,
    max_stable_lr,
    spectrum,
    top_eigenpairs,
)
from dlkit.curvature.landscape import Barrier, Landscape, barrier, landscape_1d, landscape_2d
from dlkit.curvature.monitor import CurvatureMonitor
from dlkit.curvature.noise import NoiseScale, gradient_noise_scale
from dlkit.curvature.objective import Objective
from dlkit.curvature.plots import plot_barriers, plot_curvature, plot_density, plot_landscape, plot_layers
from dlkit.curvature.products import Operator, fisher_product, gauss_newton_product, hessian_product
from dlkit.curvature.recorder import PathRecorder
from dlkit.curvature.sharpness import Sharpness, keskar_sharpness, sam_gap, sharpness

__all__ = [
    "Barrier",
    "CriticalPoint",
    "CurvatureMonitor",
    "Curve",
    "Density",
    "Diagonal",
    "Eigenpairs",
    "Estimate",
    "Landscape",
    "NoiseScale",
    "Objective",
    "Operator",
    "PathRecorder",
    "Plane",
    "Sharpness",
    "Spectrum",
    "barrier",
    "classify_critical_point",
    "condition_number",
    "connect_modes",
    "diagonal",
    "filter_normalize",
    "fisher_product",
    "gauss_newton_product",
    "gradient_noise_scale",
    "hessian_product",
    "keskar_sharpness",
    "lanczos",
    "landscape_1d",
    "landscape_2d",
    "max_stable_lr",
    "path_plane",
    "plot_barriers",
    "plot_curvature",
    "plot_density",
    "plot_landscape",
    "plot_layers",
    "random_direction",
    "sam_gap",
    "sharpness",
    "spectral_density",
    "spectrum",
    "stacked_axes",
    "top_eigenpairs",
    "trace",
]
