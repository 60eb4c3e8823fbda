"""A loss for transforms that evaluate it themselves, so that they run through the same tables as the others."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import optim
from dlkit.optim.transform import call_update


def bowl(params: Any) -> Any:
    """A sum of squared distances from 0.5, whatever the tree."""
    return sum(jnp.sum(jnp.square(p - jnp.asarray(0.5, p.dtype)), dtype=jnp.float32) for p in jax.tree.leaves(params))


@dataclass(frozen=True)
class Valued(optim.Transform[Any]):
    """`inner`, given the value and the gradient of the bowl."""

    inner: Any

    def init(self, params: Any) -> Any:
        return self.inner.init(params)

    def update(self, grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return call_update(self.inner, grads, state, params, {"value": bowl(params), "value_fn": bowl})
