"""How to run a layer: the key that random draws come from, and whether this is training.

The key is data and `train` is static metadata of the pytree, so plain `jax.jit(model.apply)` compiles once for
training and once for evaluation, with no `static_argnames`.
"""

import numbers
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["EVAL", "Mode", "fold_name", "training"]

AnyKey: TypeAlias = Array  # a typed key of `jax.random.key`, or the raw uint32 array of old


def fold_name(key: AnyKey, name: str) -> AnyKey:
    """The key of `name` below `key`: draws are keyed by name, so that adding a neighbour changes nobody's numbers."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


@dataclass(frozen=True)
class Mode:
    """How to run: `key` is where random draws come from (or None), `train` whether this is training.

    >>> mode = training(jax.random.key(0))
    >>> mode.train, mode.rng("dropout").shape, EVAL.rng("dropout")
    (True, (), None)
    """

    key: Any
    train: bool

    def rng(self, name: str) -> Any:
        """The key for the draw called `name`: `fold_in(key, name)`, or None in evaluation.

        Raises:
          ValueError: this is training and the mode has no key.
        """
        if not self.train:
            return None
        if self.key is None:
            raise ValueError(
                f"the draw {name!r} needs a key in training, but the mode has none: "
                f"pass training(key) instead of training(None)"
            )
        return fold_name(self.key, name)

    def at(self, name: str | int) -> "Mode":
        """The mode of a child: the name (or the index of a layer in a `Stack`) is folded into the key."""
        if self.key is None:
            return self
        fold: Callable[..., Any] = fold_name if isinstance(name, str) else jax.random.fold_in
        return replace(self, key=fold(self.key, name))

    def split(self, n: int) -> "Mode":
        """`n` modes stacked along a leading axis, for `scan` and `vmap`; the i-th equals `at(i)`."""
        if self.key is None:
            return self
        return replace(self, key=jax.vmap(jax.random.fold_in, (None, 0))(self.key, jnp.arange(n)))


jax.tree_util.register_dataclass(Mode, data_fields=["key"], meta_fields=["train"])

EVAL = Mode(None, False)


def training(key: AnyKey | None) -> Mode:
    """The mode of a training step. A model that draws nothing may be trained with `training(None)`.

    Raises:
      TypeError: `key` is a number: make a key of it with `jax.random.key(seed)`.
    """
    if isinstance(key, numbers.Number):
        raise TypeError(f"training wants a PRNG key, got {key!r}: write training(jax.random.key({key!r}))")
    return Mode(key, True)
