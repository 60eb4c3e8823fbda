"""Whether the parts of a run fit each other and the data, told from shapes alone, before anything is compiled."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from dlkit import data, nn, train
from dlkit.config.errors import ConfigError, nearest
from dlkit.config.schema import Config
from dlkit.train.freezing import trainable

__all__ = ["check_labels", "check_monitors", "check_shapes"]

CLASSIFIERS = ("cross_entropy", "focal", "multiclass_hinge")


def check_shapes(
    task: train.Task, optimizer: Any, training: data.Arrays, batch_size: int, freeze: tuple[str, ...] = ()
) -> Any:
    """The model's outputs for one batch, as shapes; model, loss, metrics, penalty and optimizer are traced.

    Raises:
      ConfigError: one of them refuses what it would get; the message begins with its section.
    """
    rows = min(batch_size, len(training))
    x, y = (_shapes(training, names, rows) for names in (task.inputs, task.targets))
    held = training["weight"].shape[1:] if "weight" in training else ()
    weight = jax.ShapeDtypeStruct((rows, *held), np.dtype(np.float32))
    model = task.model
    params, state = jax.eval_shape(model.init, jax.random.key(0)), jax.eval_shape(model.init_state)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return model.apply(params, state, x, nn.EVAL)[0]

    outputs = _traced("model", forward, params, state, x)
    each = _traced("loss", task.loss, outputs, y)
    if not each.shape or each.shape[0] != rows:
        raise ConfigError(
            f"loss: it gives shape {list(each.shape)} for outputs {_shape(outputs)} and targets {_shape(y)}: expected "
            f"one value an example, [{rows}]"
        )
    for name, metric in dict(task.metrics).items():
        _traced(f"metrics: {name}", metric.measure, outputs, y, weight)
    if task.regularizer is not None:
        _traced("regularizer", task.regularizer, params)
    trained = _traced("train.freeze", lambda p, s: trainable(p, s, freeze), params, state)
    if not jax.tree.leaves(trained):
        raise ConfigError(f"train.freeze: {', '.join(map(repr, freeze))} leave no parameter to train")
    _traced("optimizer", optimizer.init, trained)
    return outputs


def _shapes(training: data.Arrays, names: str | tuple[str, ...], rows: int) -> Any:
    if not isinstance(names, str):
        return tuple(_shapes(training, name, rows) for name in names)
    return jax.ShapeDtypeStruct((rows, *training[names].shape[1:]), training[names].dtype)


def _shape(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _traced(section: str, fn: Any, *args: Any) -> Any:
    try:
        return jax.eval_shape(fn, *args)
    except (ValueError, TypeError, ArithmeticError) as error:
        notes = [note for note in getattr(error, "__notes__", ()) if "JAX has removed" not in note]
        given = "" if section in ("regularizer", "optimizer", "train.freeze") else f" (given {_given(args)})"
        raise ConfigError(f"{section}: {'; '.join([str(error).strip(), *notes])}{given}") from None


def _given(args: Any) -> str:
    return " and ".join(_shape(a) for a in args if hasattr(a, "shape") and hasattr(a, "dtype"))


def check_labels(config: Config, outputs: Any, sets: Iterable[data.Arrays | None]) -> None:
    """That integer labels are classes of the model, in every part of the data.

    Raises:
      ConfigError: a label is none of them.
    """
    if config.loss.name not in CLASSIFIERS or len(outputs.shape) < 2:
        return
    classes = outputs.shape[-1]
    for held in sets:
        if held is None or held["y"].dtype.kind not in "iu" or not held["y"].size:
            continue
        low, high = int(held["y"].min()), int(held["y"].max())
        if low < 0 or high >= classes:
            raise ConfigError(
                f"data: there is a label {low if low < 0 else high}, but the model has {classes} classes, 0 to "
                f"{classes - 1}"
            )


def check_monitors(config: Config, task: train.Task, *, validated: bool) -> None:
    """That early stopping and checkpoints watch a number that the rows of an epoch have, and know its direction.

    Raises:
      ConfigError: there is no such number, or its name does not say which direction is better.
    """
    names = ["loss", *dict(task.metrics), *(["penalty"] if task.regularizer is not None else [])]
    known = [f"{part}/{name}" for part in ("valid", "train") for name in names]
    for key in ("early_stopping", "checkpoints"):
        spec = getattr(config.train, key)
        if spec is None or spec.monitor is None:
            continue
        where = f"train.{key}.monitor"
        if spec.monitor not in known:
            raise ConfigError(f"{where}: no number is called {spec.monitor!r}; {_closest(spec.monitor, known)}")
        if spec.monitor.startswith("valid/") and not validated:
            raise ConfigError(f"{where}: {spec.monitor!r} wants a validation set; data.valid is 0")
        try:
            train.EarlyStopping(spec.monitor, direction=spec.direction)
        except ValueError:
            raise ConfigError(
                f"{where}: say whether less of {spec.monitor!r} is better: train.{key}.direction = 'min' or 'max'"
            ) from None


def _closest(monitor: str, known: list[str]) -> str:
    """Without its part, `accuracy` is close to every name that ends so."""
    meant = [name for name in known if name.split("/")[-1] == monitor.split("/")[-1]]
    return f"did you mean {meant[0]!r}?" if meant else nearest(monitor, known)
