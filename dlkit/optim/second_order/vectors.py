"""Trees of arrays as vectors: scalar products, sums, steps, and one flat vector for what needs a matrix."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import tree
from dlkit.optim.leaves import real_dtype, widest

__all__: list[str] = []


def scalar_dtype(*trees: Any) -> Any:
    """The dtype of values, slopes and scalar products: float32, or float64 where a leaf is."""
    leaves = [leaf for of in trees for leaf in jax.tree.leaves(of)]
    return widest(jnp.dtype(jnp.float32), *(real_dtype(jnp.result_type(leaf)) for leaf in leaves))


def dot(a: Any, b: Any) -> Float[Array, ""]:
    """Re sum conj(a) b over all leaves, in float32 at least."""
    dtype = scalar_dtype(a, b)
    total = jnp.zeros((), dtype)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.iscomplexobj(x) or jnp.iscomplexobj(y):
            total += jnp.sum(jnp.real(x) * jnp.real(y)).astype(dtype) + jnp.sum(jnp.imag(x) * jnp.imag(y)).astype(dtype)
        else:
            flat = jnp.ravel(jnp.asarray(x, dtype)), jnp.ravel(jnp.asarray(y, dtype))
            total += jnp.vdot(*flat, precision=jax.lax.Precision.HIGHEST)
    return total


def slope_along(grad: Any, direction: Any) -> Float[Array, ""]:
    """The derivative of the loss along `direction`: Re sum g d, in JAX's convention for complex parameters."""
    if any(jnp.iscomplexobj(g) for g in jax.tree.leaves(grad)):
        grad = jax.tree.map(jnp.conj, grad)
    return dot(grad, direction)


def norm(of: Any) -> Float[Array, ""]:
    return jnp.sqrt(dot(of, of))


def times(alpha: Any, of: Any) -> Any:
    """alpha x, every leaf in its own dtype."""
    return jax.tree.map(lambda x: jnp.asarray(alpha, x.dtype) * x, of)


def add(x: Any, y: Any, alpha: Any = 1.0) -> Any:
    """x + alpha y, for trees of the same dtypes."""
    return jax.tree.map(lambda a, b: a + jnp.asarray(alpha, b.dtype) * b, x, y)


def subtract(x: Any, y: Any) -> Any:
    return jax.tree.map(lambda a, b: a - jnp.asarray(b, a.dtype), x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def wide(of: Any) -> Any:
    """Every leaf in float32 at least: sums of many small terms are lost in bfloat16."""
    return jax.tree.map(lambda x: jnp.asarray(x, widest(jnp.dtype(jnp.float32), jnp.result_type(x))), of)


def cast_like(of: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), of, like)


def move(params: Any, direction: Any, alpha: Any = 1.0) -> Any:
    """params + alpha direction, rounded once to the dtypes of the parameters, as `apply_updates` does."""

    def step(p: Any, d: Any) -> Any:
        dtype = widest(jnp.result_type(p), jnp.result_type(d))
        d = jnp.asarray(alpha, jnp.result_type(d)) * d
        return (jnp.asarray(p, dtype) + jnp.asarray(d, dtype)).astype(jnp.result_type(p))

    return jax.tree.map(step, params, direction)


def finite(*of: Any) -> Any:
    """Whether every number is finite."""
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(of)]).all()


def flat(of: Any) -> tuple[Float[Array, "n"], Callable[[Any], Any]]:
    """The leaves as one vector in float32 at least, and the way back to a tree of the dtypes that they had."""
    leaves, structure = jax.tree.flatten(of)
    dtype = scalar_dtype(of)
    parts = [jnp.ravel(jnp.asarray(leaf, dtype)) for leaf in leaves]

    def back(vector: Any) -> Any:
        rows, start = [], 0
        for leaf in leaves:
            size = math.prod(jnp.shape(leaf))
            piece = vector[start : start + size].reshape(jnp.shape(leaf))
            rows.append(piece.astype(jnp.result_type(leaf)))
            start += size
        return jax.tree.unflatten(structure, rows)

    return (jnp.concatenate(parts) if parts else jnp.zeros(0, dtype)), back


def real_only(owner: str, params: Any) -> None:
    """Raise TypeError unless every leaf is real and floating-point."""
    for path, leaf in tree.flatten(params).items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{owner}: it works on real floating-point parameters; {path!r} is {jnp.result_type(leaf)}. "
                "Leave it out with `masked`"
            )
