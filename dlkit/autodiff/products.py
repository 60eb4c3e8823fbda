"""Products with derivatives: along a direction, back from a cotangent, and with the Hessian."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import tree

__all__ = ["hvp", "jvp", "vjp"]


def _same(what: str, given: Any, like: Any) -> None:
    shapes = [jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), t) for t in (like, given)]
    different = tree.diff(*shapes)
    if different:
        raise ValueError(f"{what} must be a tree like what it belongs to: {different}")


def _real(what: str, args: tuple[Any, ...]) -> None:
    for i, arg in enumerate(args):
        for path, leaf in tree.flatten(arg).items():
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                at = f"argument {i}" + (f" at {path}" if path else "")
                raise TypeError(
                    f"{what}: {at} is {jnp.result_type(leaf)}, and only floating point can be differentiated: "
                    "pass 2.0 in place of 2, or close over what is not differentiated"
                )


def jvp(fn: Callable[..., Any], args: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """The value of `fn(*args)` and its derivative along `tangents`, J v: one forward pass.

    Args:
      fn: a function of `args`.
      args: a tuple of trees of real arrays.
      tangents: a tuple of trees like them.

    It is `jax.jvp` with errors that name the leaf.

    >>> value, slope = jvp(jnp.sin, (0.0,), (2.0,))
    >>> float(value), float(slope)
    (0.0, 2.0)

    Raises:
      TypeError: an argument is not floating point.
      ValueError: the tangents are no trees like the arguments.
    """
    _real("jvp", args)
    _same("tangents", tangents, args)
    return jax.jvp(fn, args, tangents)


def vjp(fn: Callable[..., Any], args: tuple[Any, ...], cotangents: Any = None) -> tuple[Any, tuple[Any, ...]]:
    """The value of `fn(*args)` and v' J, a tuple like `args`: one forward and one backward pass.

    Args:
      fn: a function of `args`.
      args: a tuple of trees of real arrays.
      cotangents: a tree like the output; without it the output must be a scalar, whose cotangent is 1.

    >>> value, (slope,) = vjp(jnp.sin, (0.0,))
    >>> float(value), float(slope)
    (0.0, 1.0)

    Raises:
      TypeError: an argument is not floating point.
      ValueError: the output is no scalar and no cotangents are given, or they are no tree like it.
    """
    _real("vjp", args)
    value, back = jax.vjp(fn, *args)
    if cotangents is None:
        leaves = jax.tree.leaves(value)
        if len(leaves) != 1 or jnp.shape(leaves[0]) != ():
            shown = ", ".join(str(list(jnp.shape(a))) for a in leaves)
            raise ValueError(f"vjp: the output has the shapes {shown}, not one scalar: give cotangents= like it")
        cotangents = jax.tree.map(jnp.ones_like, value)
    _same("cotangents", cotangents, value)
    return value, back(cotangents)


def hvp(fn: Callable[..., Any], args: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """H v for a scalar function, a tuple like `args`: forward mode over reverse mode, so about four evaluations.

    Pearlmutter, "Fast exact multiplication by the Hessian", 1994. The Hessian is never formed.

    Args:
      fn: a scalar function of `args`.
      args: a tuple of trees of real arrays.
      tangents: a tuple of trees like them.

    >>> print(hvp(lambda x: jnp.sum(x**3), (jnp.array([1.0, 2.0]),), (jnp.array([1.0, 1.0]),))[0])
    [ 6. 12.]

    Raises:
      TypeError: an argument is not floating point, or the function is not scalar.
      ValueError: the tangents are no trees like the arguments.
    """
    _real("hvp", args)
    _same("tangents", tangents, args)
    return jax.jvp(jax.grad(fn, argnums=tuple(range(len(args)))), args, tangents)[1]
