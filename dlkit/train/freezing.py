"""Parameters and statistics that stay as they are: what a run does with its `freeze` globs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import tree
from dlkit.nn import EVAL, Layer, Mode, map_layers
from dlkit.train.task import Task

__all__ = ["frozen_task", "join", "keep_frozen", "trainable"]


def _matched(of: Any, freeze: Sequence[str]) -> dict[str, bool]:
    return tree.flatten(tree.match(of, freeze, required=False))


def _check(params: Any, state: Any, freeze: Sequence[str]) -> None:
    """Raises ValueError for a glob that matches neither a parameter nor what the model remembers."""
    for glob in freeze:
        if not any(_matched(params, [glob]).values()) and not any(_matched(state, [glob]).values()):
            try:
                tree.match(params, glob)
            except ValueError as error:
                raise ValueError(f"freeze: {error}") from None


def trainable(params: Any, state: Any, freeze: Sequence[str]) -> Any:
    """The parameters with None for every leaf whose path a glob matches: what is differentiated and optimized.

    Raises:
      ValueError: a glob matches nothing, neither a parameter nor what the model remembers.
    """
    if not freeze:
        return params
    _check(params, state, freeze)
    frozen = tree.match(params, freeze, required=False)
    return jax.tree.map(lambda held, p: None if held else p, frozen, params)


def join(trained: Any, params: Any) -> Any:
    """The whole tree: of `trained` where it holds a leaf, else of `params`."""
    return jax.tree.map(lambda t, p: p if t is None else t, trained, params, is_leaf=lambda leaf: leaf is None)


def keep_frozen(old: Any, new: Any, freeze: Sequence[str]) -> Any:
    """What the model remembers after a step: the old leaves where a glob matches their paths."""
    if not freeze:
        return new
    frozen = tree.match(old, freeze, required=False)
    return jax.tree.map(lambda held, o, n: o if held else n, frozen, old, new)


@dataclass(frozen=True)
class _Still(Layer[Any, Any]):
    """A layer that runs as in evaluation, whatever the mode."""

    layer: Layer[Any, Any]

    def children(self) -> dict[str, Layer]:
        return {"": self.layer}  # the same paths as those of the layer itself

    def init(self, key: Any) -> Any:
        return self.layer.init(key)

    def init_state(self) -> Any:
        return self.layer.init_state()

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        return self.layer.init_cache(batch, length, dtype)

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        return self.layer.apply(params, state, x, EVAL, **inputs)


def frozen_task(task: Task, freeze: Sequence[str]) -> Task:
    """The task with a model whose frozen statistics are used, and not only kept.

    A layer that remembers (a `BatchNorm`), and all of whose statistics are matched by the globs, runs as in evaluation:
    it normalizes by what it remembers, so that what is trained on top of it sees what it will see later. Dropout in a
    frozen part goes on: it is not remembered.
    """
    if not freeze:
        return task
    states = _matched(jax.eval_shape(task.model.init_state), freeze)

    def still(path: str, layer: Layer) -> Layer:
        if layer.children() or layer.init_state() is None:
            return layer
        own = [held for where, held in states.items() if where == path or where.startswith(f"{path}/" if path else "")]
        return _Still(layer) if own and all(own) else layer

    model = map_layers(still, task.model)
    return task if model is task.model else replace(task, model=model)
