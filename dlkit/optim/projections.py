"""Projections of a whole tree, taken as one vector, onto convex sets: the nearest feasible point.

>>> projection_simplex({"a": jnp.array([2.0, 0.5]), "b": jnp.array([0.0])})
{'a': Array([1., 0.], dtype=float32), 'b': Array([0.], dtype=float32)}
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.leaves import check_like, widest
from dlkit.optim.traced import as_dtype

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]


def _map(fn: Any, tree: Any, *rest: Any) -> Any:
    return jax.tree.map(lambda x, *others: fn(jnp.asarray(x), *others).astype(jnp.result_type(x)), tree, *rest)


def _wide(tree: Any) -> Any:
    return widest(jnp.dtype(jnp.float32), *(jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)))


def _vector(tree: Any) -> Array:
    dtype = _wide(tree)
    return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, dtype)) for leaf in jax.tree.leaves(tree)])


def _dot(a: Any, b: Any) -> Array:
    dtype = widest(_wide(a), _wide(b))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    total = jnp.zeros((), dtype)
    for x, y in pairs:
        total += jnp.sum(jnp.asarray(x, dtype) * jnp.asarray(y, dtype))
    return total


def projection_non_negative(tree: Any) -> Any:
    """max(x, 0), element by element."""
    return _map(lambda x: jnp.maximum(x, jnp.zeros_like(x)), tree)


def projection_box(tree: Any, lower: Any, upper: Any) -> Any:
    """lower <= x <= upper, element by element; the bounds are numbers or trees with the structure of `tree`."""

    def bound(of: Any) -> Any:
        one = len(jax.tree.leaves(of)) == 1 and jax.tree.structure(of) != jax.tree.structure(tree)
        return jax.tree.map(lambda _: of, tree) if one else of

    return _map(
        lambda x, low, high: jnp.clip(x, as_dtype(low, x.dtype), as_dtype(high, x.dtype)),
        tree,
        bound(lower),
        bound(upper),
    )


def projection_hypercube(tree: Any, scale: Any = 1) -> Any:
    """0 <= x <= scale, element by element."""
    return projection_box(tree, 0, scale)


def projection_linf_ball(tree: Any, scale: Any = 1) -> Any:
    """|x| <= scale, element by element."""
    return projection_box(tree, -scale, scale)


def projection_l2_ball(tree: Any, scale: Any = 1) -> Any:
    """The length of the whole tree is at most `scale`: x min(1, scale / |x|)."""
    norm = jnp.sqrt(_dot(tree, tree))
    scale = as_dtype(scale, norm.dtype)
    factor = jnp.where(norm > scale, scale / jnp.where(norm > scale, norm, 1), 1)
    return _map(lambda x: x * factor.astype(x.dtype), tree)


def projection_l2_sphere(tree: Any, scale: Any = 1) -> Any:
    """The length of the whole tree is `scale`: x scale / |x|. Zero, from which all points are as far, stays zero."""
    norm = jnp.sqrt(_dot(tree, tree))
    factor = as_dtype(scale, norm.dtype) / jnp.where(norm == 0, 1, norm)
    return _map(lambda x: x * factor.astype(x.dtype), tree)


def _threshold(values: Array, scale: Array) -> Array:
    """The t for which sum max(values - t, 0) = scale, by sorting: Duchi et al., 2008."""
    ordered = jnp.sort(values)[::-1]
    sums = jnp.cumsum(ordered) - scale
    counts = jnp.arange(1, values.size + 1, dtype=values.dtype)
    kept = jnp.sum(ordered * counts > sums)  # how many stay above 0
    return jnp.take(sums, kept - 1) / kept.astype(values.dtype)


def projection_simplex(tree: Any, scale: Any = 1) -> Any:
    """x >= 0, with the sum `scale` over the whole tree: max(x - t, 0) for the one t that has it.

    Reference: Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", 2008.
    """
    values = _vector(tree)
    t = _threshold(values, as_dtype(scale, values.dtype))
    return _map(lambda x: jnp.maximum(x.astype(t.dtype) - t, 0), tree)


def projection_l1_sphere(tree: Any, scale: Any = 1) -> Any:
    """The sum of |x| over the whole tree is `scale`: the projection of |x| onto the simplex, with the signs of x."""
    values = _vector(tree)
    t = _threshold(jnp.abs(values), as_dtype(scale, values.dtype))
    return _map(lambda x: jnp.sign(x).astype(t.dtype) * jnp.maximum(jnp.abs(x).astype(t.dtype) - t, 0), tree)


def projection_l1_ball(tree: Any, scale: Any = 1) -> Any:
    """The sum of |x| over the whole tree is at most `scale`."""
    values = jnp.abs(_vector(tree))
    inside = jnp.sum(values) <= as_dtype(scale, values.dtype)
    on_sphere = projection_l1_sphere(tree, scale)
    return jax.tree.map(lambda x, y: jnp.where(inside, jnp.asarray(x), y), tree, on_sphere)


def projection_vector(x: Any, a: Any) -> Any:
    """The multiple of `a` that is nearest to `x`: <x, a> / <a, a> a. 0 where a is 0."""
    check_like("projection_vector", "a does not match x", x, a)
    return _along(_dot(x, a), a, x)


def _along(amount: Array, a: Any, like: Any) -> Any:
    square = _dot(a, a)
    factor = amount / jnp.where(square == 0, 1, square)
    return _map(lambda x, d: factor.astype(factor.dtype) * jnp.asarray(d, factor.dtype), like, a)


def projection_hyperplane(x: Any, a: Any, b: Any) -> Any:
    """<a, x> = b."""
    check_like("projection_hyperplane", "a does not match x", x, a)
    dot = _dot(a, x)
    return _minus(x, _along(dot - as_dtype(b, dot.dtype), a, x))


def projection_halfspace(x: Any, a: Any, b: Any) -> Any:
    """<a, x> <= b."""
    check_like("projection_halfspace", "a does not match x", x, a)
    dot = _dot(a, x)
    return _minus(x, _along(jnp.maximum(dot - as_dtype(b, dot.dtype), 0), a, x))


def _minus(x: Any, y: Any) -> Any:
    return _map(lambda p, q: p - q, x, y)
