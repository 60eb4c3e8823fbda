"""Averages of trained models: of checkpoints, and the statistics that averaged parameters need."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.data import Arrays, Loader
from dlkit.nn import BatchNorm, Layer, map_layers, training
from dlkit.train import checkpoint
from dlkit.train.inputs import check_arrays
from dlkit.train.leaves import is_key

__all__ = ["average_checkpoints", "update_batch_norm"]


def average_checkpoints(
    paths: Sequence[str | Path],
    template: Any,
    *,
    weights: Sequence[float | int] | None = None,
    ignore: Sequence[str] = (),
) -> Any:
    """The mean of several checkpoints, leaf by leaf: one model from the last ones of a run, or from several runs.

    Floating-point leaves are averaged in float64 and rounded once; of counts, keys and whole numbers the last
    checkpoint's are taken. Behind a `BatchNorm`, call `update_batch_norm` on the result.

    Args:
      paths: of single checkpoints, as `save` returns them and `latest` finds them.
      template: as that of `restore`.
      weights: how much each counts; by default all alike.
      ignore: globs of saved paths that the template may lack.

    Reference: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models", 2022.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> paths = [checkpoint.save(folder, t, {"w": jnp.full(2, float(t))}) for t in (1, 2)]
    >>> average_checkpoints(paths, {"w": jnp.zeros(2)})
    {'w': Array([1.5, 1.5], dtype=float32)}

    Raises:
      ValueError: no paths, or weights that do not fit or do not have a positive sum.
      CheckpointError: one cannot be read or does not fit the template.
    """
    shares = np.ones(len(paths)) if weights is None else np.asarray(weights, np.float64)
    if not len(paths) or shares.shape != (len(paths),) or not shares.sum() > 0:
        raise ValueError(f"wanted at least one checkpoint, and a weight for each, got {len(paths)} and {weights}")
    shares = shares / shares.sum()
    total: dict[str, np.ndarray] = {}
    last: Any = None
    for path, share in zip(paths, shares, strict=True):
        last = checkpoint.read(path).into(template, ignore=ignore)
        for name, leaf in tree.flatten(last).items():
            if _averages(leaf):
                wide = np.complex128 if jnp.iscomplexobj(leaf) else np.float64
                total[name] = total.get(name, 0) + share * np.asarray(leaf).astype(wide)

    def mean(name: str, leaf: Any) -> Any:
        if name not in total:
            return leaf
        value = jnp.asarray(total[name].astype(leaf.dtype))
        sharding = getattr(leaf, "sharding", None)
        return jax.device_put(value, sharding) if getattr(leaf, "committed", False) else value

    return tree.map_with_path(mean, last)


def _averages(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and not is_key(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def update_batch_norm(
    task: Any, params: Any, state: Any, data: Arrays | Loader, *, batch_size: int = 256, seed: int = 0
) -> Any:
    """The state with the statistics of every `BatchNorm` estimated anew for these parameters: averaged ones, say.

    The model runs over the data in training mode; the mean and the variance that it remembers are the plain means of
    those of the batches. Everything else that it remembers stays as it was. The last, incomplete batch is left out
    where there is a complete one.

    Args:
      task: the task, or its model.
      params, state: of the model; `state` is not changed.
      data: the training examples; or a `Loader`, whose first epoch is used.
      batch_size: as in training, for statistics like those. seed: of the dropout in the model.

    Differences. torch `swa_utils.update_bn`: equal, with batches of one size.

    >>> from dlkit import nn
    >>> model, x = nn.Chain(norm=nn.BatchNorm(1)), np.array([[1.0], [3.0], [5.0]], np.float32)
    >>> params, state = model.init(jax.random.key(0)), model.init_state()
    >>> update_batch_norm(model, params, state, Arrays(x=x))
    {'norm': {'mean': Array([3.], dtype=float32), 'var': Array([4.], dtype=float32)}}

    Raises:
      TypeError: `data` is no dataset. ValueError: the model has no `BatchNorm`, or the data not two examples.
    """
    model, inputs = (task, "x") if isinstance(task, Layer) else (task.model, task.inputs)
    found: list[str] = []

    def forget(path: str, layer: Layer) -> Layer:
        if not isinstance(layer, BatchNorm):
            return layer
        found.append(path)
        return dataclasses.replace(layer, decay=0.0)  # what it then remembers is the last batch's own

    measuring = map_layers(forget, model)
    if not found:
        raise ValueError("update_batch_norm: the model has no BatchNorm, so there is nothing to estimate")
    if not isinstance(data, Loader):
        check_arrays("data", data)
        size = min(batch_size, len(data))
        data = Loader(data, size, seed=seed, shuffle=False, drop_last=True)
    ours = tree.match(state, [f"{path}/*" if path else "*" for path in found])

    @jax.jit
    def add(total: Any, x: Any, key: Any) -> Any:
        _, after = measuring.apply(params, state, x, training(key))
        return jax.tree.map(lambda t, new: t + new.astype(t.dtype), total, after)

    total, n = jax.tree.map(lambda s: jnp.zeros_like(s, jnp.float32) if _averages(s) else s, state), 0
    for n, batch in enumerate(data.epoch(0), 1):
        x = batch[inputs] if isinstance(inputs, str) else tuple(batch[name] for name in inputs)
        total = add(total, x, jax.random.fold_in(jax.random.key(seed), n))
    return jax.tree.map(lambda mine, old, t: (t / n).astype(old.dtype) if mine else old, ours, state, total)
