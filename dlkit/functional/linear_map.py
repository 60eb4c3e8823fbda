"""A linear map with a transpose of its own.

JAX transposes a linear function operation by operation. For a loop that reads blocks of its input, that gives a loop
that adds an array of the size of the whole input in every step. `linear_map` takes the transpose as a second function.

A `custom_vjp` does so too, but it has no forward mode, and `jax.custom_derivatives.linear_call` has no derivative in
what the map depends on. `jax.lax.custom_linear_solve` has all of them, and takes a transposed solve. So `y = A x` is
computed as the solution of a system whose inverse is known:

    [ I   0 ] [x]   [x]                        [ I  -A^T ] [x']   [x']
    [ -A  I ] [y] = [0] ,  and transposed  ,   [ 0   I   ] [dy] = [dy] ,  so that x' gains A^T dy
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

__all__ = ["linear_map"]


def linear_map(fun: Callable[[Any, Any], Any], transpose: Callable[[Any, Any], Any], held: Any, x: Any) -> Any:
    """`y = fun(held, x)`, linear in x; reverse mode runs `transpose(held, dy)`, which has the form of x.

    Derivatives of both in `held` are those of `fun`, so they exist in every mode and order.

    >>> double = lambda held, x: held * x
    >>> linear_map(double, double, jnp.float32(2), jnp.ones(3))
    Array([2., 2., 2.], dtype=float32)
    """
    x = _tied(x, x)
    start = (x, _tied(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(fun, held, x)), x))
    numbers = [a for a in jax.tree.leaves(held) if jnp.issubdtype(a.dtype, jnp.inexact)]

    def matvec(both: Any) -> Any:
        x, y = jax.tree.map(lambda a: a * _tied(jnp.ones(a.shape, a.dtype), numbers), both)
        return x, jax.tree.map(jnp.subtract, y, fun(held, x))

    def solve(_: Any, both: Any) -> Any:
        x, y = both
        return x, jax.tree.map(jnp.add, y, fun(held, x))

    def transpose_solve(_: Any, both: Any) -> Any:
        x, y = both
        return jax.tree.map(jnp.add, x, transpose(held, y)), y

    end = lax.custom_linear_solve(matvec, start, solve, transpose_solve)
    return _tied(end[1], end)


def _tied(arrays: Any, others: Any) -> Any:
    """The same numbers, but, for JAX, each a linear function of all of `others`.

    To be transposed, the system wants all of its right-hand sides to be linear in what is differentiated. What is added
    is an empty part of the others, padded with zeros, which XLA leaves out.
    """
    empty = [a.reshape(-1)[:0] for a in jax.tree.leaves(others)]

    def tie(a: Array) -> Array:
        none = jnp.concatenate([e.astype(a.dtype) for e in empty])
        return a + lax.pad(none, jnp.zeros((), a.dtype), ((0, math.prod(a.shape), 0),)).reshape(a.shape)

    return jax.tree.map(tie, arrays)
