"""What is learned: a model, a loss, and what is measured beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.losses import weighted_mean
from dlkit.metrics.metric import Average, Metric, spread, total, widened
from dlkit.nn import Layer, Mode

__all__ = ["Task"]

Batch = Mapping[str, Any]


class _Loss(Average):
    """How the sums of the loss become its mean; they are measured by the task itself."""

    def values(self, outputs: Array, targets: Array) -> Array:
        raise TypeError("the loss of a task is measured by the task")


_LOSS = _Loss()


@dataclass(frozen=True)
class Task:
    r"""A model, its loss and its metrics: a value, so that two equal tasks share one compiled step.

    The number that is differentiated is

    .. math:: L = \frac{\sum_i w_i\, \ell(f(x_i), y_i)}{\sum_i w_i} + R(\text{params})

    with the batch's weights w, so the padded rows of a last batch count for nothing in the loss and the metrics. A
    layer that mixes the examples of a batch sees them, though: in training, `BatchNorm` takes its mean and variance
    over all rows, also over the repeated examples that fill the last batch. A `Loader(..., drop_last=True)` leaves that
    batch out.

    Args:
      model: `model.apply(params, state, x, mode) -> (outputs, state)`.
      loss: `loss(outputs, targets) -> [B]` or `[B, T]`: one value an example or token, never reduced.
      metrics: by name, a mapping or pairs; measured in the compiled step, in training on the same outputs.
      regularizer: R, from the parameters to a number; None for none. It is reported apart, as `penalty`.
      inputs: the batch's field that the model takes; a tuple of names gives it a tuple.
      targets: the field (or fields) that loss and metrics compare with.

    >>> from dlkit import losses, metrics, nn
    >>> task = Task(nn.Linear(4, 3), losses.cross_entropy, {"accuracy": metrics.Accuracy()})
    >>> params = task.model.init(jax.random.key(0))
    >>> batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 2]), "weight": jnp.ones(2)}
    >>> loss, (state, outputs) = task.loss_fn(params, None, batch, nn.EVAL)
    >>> loss.shape, outputs.shape
    ((), (2, 3))

    Raises:
      ValueError: two metrics of one name, or one called `loss`, `penalty` or as the optimizer's numbers are:
        `learning_rate`, `grad_norm`, `update_norm`, `loss_scale`.
      TypeError: a metric without `measure`, `merge` and `result`.
    """

    model: Layer[Any, Any]
    loss: Callable[..., Any]
    metrics: Any = ()
    regularizer: Callable[[Any], Any] | None = None
    inputs: str | tuple[str, ...] = "x"
    targets: str | tuple[str, ...] = "y"

    def __post_init__(self) -> None:
        pairs = tuple(self.metrics.items() if isinstance(self.metrics, Mapping) else self.metrics)
        names = [name for name, _ in pairs]
        taken = ("loss", "penalty", "learning_rate", "grad_norm", "update_norm", "loss_scale")
        reserved = set(taken) & set(names)
        if reserved or len(set(names)) < len(names):
            raise ValueError(f"metrics are called {names}: expected distinct names, none of {', '.join(taken)}")
        for name, metric in pairs:
            if not isinstance(metric, Metric):
                raise TypeError(
                    f"metric {name!r} is {metric!r}: expected one of dlkit.metrics, or a Metric of your own; "
                    f"metrics.Mean(fn) makes one of a function"
                )
        object.__setattr__(self, "metrics", pairs)

    def loss_fn(self, params: Any, state: Any, batch: Batch, mode: Mode) -> tuple[Float[Array, ""], tuple[Any, Any]]:
        """`(loss, (state, outputs))` for one batch: differentiate it with `jax.value_and_grad(..., has_aux=True)`.

        Raises:
          ValueError: the batch lacks a field, or the loss is not one value an example. TypeError: it is no array.
        """
        loss, (state, outputs, _) = self.loss_and_sums(params, state, batch, mode)
        return loss, (state, outputs)

    def loss_and_sums(self, params: Any, state: Any, batch: Batch, mode: Mode) -> tuple[Any, tuple[Any, Any, Any]]:
        """As `loss_fn`, with the measured sums by name: `(loss, (state, outputs, sums))`."""
        x, y, weight = _fields(batch, self.inputs), _fields(batch, self.targets), batch.get("weight")
        outputs, state = self.model.apply(params, state, x, mode)
        losses = self.loss(outputs, y)
        if losses is None or isinstance(losses, tuple | dict):
            raise TypeError(
                f"the loss returned {losses!r}: expected an array with one value an example, [B] or [B, ...]"
            )
        losses = jnp.asarray(losses)
        rows = jnp.shape(jax.tree.leaves(x)[0])[0]
        if losses.ndim == 0 or losses.shape[0] != rows:
            raise ValueError(
                f"the loss returned shape {list(losses.shape)} for a batch of {rows} examples: expected one value "
                f"an example, [{rows}] or [{rows}, ...]; leave the mean to the task"
            )
        loss = weighted_mean(losses, weight)
        weights = spread(weight, losses.shape, widened(losses).dtype)
        sums: dict[str, Any] = {
            "loss": {"sum": total(losses, weights), "weight": total(jnp.ones_like(losses), weights)}
        }
        for name, metric in self.metrics:
            try:
                sums[name] = metric.measure(outputs, y, weight)
            except Exception as error:
                error.add_note(f"in metric {name!r}")
                raise
        if self.regularizer is not None:
            penalty = jnp.asarray(self.regularizer(params))
            sums["penalty"] = penalty
            loss = loss + penalty.astype(loss.dtype)
        return loss, (state, outputs, jax.lax.stop_gradient(sums))

    def table(self) -> dict[str, Metric]:
        """The metrics by name, `loss` first."""
        return {"loss": _LOSS, **dict(self.metrics)}

    def result(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """The values that the sums of a step (or merged ones) stand for: floats and arrays, on the host.

        Values that are no sums, such as the learning rate, are passed on as floats.
        """
        table, values = self.table(), {}
        for name in (*(n for n in table if n in sums), *(n for n in sums if n not in table)):  # loss first
            held = sums[name]
            value = table[name].result(held) if name in table else float(held)
            values |= {f"{name}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        return values


def _fields(batch: Batch, names: str | tuple[str, ...]) -> Any:
    missing = [name for name in ([names] if isinstance(names, str) else names) if name not in batch]
    if missing:
        raise ValueError(f"the batch has no field {missing[0]!r}: it has {', '.join(batch)}; name it in the Task")
    return batch[names] if isinstance(names, str) else tuple(batch[name] for name in names)
