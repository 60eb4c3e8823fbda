"""Conjugate gradients on trees: to the solution, or to the first direction that curves down or leaves a ball."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.second_order import vectors
from dlkit.optim.traced import as_dtype

__all__ = ["CGInfo", "TruncatedPoint", "cg", "truncated_cg"]


class CGInfo(NamedTuple):
    steps: Int[Array, ""]  # products with the matrix
    residual_norm: Float[Array, ""]


def cg(
    matvec: Callable[[Any], Any],
    b: Any,
    x0: Any = None,
    *,
    tol: Any = 1e-5,
    atol: Any = 0.0,
    max_steps: int | None = None,
) -> tuple[Any, CGInfo]:
    """x with A x = b, for a symmetric positive definite A that is known by its products with trees like b.

    It ends when |b - A x| <= max(tol |b|, atol), after as many steps as A has distinct eigenvalues in exact arithmetic.
    In contrast to `jax.scipy.sparse.linalg.cg` it says how many it took, and what is left.

    Args:
      matvec: v -> A v.
      b: a tree of arrays.
      x0: where to begin; zeros by default.
      tol, atol: see above.
      max_steps: products at most; by default ten times the size of b.

    Returns:
      x, and `CGInfo(steps, residual_norm)`.

    Reference: Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.

    >>> curvature = jnp.array([1.0, 10.0, 100.0])
    >>> x, info = cg(lambda v: curvature * v, jnp.ones(3))
    >>> x.round(3), bool(info.steps <= 4)
    (Array([1.  , 0.1 , 0.01], dtype=float32), True)
    """
    b = vectors.wide(b)
    dtype = vectors.scalar_dtype(b)
    most = 10 * sum(leaf.size for leaf in jax.tree.leaves(b)) if max_steps is None else max_steps

    def product(v: Any) -> Any:
        return vectors.cast_like(matvec(v), b)

    x = jax.tree.map(jnp.zeros_like, b) if x0 is None else vectors.cast_like(x0, b)
    r = b if x0 is None else vectors.subtract(b, product(x))
    bound = jnp.maximum(as_dtype(tol, dtype) * vectors.norm(b), as_dtype(atol, dtype))

    def body(carry: Any) -> Any:
        x, r, d, rr, count = carry
        product_d = product(d)
        alpha = rr / vectors.dot(d, product_d)
        x, r = vectors.add(x, d, alpha), vectors.add(r, product_d, -alpha)
        new = vectors.dot(r, r)
        return x, r, vectors.add(r, d, new / rr), new, count + 1

    start = (x, r, r, vectors.dot(r, r), jnp.int32(0))
    x, _, _, rr, count = jax.lax.while_loop(lambda c: (jnp.sqrt(c[3]) > bound) & (c[4] < most), body, start)
    return x, CGInfo(count, jnp.sqrt(rr))


class TruncatedPoint(NamedTuple):
    """What `truncated_cg` found."""

    step: Any
    residual: Any  # g + B step
    steps: Int[Array, ""]  # products with the matrix
    curved_down: Bool[Array, ""]  # whether a direction of negative curvature ended it
    on_boundary: Bool[Array, ""]  # whether the step is as long as the radius


def truncated_cg(
    matvec: Callable[[Any], Any], grad: Any, *, tol: Any, max_steps: int, radius: Any = None
) -> TruncatedPoint:
    """A step p that lowers the model m(p) = <g, p> + <p, B p> / 2, for a symmetric B that may be indefinite.

    Conjugate gradients from p = 0 until |g + B p| <= tol, or a direction d with <d, B d> <= 0 turns up. Without a
    radius (algorithm 7.1) they then end where they are, in the first step at -g: always a direction of descent. With
    one (Steihaug's, algorithm 7.2) they follow d to the boundary, as they do when a step would cross it.

    Reference: Nocedal, Wright, "Numerical optimization", 2006, algorithms 7.1 and 7.2. Steihaug, "The conjugate
    gradient method and trust regions in large scale optimization", 1983.

    >>> found = truncated_cg(lambda v: jnp.array([1.0, -1.0]) * v, jnp.ones(2), tol=1e-3, max_steps=9, radius=2.0)
    >>> found.step.round(3), bool(found.curved_down), bool(found.on_boundary)
    (Array([-1.414, -1.414], dtype=float32), True, True)
    """
    g = vectors.wide(grad)
    dtype = vectors.scalar_dtype(g)
    bound = as_dtype(tol, dtype)

    def body(carry: Any) -> Any:
        at, d, rr, _ = carry
        product = vectors.cast_like(matvec(d), g)
        bend = vectors.dot(d, product)
        curved_down = bend <= 0
        alpha = rr / jnp.where(curved_down, jnp.ones_like(bend), bend)
        if radius is None:
            last = (at.steps == 0).astype(dtype)
            crosses = jnp.bool_(False)
        else:
            last = _to_boundary(at.step, d, as_dtype(radius, dtype))
            crosses = ~curved_down & (alpha >= last)
        leaves = curved_down | crosses
        alpha = jnp.where(leaves, last, alpha)
        r = vectors.add(at.residual, product, alpha)
        new = vectors.dot(r, r)
        d = vectors.add(vectors.times(-1.0, r), d, new / rr)
        ends = jnp.bool_(False) if radius is None else leaves
        at = TruncatedPoint(vectors.add(at.step, carry[1], alpha), r, at.steps + 1, curved_down, ends)
        return at, d, new, leaves | (jnp.sqrt(new) <= bound)

    zero, no = jax.tree.map(jnp.zeros_like, g), jnp.bool_(False)
    gg = vectors.dot(g, g)
    done = (jnp.sqrt(gg) <= bound) | (gg == 0)
    start = (TruncatedPoint(zero, g, jnp.int32(0), no, no), vectors.times(-1.0, g), gg, done)
    return jax.lax.while_loop(lambda c: ~c[3] & (c[0].steps < max_steps), body, start)[0]


def _to_boundary(z: Any, d: Any, radius: Any) -> Any:
    """The tau >= 0 with |z + tau d| = radius."""
    dd, zd, room = vectors.dot(d, d), vectors.dot(z, d), jnp.maximum(radius**2 - vectors.dot(z, z), 0)
    root = jnp.sqrt(zd**2 + dd * room)
    return jnp.where(zd > 0, room / jnp.where(zd > 0, zd + root, jnp.ones_like(root)), (root - zd) / dd)
