"""The recipes of `dlkit.optim` that a configuration names with a table of options."""

import inspect
from typing import Any

from dlkit import optim, train
from dlkit.config.errors import ConfigError, nearest
from dlkit.config.parts import LossSpec, OptimizerSpec, Recipe

__all__ = ["curvature", "decay_mask", "named_recipe"]

MASKS = ("mask", "weight_decay_mask")
DECAYS = ("weight_decay", "weight_decay_rate", "l2")
RATES = ("learning_rate", "max_learning_rate")
OUTPUTS = {"cross_entropy": "categorical", "binary_cross_entropy": "bernoulli", "mse": "normal", "l2_loss": "normal"}


def named_recipe(spec: Recipe, learning_rate: Any) -> Any:
    """The optimizer that `spec.name` and `spec.options` stand for; it decays what `spec.mask` chooses.

    Raises:
      ConfigError: an option that the recipe does not have or refuses; a learning rate that is missing, or too much.
    """
    make = getattr(optim, spec.name)  # a name of the closed list in `parts`
    taken = inspect.signature(make).parameters
    rate = next((name for name in RATES if name in taken), None)
    known = [name for name in taken if name not in (*MASKS, *RATES)]
    for key in spec.options:
        if key not in known:
            raise ConfigError(f"optimizer.options.{key}: {spec.name} has no such option; {nearest(key, known)}")
    given: dict[str, Any] = dict(spec.options)
    if rate is None and (learning_rate is not None or spec.schedule is not None):
        raise ConfigError(f"optimizer.learning_rate: {spec.name} finds the length of its steps itself: leave it out")
    if learning_rate is None and (
        spec.schedule is not None or (rate is not None and taken[rate].default is inspect.Parameter.empty)
    ):
        raise ConfigError(f"optimizer.learning_rate: {spec.name} needs one")
    if rate is not None and learning_rate is not None:
        given[rate] = learning_rate
    if (mask := decay_mask(spec)) is not None:
        given |= {name: mask for name in MASKS if name in taken}
    missing = [n for n, p in taken.items() if p.default is p.empty and n not in given and n not in MASKS]
    if missing:
        raise ConfigError(f"optimizer.options: {spec.name} needs {missing[0]}")
    try:
        return make(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.options: {error}") from None


def decay_mask(spec: OptimizerSpec) -> tuple[str, ...] | None:
    """The globs of what decays; None where nothing does, or the recipe knows no mask."""
    if not isinstance(spec, Recipe):
        return spec.mask if getattr(spec, "weight_decay", 0) or getattr(spec, "l2", 0) else None
    taken = inspect.signature(getattr(optim, spec.name)).parameters
    if not any(name in taken for name in MASKS):
        return None
    held = [spec.options.get(name, taken[name].default) for name in DECAYS if name in taken]
    return spec.mask if any(value for value in held) else None


def curvature(spec: OptimizerSpec, loss: LossSpec) -> train.Curvature | None:
    """What K-FAC factors: the Fisher matrix of the outputs' distribution that the loss is the likelihood of.

    Raises:
      ConfigError: K-FAC with a loss that is no likelihood.
    """
    if spec.name != "kfac":
        return None
    if loss.name not in OUTPUTS:
        raise ConfigError(
            f"optimizer: kfac wants a likelihood as the loss, one of {', '.join(OUTPUTS)}: {loss.name} is none"
        )
    return train.Curvature(OUTPUTS[loss.name])  # pyright: ignore[reportArgumentType]
