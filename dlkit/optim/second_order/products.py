"""Products of curvature matrices with a vector, none of which is ever formed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlkit.functional import decompositions
from dlkit.optim.second_order import vectors

__all__ = ["gauss_newton_vp", "ggn_vp", "hvp"]


def hvp(fn: Callable[[Any], Any], params: Any, v: Any) -> Any:
    """H v, where H is the Hessian of `fn` at `params`: the derivative along v of its gradient.

    Forward over reverse differentiation: about the time of two gradients, and the memory of one.

    Reference: Pearlmutter, "Fast exact multiplication by the Hessian", 1994.

    >>> hvp(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]))
    Array([4., 2.], dtype=float32)
    """
    return jax.jvp(jax.grad(fn), (params,), (vectors.cast_like(v, params),))[1]


def gauss_newton_vp(residual_fn: Callable[[Any], Any], params: Any, v: Any) -> Any:
    """J' J v, where J is the Jacobian of `residual_fn` at `params`: the Hessian of |r|^2 / 2 without r's own curvature.

    `residual_fn` may return a tree of arrays.

    >>> gauss_newton_vp(lambda p: p**2, jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]))
    Array([ 4., 16.], dtype=float32)
    """
    _, forward = jax.linearize(residual_fn, params)
    return jax.linear_transpose(forward, params)(forward(vectors.cast_like(v, params)))[0]


def ggn_vp(output_fn: Callable[[Any], Any], loss_fn: Callable[[Any], Any], params: Any, v: Any) -> Any:
    """J' H J v: the generalized Gauss-Newton matrix of loss_fn(output_fn(params)).

    J is the Jacobian of the outputs, H the Hessian of the loss in the outputs; positive semidefinite where the loss is
    convex in them. For the negative log-likelihood of an exponential family it is the Fisher matrix.

    Reference: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", 2002.

    >>> logits = lambda p: jnp.stack([p[0], p[0] * p[1]])
    >>> loss = lambda z: jax.nn.logsumexp(z) - z[0]
    >>> ggn_vp(logits, loss, jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0]))
    Array([0., 0.], dtype=float32)
    """
    outputs, forward = jax.linearize(output_fn, params)
    curved = hvp(loss_fn, outputs, forward(vectors.cast_like(v, params)))
    return jax.linear_transpose(forward, params)(curved)[0]


def hessian_at(fn: Callable[[Any], Any], params: Any, like: Any) -> Callable[[Any], Any]:
    """v -> H v for many v: what does not depend on v is computed once. The v are trees like `like`."""
    _, product = jax.linearize(jax.grad(fn), params)
    return lambda v: vectors.cast_like(product(vectors.cast_like(v, params)), like)


def hessian_matrix(fn: Callable[[Any], Any], params: Any, dtype: Any) -> Any:
    """The Hessian as a matrix over the flat parameters, symmetric to the last digit."""
    vector, back = vectors.flat(params)
    _, product = jax.linearize(jax.grad(lambda x: fn(back(x))), vector)
    matrix = jax.vmap(product)(jnp.eye(vector.size, dtype=vector.dtype)).astype(dtype)
    return (matrix + matrix.T) / 2


def jacobian_matrix(fn: Callable[[Any], Any], params: Any) -> tuple[Any, Any]:
    """The values of `fn` as one vector, and their Jacobian over the flat parameters."""
    vector, back = vectors.flat(params)

    def values(x: Any) -> Any:
        return vectors.flat(fn(back(x)))[0]

    out, forward = jax.linearize(values, vector)
    if out.size >= vector.size:
        return out, jax.vmap(forward, out_axes=1)(jnp.eye(vector.size, dtype=vector.dtype))
    backward = jax.linear_transpose(forward, vector)
    return out, jax.vmap(lambda row: backward(row)[0])(jnp.eye(out.size, dtype=out.dtype))


def solve_symmetric(matrix: Any, b: Any, damping: Any = 0.0, absolute: bool = False) -> Any:
    """(matrix + damping I)^-1 b; with `absolute`, |eigenvalues| stand for eigenvalues.

    Directions in which the matrix is zero, up to rounding, are left out: the solution of the least length.
    """
    values, basis = decompositions.eigh(matrix)
    values = (jnp.abs(values) if absolute else values) + jnp.asarray(damping, values.dtype)
    size = jnp.max(jnp.abs(values), initial=0.0)
    kept = jnp.abs(values) > len(b) * jnp.finfo(values.dtype).eps * size
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, jnp.ones_like(values)), jnp.zeros_like(values))
    high = jax.lax.Precision.HIGHEST
    return jnp.matmul(basis, inverse * jnp.matmul(basis.T, b, precision=high), precision=high)
