"""From a configuration to the objects of a run. Every name resolves in one of the closed tables below."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from dlkit import losses, metrics, optim
from dlkit.config.build_model import input_shape, model
from dlkit.config.errors import ConfigError
from dlkit.config.optimizers import decay_mask, named_recipe
from dlkit.config.parts import LossSpec, MetricSpec, OptimizerSpec, Recipe, ScheduleSpec
from dlkit.config.schema import Config

__all__ = ["decay_mask", "input_shape", "loss", "metric_table", "model", "optimizer", "regularizer", "schedule"]

LOSSES: Mapping[str, Callable[..., Any]] = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "multiclass_hinge": losses.multiclass_hinge,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "huber": losses.huber,
    "negative_elbo": losses.negative_elbo,
    "simple_diffusion": losses.simple_diffusion,
    "mse": losses.mse,
    "mae": losses.mae,
    "l2_loss": losses.l2_loss,
    "log_cosh": losses.log_cosh,
    "poisson_nll": losses.poisson_nll,
}
METRICS: Mapping[str, Callable[..., metrics.Metric]] = {
    "accuracy": metrics.Accuracy,
    "binary_accuracy": metrics.BinaryAccuracy,
    "top_k": metrics.TopKAccuracy,
    "perplexity": metrics.Perplexity,
    "calibration_error": metrics.CalibrationError,
    "mse": metrics.MSE,
    "mae": metrics.MAE,
    "r2": metrics.R2,
}
OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    "sgd": optim.sgd,
    "adagrad": optim.adagrad,
    "rmsprop": optim.rmsprop,
    "adam": optim.adam,
    "adamw": optim.adamw,
}


def loss(spec: LossSpec) -> Callable[..., Any]:
    """The loss `f(outputs, targets)`, its options filled in: one object for equal specs, so tasks compare equal."""
    return _filled_in(spec.name, tuple(spec.model_dump(exclude={"name"}).items()))


@functools.cache
def _filled_in(name: str, options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return functools.partial(LOSSES[name], **dict(options)) if options else LOSSES[name]


def metric_table(specs: tuple[MetricSpec, ...]) -> dict[str, metrics.Metric]:
    """The metrics by name.

    Raises:
      ConfigError: a metric stands there twice.
    """
    table: dict[str, metrics.Metric] = {}
    for i, spec in enumerate(specs):
        if spec.name in table:
            raise ConfigError(f"metrics[{i}]: {spec.name!r} stands there twice")
        table[spec.name] = METRICS[spec.name](**spec.model_dump(exclude={"name"}))
    return table


def schedule(spec: ScheduleSpec | None, learning_rate: float, steps: int) -> Any:
    """The learning rate over a run of `steps` updates: a number, or one of `dlkit.optim`'s schedules.

    A warm-up starts at learning_rate / (its steps): from 0, the first update would be wasted.
    """
    if spec is None:
        return learning_rate
    if spec.name == "constant":
        warmup = round(spec.warmup * steps)
        return optim.warmup_constant_schedule(learning_rate / max(warmup, 1), learning_rate, warmup)
    if spec.name == "cosine":
        warmup = round(spec.warmup * steps)
        if not warmup:
            return optim.cosine_decay_schedule(learning_rate, steps, alpha=spec.end)
        start, end = learning_rate / warmup, spec.end * learning_rate
        return optim.warmup_cosine_decay_schedule(start, learning_rate, warmup, steps, end_value=end)
    if spec.name == "one_cycle":
        return optim.cosine_onecycle_schedule(steps, learning_rate, spec.warmup, spec.div_factor, spec.final_div_factor)
    if spec.name == "step":
        return optim.piecewise_constant_schedule(learning_rate, {round(at * steps): spec.factor for at in spec.at})
    if spec.name == "exponential":
        return optim.exponential_decay(learning_rate, steps, spec.end)
    return optim.polynomial_schedule(learning_rate, spec.end * learning_rate, spec.power, steps)


def optimizer(spec: OptimizerSpec, steps: int) -> Any:
    """The optimizer for a run of `steps` updates: clipping first, then the recipe.

    Raises:
      ConfigError: an option that the recipe does not have or refuses, or a learning rate that it has not, or lacks.
    """
    links = []
    if spec.clip_value is not None:
        links.append(optim.clip(spec.clip_value))
    if spec.clip_norm is not None:
        links.append(optim.clip_by_global_norm(spec.clip_norm))
    if isinstance(spec, Recipe):
        rate = None if spec.learning_rate is None else schedule(spec.schedule, spec.learning_rate, steps)
        recipe = named_recipe(spec, rate)
    else:
        own = spec.model_dump(exclude={"name", "learning_rate", "schedule", "clip_value", "clip_norm", "mask"})
        mask = decay_mask(spec)
        masked = {} if mask is None else {"mask": mask}
        recipe = OPTIMIZERS[spec.name](schedule(spec.schedule, spec.learning_rate, steps), **own, **masked)
    return optim.chain(*links, recipe) if links else recipe


def regularizer(config: Config) -> losses.Penalty | None:
    """The penalty on the parameters, or None."""
    spec = config.regularizer
    return None if spec is None else losses.Penalty(l1=spec.l1, l2=spec.l2, over=spec.over)
