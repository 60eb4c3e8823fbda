"""The length of one leaf, bounded from below, with a gradient that is finite at zero."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.leaves import abs_sq, real_dtype, widest
from dlkit.optim.traced import as_dtype

__all__ = ["bounded_root", "leaf_norm", "leaf_rms", "sum_sq", "tree_sum_sq"]


def sum_sq(x: Any, axis: Any = None, keepdims: bool = False) -> Float[Array, "..."]:
    """The sum of |x|^2, in float32 or wider: a bfloat16 sum would stop growing at 256 ones."""
    return jnp.sum(abs_sq(_wide(x)), axis=axis, keepdims=keepdims)


def tree_sum_sq(of: Any) -> Float[Array, ""]:
    """The sum of |x|^2 over all leaves, in float32 or wider."""
    squares = [sum_sq(leaf) for leaf in jax.tree.leaves(of)]
    dtype = widest(jnp.dtype(jnp.float32), *(square.dtype for square in squares))
    return sum((square.astype(dtype) for square in squares), start=jnp.zeros((), dtype))


def leaf_norm(x: Any, least: Any = 0.0) -> Float[Array, ""]:
    """max(|x|, least), where |x| is the l2 norm of all elements. Its gradient is 0 where `least` is returned.

    >>> leaf_norm(jnp.array([3.0, 4.0])), leaf_norm(jnp.zeros(2), 1e-3)
    (Array(5., dtype=float32), Array(0.001, dtype=float32))
    """
    return bounded_root(sum_sq(x), least)


def leaf_rms(x: Any, least: Any = 0.0) -> Float[Array, ""]:
    """max(sqrt(mean of |x|^2), least). Its gradient is 0 where `least` is returned.

    >>> leaf_rms(jnp.array([1.0, 7.0])), leaf_rms(jnp.zeros(2), 1e-3)
    (Array(5., dtype=float32), Array(0.001, dtype=float32))
    """
    return bounded_root(jnp.mean(abs_sq(_wide(x))), least)


def bounded_root(square: Array, least: Any = 0.0) -> Array:
    """max(sqrt(square), least), with the slope 0 where `least` is returned."""
    bound = as_dtype(least, square.dtype)
    below = square <= bound * bound  # False for NaN, which is passed on
    # The inner `where` keeps the infinite slope of sqrt(0) out of the branch that is not taken.
    return jnp.where(below, bound, jnp.sqrt(jnp.where(below, jnp.ones_like(square), square)))


def _wide(x: Any) -> Array:
    own = jnp.result_type(x)
    wide = widest(real_dtype(own), jnp.dtype(jnp.float32))
    return jnp.asarray(x, wide) if not jnp.iscomplexobj(x) else jnp.asarray(x)
