"""Blocks that are written as numbers and built of layers: `Bottleneck(64, 256, stride=2)`."""

import functools
from typing import Any

import jax.numpy as jnp

from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode

__all__ = ["Recipe"]


class Recipe(Layer[Any, Any]):
    """A layer that `build` composes of others: parameters, state and random draws are those of what it builds.

    A subclass is a frozen dataclass of numbers with `build`; the layers stay readable, `block.build()`.
    """

    def build(self) -> Layer[Any, Any]:
        """The layers that this block stands for."""
        raise TypeError(f"{type(self).__name__} does not say what it is made of: give it a `build`")

    def children(self) -> dict[str, Layer]:
        return {"": _built(self)}  # transparent: the parameters of what it builds are its own

    def init(self, key: Any) -> Any:
        return _built(self).init(key)

    def init_state(self) -> Any:
        return _built(self).init_state()

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        return _built(self).init_cache(batch, length, dtype)

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Any, Any]:
        return _built(self).apply(params, state, x, mode)


@functools.lru_cache(maxsize=512)
def _built(recipe: Recipe) -> Layer[Any, Any]:
    # One object for equal recipes, by which the scope knows the child.
    return recipe.build()
