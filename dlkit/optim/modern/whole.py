"""What the rules here need of a tree as a whole: sums over all leaves, and a copy of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import schedule_value
from dlkit.optim.leaves import real_dtype, widest, zeros_like

__all__ = ["copied", "dot", "rate_at", "sum_of", "wide_dtype"]


def wide_dtype(*trees: Any) -> Any:
    """float32, and float64 where a leaf is: the dtype of sums, so that none is rounded to bfloat16."""
    leaves = [leaf for tree in trees for leaf in jax.tree.leaves(tree)]
    return widest(jnp.dtype(jnp.float32), *(real_dtype(jnp.result_type(leaf)) for leaf in leaves))


def sum_of(terms: Any, dtype: Any) -> Float[Array, ""]:
    """The sum of the elements of all leaves; 0 for a tree without leaves."""
    total = jnp.zeros((), dtype)
    for leaf in jax.tree.leaves(terms):
        total += jnp.sum(jnp.asarray(leaf, dtype))
    return total


def dot(a: Any, b: Any, dtype: Any) -> Float[Array, ""]:
    """The inner product of two trees, in `dtype`; of complex ones Re sum conj(a) b."""

    def product(x: Any, y: Any) -> Any:
        if not (jnp.iscomplexobj(x) or jnp.iscomplexobj(y)):
            return jnp.asarray(x, dtype) * jnp.asarray(y, dtype)
        return sum(part(x).astype(dtype) * part(y).astype(dtype) for part in (jnp.real, jnp.imag))

    return sum_of(jax.tree.map(product, a, b), dtype)


def copied(owner: str, params: Any, dtype: Any = None) -> Any:
    """The parameters in buffers of their own (so that a step may donate both), strongly typed."""
    zeros_like(owner, params)  # the same error for leaves that are no floating-point numbers
    return jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p) if dtype is None else jnp.dtype(dtype)), params)


def rate_at(owner: str, learning_rate: Any, count: Any, dtype: Any) -> Float[Array, ""]:
    """The learning rate of update number `count`, in `dtype`."""
    return schedule_value(owner, learning_rate, count).astype(dtype)
