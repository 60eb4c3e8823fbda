"""The generalization lab: populations of networks, double descent, bias and variance, memorization, in small functions.

A run is a pure function of its key, so a hundred runs are one `vmap`: `docs/generalization.md` shows what that is for.
"""

from dlkit.generalization.capacity import EffectiveRanks, effective_ranks, margin_bound, rademacher_linear
from dlkit.generalization.decomposition import BiasVariance, bias_variance
from dlkit.generalization.features import Sweep, double_descent, interpolation_threshold, random_features
from dlkit.generalization.memorization import Corrupted, bootstrap, corrupt_labels, memorization, random_subsets
from dlkit.generalization.population import Population, train_population
from dlkit.generalization.shrinkage import (
    Risk,
    decay_factors,
    descent_path,
    fixed_design_risk,
    ridge,
    stopping_decay_gap,
    stopping_factors,
)

__all__ = [
    "BiasVariance",
    "Corrupted",
    "EffectiveRanks",
    "Population",
    "Risk",
    "Sweep",
    "bias_variance",
    "bootstrap",
    "corrupt_labels",
    "decay_factors",
    "descent_path",
    "double_descent",
    "effective_ranks",
    "fixed_design_risk",
    "interpolation_threshold",
    "margin_bound",
    "memorization",
    "rademacher_linear",
    "random_features",
    "random_subsets",
    "ridge",
    "stopping_decay_gap",
    "stopping_factors",
    "train_population",
]
