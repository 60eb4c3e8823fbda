"""dlkit: a functional deep-learning toolkit in JAX, where everything is a pure function of explicit pytrees.

y,       state = layer.apply(params, state, x, mode)        # a layer, a block, a whole model
updates, state = tx.update(grads, state, params)            # an optimizer, a clip, a schedule
"""

import sys
from typing import TYPE_CHECKING, Any

from dlkit.version import __version__

if TYPE_CHECKING:
    from dlkit import (
        autodiff,
        curvature,
        data,
        functional,
        generalization,
        inspect,
        io,
        losses,
        metrics,
        models,
        nn,
        optim,
        testing,
        train,
        tree,
    )

__all__ = [
    "__version__",
    "autodiff",
    "curvature",
    "data",
    "functional",
    "generalization",
    "inspect",
    "io",
    "losses",
    "metrics",
    "models",
    "nn",
    "optim",
    "testing",
    "train",
    "tree",
]


def __getattr__(name: str) -> Any:
    """Loads a subpackage when it is first used (PEP 562)."""
    match name:
        case "autodiff":
            import dlkit.autodiff
        case "curvature":
            import dlkit.curvature
        case "data":
            import dlkit.data
        case "functional":
            import dlkit.functional
        case "generalization":
            import dlkit.generalization
        case "inspect":
            import dlkit.inspect
        case "io":
            import dlkit.io
        case "losses":
            import dlkit.losses
        case "metrics":
            import dlkit.metrics
        case "models":
            import dlkit.models
        case "nn":
            import dlkit.nn
        case "optim":
            import dlkit.optim
        case "testing":
            import dlkit.testing
        case "train":
            import dlkit.train
        case "tree":
            import dlkit.tree  # noqa: F401
        case _:
            raise AttributeError(f"module 'dlkit' has no attribute {name!r}")
    return sys.modules[f"dlkit.{name}"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
