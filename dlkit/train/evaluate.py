"""Evaluating a model on a whole dataset, and predicting: one trace, any number of examples, each counted once."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.data import Arrays, Loader
from dlkit.nn import EVAL, Layer
from dlkit.train.feed import feed, replicated
from dlkit.train.inputs import check_arrays
from dlkit.train.step import Compiled, describe, evaluation_step
from dlkit.train.sums import Packing, add, empty, merge_many
from dlkit.train.task import Task

__all__ = ["evaluate", "predict"]


@functools.lru_cache(maxsize=32)
def _measure(task: Task) -> Any:
    return jax.jit(functools.partial(evaluation_step, task), inline=True)


@functools.lru_cache(maxsize=32)
def _accumulate(task: Task) -> Compiled:
    """Shared by all evaluations of equal tasks, so that the second one does not compile."""

    def body(params: Any, state: Any, packed: Any, batch: Mapping[str, Any]) -> Any:
        measured = _measure(task)(params, state, batch)
        packing = Packing(empty(task.table(), measured))
        piece, growing = add(task.table(), packing.unpack(packed), measured, jnp.zeros((), jnp.int32))
        return packing.pack(piece), growing

    return Compiled("evaluation", body, donate=False, max_traces=None)


@functools.lru_cache(maxsize=32)
def _forward(model: Layer[Any, Any]) -> Compiled:
    def body(params: Any, state: Any, x: Any) -> Any:
        return model.apply(params, state, x, EVAL)[0]

    return Compiled("prediction", body, donate=False, max_traces=None)


def _whole(batch_size: int, sharding: Any) -> int:
    """A batch size that the devices divide. Padding has weight 0, so it changes no result."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    devices = 1 if sharding is None else len(sharding.device_set)
    return devices * math.ceil(batch_size / devices)


def evaluate(
    task: Task, params: Any, state: Any, dataset: Arrays, *, batch_size: int = 256, sharding: Any = None
) -> dict[str, Any]:
    """The loss and the metrics of the task over a whole dataset, each example counted once.

    Sums are added up on the device and divided once, at the end, so the values do not depend on `batch_size`, on the
    ragged last batch, or on the number of devices, beyond float rounding. The step is traced once for a batch size, and
    not again by later calls with an equal task.

    Args:
      task, params, state: what to evaluate, in mode `EVAL`. `loss` is that of the data, without a regularizer.
      dataset: the examples, in their own order.
      batch_size: examples at a time. With a sharding it is rounded up to a multiple of the devices.
      sharding: how the rows of a batch lie on devices; None for the default device.

    Returns:
      A dict with `loss` and the metrics: floats, and arrays where a metric has one.

    >>> from dlkit import data, losses, metrics, nn
    >>> task = Task(nn.Linear(1, 2), losses.cross_entropy, {"accuracy": metrics.Accuracy()})
    >>> params = {"w": jnp.array([[-1.0, 1.0]]), "b": jnp.zeros(2)}
    >>> ds = data.Arrays(x=np.array([[-1.0], [2.0], [3.0]], np.float32), y=np.array([0, 1, 0]))
    >>> round(evaluate(task, params, None, ds, batch_size=2)["accuracy"], 3)
    0.667

    Raises:
      TypeError: the dataset is no `Arrays`.
      ValueError: `batch_size` is below 1, or the batch does not fit the task.
      DonatedError: params or state were given to a training step.
    """
    check_arrays("dataset", dataset)
    loader = Loader(dataset, _whole(batch_size, sharding), shuffle=False)
    step, table = _accumulate(task), task.table()
    if sharding is not None:
        params, state = jax.device_put((params, state), replicated(sharding))
    grown: list[Any] = []
    piece: Any = None
    packing: Any = None
    with feed(loader, 0, 0, sharding) as batches:
        for batch in batches:
            try:
                if piece is None:
                    shapes = jax.eval_shape(_measure(task), params, state, batch)
                    zeros = empty(table, shapes)
                    packing = Packing(zeros)
                    piece = jax.device_put(packing.pack(zeros), replicated(sharding))
                piece, growing = step.jitted(params, state, piece, batch)
            except Exception as error:
                explained = step.explain(error, params, state)
                if explained is error:
                    raise
                raise explained from None
            if growing:
                grown.append(growing)
            if sharding is not None and len(sharding.device_set) > 1:
                jax.block_until_ready(piece)  # devices simulated on few cores deadlock if the loop runs ahead
    packed, grown = jax.device_get((piece, grown))
    sums = {**packing.unpack(packed).sums, **(merge_many(table, grown) or {})}
    return task.result({name: sums[name] for name in table})


def predict(model: Layer[Any, Any], params: Any, state: Any, x: Any, *, batch_size: int = 256) -> Any:
    """The outputs of the model in mode `EVAL` for any number of examples, as numpy arrays.

    Args:
      model, params, state: as in `model.apply(params, state, x, EVAL)`.
      x: an array `[N, ...]`, or a pytree of them with equal N, N at least 1.
      batch_size: examples at a time. The last batch is filled up and cut again, so the model is traced once.

    Returns:
      `[N, ...]`, or a pytree of such arrays if the model's output is one.

    >>> from dlkit import nn
    >>> predict(nn.Linear(2, 1), {"w": jnp.ones((2, 1)), "b": jnp.zeros(1)}, None, np.ones((3, 2), np.float32))
    array([[2.], [2.], [2.]], dtype=float32)

    Raises:
      ValueError: no example, unequal lengths, or `batch_size` below 1.
      DonatedError: params or state were given to a training step.
    """
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in jax.tree.leaves(x)}
    if len(lengths) != 1 or not isinstance(n := lengths.pop(), int) or n < 1 or batch_size < 1:
        raise ValueError(
            f"predict got x {describe(x)} and batch_size {batch_size}: expected arrays [N, ...] of one N >= 1 and a "
            f"batch size of at least 1"
        )
    forward = _forward(model)

    def rows() -> Iterator[Any]:
        for start in range(0, n, batch_size):
            index = np.arange(start, start + batch_size)
            index[index >= n] = 0
            yield jax.tree.map(lambda a, index=index: np.asarray(a).take(index, axis=0), x)

    outputs: list[Any] = []
    waiting: Any = None
    for batch in rows():
        try:
            made = forward.jitted(params, state, jax.device_put(batch))
        except Exception as error:
            explained = forward.explain(error, params, state)
            if explained is error:
                raise
            raise explained from None
        if waiting is not None:  # one batch late: the device works on the next one meanwhile
            outputs.append(jax.device_get(waiting))
        waiting = made
    outputs.append(jax.device_get(waiting))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *outputs)
