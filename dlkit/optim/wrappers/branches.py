"""Doing an update, or not: two branches with the same types."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlkit.optim.leaves import check_like, widest

__all__ = ["all_finite", "do_or_skip", "update_or_skip"]


def update_or_skip(owner: str, do: Any, update: Callable[[], Any], grads: Any, state: Any, *, keep: bool) -> Any:
    """`update() -> (updates, state)` where `do` is true; else no updates and the state as it was, bit for bit.

    With `keep`, the gradients stand for the updates of a step that is skipped; else zeros do.
    """
    like = jax.eval_shape(update)
    check_like(owner, "the inner transform changed the structure of its state", state, like[1])

    def skip() -> Any:
        idle = jax.tree.map(
            lambda g, u: jnp.asarray(g, widest(jnp.result_type(g), u.dtype)) if keep else jnp.zeros(u.shape, u.dtype),
            grads,
            like[0],
        )
        return idle, state

    return do_or_skip(do, update, skip)


def do_or_skip(do: Any, update: Callable[[], Any], skip: Callable[[], Any]) -> Any:
    """`lax.cond` whose branches may differ in weak types: those of `skip` count for all leaves but the updates."""
    like = jax.eval_shape(skip)

    def cast(of: Any) -> Any:
        return jax.tree.map(lambda leaf, want: jax.lax.convert_element_type(leaf, want.dtype), of, like)

    return jax.lax.cond(do, lambda: cast(update()), lambda: cast(skip()))


def all_finite(of: Any) -> jax.Array:
    """Whether no leaf holds an infinity or a NaN; true for a tree without leaves."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(of)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.asarray(True)
