"""Random directions in a tree of parameters, and differences of the loss along them."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import tree
from dlkit.optim.leaves import leafwise, need_params, widest

__all__ = ["check_floating", "estimate", "need_value_fn", "value_dtype", "value_of"]


def need_value_fn(owner: str, params: Any, value_fn: Any) -> None:
    """Raise unless `update` was given the parameters and the loss as a function of them."""
    need_params(owner, params)
    if value_fn is None:
        raise ValueError(
            f"{owner}: it evaluates the loss itself: call update(grads, state, params, value_fn=loss), where "
            f"loss(params) is a scalar (`fit` and `make_step` do), got value_fn=None"
        )
    check_floating(owner, params)


def check_floating(owner: str, params: Any) -> None:
    """Raise TypeError where a leaf is not real and floating-point: it cannot be moved by a little."""
    for path, leaf in tree.flatten(params).items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{owner}: it works on real floating-point parameters; {path!r} is {jnp.result_type(leaf)}. "
                f"Keep it out of the parameters"
            )


def value_dtype(params: Any) -> Any:
    """The dtype for values of the loss: float32, or wider where a parameter is."""
    return widest(jnp.dtype("float32"), *(jnp.result_type(leaf) for leaf in jax.tree.leaves(params)))


def value_of(owner: str, value_fn: Callable[[Any], Any], params: Any, dtype: Any) -> Float[Array, ""]:
    """The loss, as a scalar of this dtype: a difference of two bfloat16 values has no digits left."""
    value = jnp.asarray(value_fn(params), dtype)
    if value.shape != ():
        raise ValueError(f"{owner}: value_fn gave an array of shape {value.shape}, wanted a scalar")
    return value


def estimate(
    owner: str,
    grads: Any,
    params: Any,
    value_fn: Callable[[Any], Any],
    value: Any,
    *,
    draw: Callable[[Array, Any], Array],
    key: Array,
    step: Float[Array, ""],
    samples: int,
    central: bool,
) -> Any:
    """The mean over directions u of u (f(p + c u) - f(p - c u)) / (2 c), or of u (f(p + c u) - f(p)) / c.

    Each direction is drawn leaf by leaf with a key of the leaf's path, in float32: it depends neither on the order of
    the leaves nor on their dtypes. One direction and one moved copy of the parameters are in memory at a time.
    """
    dtype = value_dtype(params)
    step = step.astype(dtype)
    base = jnp.zeros((), dtype)
    if not central:
        base = value_of(owner, value_fn, params, dtype) if value is None else jnp.asarray(value, dtype)

    def moved(directions: Any, size: Array) -> Any:
        return jax.tree.map(lambda p, u: p + size.astype(p.dtype) * u, params, directions)

    def one(key: Array) -> Any:
        def of_leaf(path: str, p: Any) -> Array:
            own = jax.random.fold_in(key, zlib.crc32(path.encode()) & 0x7FFFFFFF)
            return draw(own, jnp.shape(p)).astype(jnp.result_type(p))

        directions = tree.map_with_path(of_leaf, params)
        ahead = value_of(owner, value_fn, moved(directions, step), dtype)
        if central:
            slope = (ahead - value_of(owner, value_fn, moved(directions, -step), dtype)) / (2 * step)
        else:
            slope = (ahead - base) / step
        return leafwise(owner, lambda g, u: slope.astype(u.dtype) * u, grads, read=(directions,))[0]

    if samples == 1:
        return one(key)
    keys = jax.random.split(key, samples)
    total, _ = jax.lax.scan(
        lambda total, k: (jax.tree.map(jnp.add, total, one(k)), None),
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, key)),
        keys,
    )
    return jax.tree.map(lambda leaf: leaf / samples, total)
