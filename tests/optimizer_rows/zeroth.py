"""Optimizers of order zero. They are given a loss of the table's own, so what lowers it is shown elsewhere.

The differences are long ones: over 1e-3 the roundings of the loss, which jit changes, would be 1e-4 of the slope.
"""

from support.valued import Valued

from dlkit import optim
from optimizer_rows.paths import LR, at

RECIPES = {}
CMA = ["count", "sigma", "path_sigma", "path_c", "covariance", "root"]
BLOCKS = {
    "random_search": (Valued(optim.random_search(0.01, 0.5)), at(["count"], LR)),
    "random_search_forward": (
        Valued(optim.random_search(0.01, optim.linear_schedule(0.5, 0.25, 5), 2, central=False, momentum=0.5, seed=3)),
        at(["count"], ["trace/w"], LR),
    ),
    "gaussian_smoothing": (Valued(optim.gaussian_smoothing(0.5)), ["count"]),
    "spsa": (Valued(optim.spsa(0.01, 0.5)), at(["count"], LR)),
    "simultaneous_perturbation": (Valued(optim.simultaneous_perturbation(0.5, gamma=0.0)), ["count"]),
    "cma_es": (Valued(optim.cma_es(0.5)), CMA),
    "cma_es_population": (Valued(optim.cma_es(0.5, population=4, seed=1)), CMA),
}
