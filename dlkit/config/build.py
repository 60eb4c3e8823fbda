"""From a configuration to the objects of a run. Every name resolves in one of the closed tables below."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from dlkit import losses, metrics, models, nn, optim
from dlkit.config.errors import ConfigError
from dlkit.config.optimizers import decay_mask, named_recipe
from dlkit.config.parts import LossSpec, MetricSpec, OptimizerSpec, Recipe, ScheduleSpec
from dlkit.config.schema import Config
from dlkit.config.sources import EXAMPLES

__all__ = ["decay_mask", "loss", "metric_table", "model", "optimizer", "regularizer", "schedule"]

LOSSES: Mapping[str, Callable[..., Any]] = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "multiclass_hinge": losses.multiclass_hinge,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "huber": losses.huber,
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


def input_shape(config: Config) -> tuple[int, ...] | None:
    """The shape of one example as the model takes it; None where a `chain` does not say."""
    spec = config.model
    if spec.name == "cnn":
        wanted: tuple[int, ...] | None = spec.input
    elif spec.name == "resnet20":
        wanted = (32, 32, 3)
    elif spec.name == "chain":
        wanted = spec.input
    else:
        given = EXAMPLES.get(config.data.name)
        d_in = spec.widths[0] if spec.name == "mlp" else spec.d_in
        if given is not None and math.prod(given) != d_in:
            key = "widths[0]" if spec.name == "mlp" else "d_in"
            raise ConfigError(
                f"model.{key}: {spec.name} takes {d_in} numbers, but an example of {config.data.name} is "
                f"{list(given)}, {math.prod(given)} numbers"
            )
        return given or (d_in,)
    given = EXAMPLES.get(config.data.name)
    if wanted is not None and given is not None and wanted != given:
        raise ConfigError(
            f"model.input: {spec.name} takes {list(wanted)}, but an example of {config.data.name} is {list(given)}"
        )
    return wanted or given


def model(config: Config) -> nn.Layer[Any, Any]:
    """The model, with what its data needs in front: bytes become numbers in [0, 1], pictures one axis for an `mlp`.

    Raises:
      ConfigError: it does not fit the data, or a layer of a `chain` is wrong.
    """
    shape = input_shape(config)
    spec = config.model
    front: dict[str, nn.Layer[Any, Any]] = {}
    if config.data.name == "mnist":
        front["rescale"] = nn.Rescale(1 / 255)
    try:
        if spec.name == "chain":
            body = spec.build()
        elif spec.name == "mlp":
            body = models.mlp(spec.widths, spec.activation, spec.dropout, spec.norm)
        elif spec.name == "linear":
            body = models.linear(spec.d_in, spec.classes)
        elif spec.name == "resnet20":
            body = models.resnet20(spec.classes)
        else:
            body = models.cnn(**spec.model_dump(exclude={"name"}))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    if spec.name in ("mlp", "linear") and shape is not None and len(shape) > 1:
        front["flatten"] = nn.Flatten(len(shape))
    return nn.Chain(**front, **body.children()) if front else body


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
