"""dlkit: a functional deep-learning toolkit in JAX, where everything is a pure function of explicit pytrees.

y,       state = layer.apply(params, state, x, mode)        # a layer, a block, a whole model
updates, state = tx.update(grads, state, params)            # an optimizer, a clip, a schedule
"""

from dlkit import autodiff, data, functional, inspect, losses, metrics, models, nn, optim, testing, train, tree
from dlkit.version import __version__

__all__ = [
    "__version__",
    "autodiff",
    "data",
    "functional",
    "inspect",
    "losses",
    "metrics",
    "models",
    "nn",
    "optim",
    "testing",
    "train",
    "tree",
]
