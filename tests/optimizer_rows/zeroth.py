"""Optimizers of order zero. They are given a loss of the table's own, so what lowers it is shown elsewhere."""

from dlkit import optim
from optimizer_rows.paths import LR, at
from support.valued import Valued

RECIPES = {}
CMA = ["count", "sigma", "path_sigma", "path_c", "covariance", "basis", "scales"]
BLOCKS = {
    "random_search": (Valued(optim.random_search(0.01)), at(["count"], LR)),
    "random_search_forward": (
        Valued(optim.random_search(0.01, optim.linear_schedule(0.1, 0.01, 5), 2, central=False, momentum=0.5, seed=3)),
        at(["count"], ["trace/w"], LR),
    ),
    "gaussian_smoothing": (Valued(optim.gaussian_smoothing(0.01, samples=2)), ["count"]),
    "spsa": (Valued(optim.spsa(0.01)), at(["count"], LR)),
    "simultaneous_perturbation": (Valued(optim.simultaneous_perturbation(0.1, gamma=0.0, samples=2)), ["count"]),
    "cma_es": (Valued(optim.cma_es(0.5)), CMA),
    "cma_es_population": (Valued(optim.cma_es(0.5, population=4, seed=1)), CMA),
}
