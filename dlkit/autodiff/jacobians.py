"""Whole Jacobians and Hessians, by the cheaper mode."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.products import _real

__all__ = ["Derivative", "hessian", "jacobian"]

Mode = Literal["auto", "forward", "reverse"]


@dataclass(frozen=True)
class Derivative:
    """A Jacobian or Hessian with how it was found.

    `value` is the tree that `jax.jacobian` or `jax.hessian` gives, `matrix` the same as one matrix `[outputs, inputs]`,
    `passes` how many forward or backward passes it took, and `why` says what was chosen and why.
    """

    value: Any
    matrix: Any
    mode: str
    passes: int
    why: str

    def __str__(self) -> str:
        return f"{list(self.matrix.shape)} matrix by {self.mode}: {self.why}"


def jacobian(fn: Callable[..., Any], *args: Any, argnum: int = 0, mode: Mode = "auto") -> Derivative:
    """The Jacobian of `fn(*args)` with respect to one argument.

    Args:
      fn: any function of trees with a tree of real arrays as its output.
      args: its arguments.
      argnum: which one is differentiated.
      mode: "forward" takes one pass an input, "reverse" one backward pass an output. "auto" takes the one with fewer
        passes; a tie goes to forward mode, which stores no intermediate results.

    >>> print(jacobian(lambda x: jnp.stack([x.sum(), x.prod()]), jnp.array([1.0, 2.0, 3.0])))
    [2, 3] matrix by reverse mode: 2 backward passes against 3 forward ones

    Raises:
      TypeError: the argument is not floating point.
      ValueError: an unknown mode.
    """
    _known(mode)
    _real("jacobian", (args[argnum],))
    at, rest = args[argnum], jax.eval_shape(fn, *args)
    n_in, n_out = tree.count(at), tree.count(rest)
    chosen = mode if mode != "auto" else ("forward" if n_in <= n_out else "reverse")
    differentiate = jax.jacfwd if chosen == "forward" else jax.jacrev
    value = jax.jit(differentiate(fn, argnums=argnum))(*args)
    matrix = _matrix(value, rest, at)
    passes = n_in if chosen == "forward" else n_out
    reverse, forward = f"{n_out} backward {_pass(n_out)}", f"{n_in} forward {_pass(n_in)}"
    ours, other = (forward, reverse) if chosen == "forward" else (reverse, forward)
    return Derivative(value, matrix, f"{chosen} mode", passes, f"{ours} against {other.rsplit(' ', 1)[0]} ones")


def hessian(
    fn: Callable[..., Any],
    *args: Any,
    argnum: int = 0,
    mode: Literal["auto", "forward-over-reverse", "reverse-over-reverse", "forward-over-forward"] = "auto",
) -> Derivative:
    """The Hessian of a scalar function with respect to one argument.

    Args:
      fn: a function with one real scalar as its output.
      args: its arguments.
      argnum: which one is differentiated.
      mode: what differentiates the gradient, over what computes it. "auto" takes forward-over-reverse, n passes over
        the gradient: of the three it does the least work for more than a few inputs and stores only what one gradient
        does; for one or two inputs it takes forward-over-forward, which stores nothing.

    >>> found = hessian(lambda x: x[0] * x[1], jnp.array([3.0, 5.0]), mode="forward-over-reverse")
    >>> print(found.matrix)
    [[0. 1.]
     [1. 0.]]

    Raises:
      TypeError: the argument is not floating point.
      ValueError: an unknown mode, or the function is not scalar.
    """
    ways = {
        "forward-over-reverse": lambda f: jax.jacfwd(jax.jacrev(f)),
        "reverse-over-reverse": lambda f: jax.jacrev(jax.jacrev(f)),
        "forward-over-forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    }
    if mode != "auto" and mode not in ways:
        raise ValueError(f"mode is {mode!r}, wanted auto, {', '.join(ways)}")
    _real("hessian", (args[argnum],))
    at, n = args[argnum], tree.count(args[argnum])
    out = jax.eval_shape(fn, *args)
    if jax.tree.structure(out) != jax.tree.structure(0) or out.shape != ():
        raise ValueError(f"hessian: the function gives {out}, not one scalar: reduce it, or take jacobian twice")
    chosen = mode if mode != "auto" else ("forward-over-forward" if n <= 2 else "forward-over-reverse")

    def of(x: Any) -> Any:
        return fn(*args[:argnum], x, *args[argnum + 1 :])

    value = jax.jit(ways[chosen](of))(at)
    matrix = _matrix(value, at, at)
    why = {
        "forward-over-reverse": f"{n} forward {_pass(n)} over one gradient",
        "reverse-over-reverse": f"{n} backward {_pass(n)} over one gradient",
        "forward-over-forward": f"{n} x {n} forward passes, nothing stored",
    }[chosen]
    return Derivative(value, matrix, chosen, n * n if chosen == "forward-over-forward" else n, why)


def _known(mode: str) -> None:
    if mode not in ("auto", "forward", "reverse"):
        raise ValueError(f'mode is {mode!r}, wanted "auto", "forward" or "reverse"')


def _pass(count: int) -> str:
    return "pass" if count == 1 else "passes"


def _matrix(value: Any, outer: Any, inner: Any) -> Any:
    """One matrix from the tree of trees that JAX gives: a block for each pair of leaves."""
    outs = jax.tree.leaves(outer)
    blocks = jax.tree.leaves(value)
    n = len(jax.tree.leaves(inner))
    rows = []
    for k, out in enumerate(outs):
        size = int(np.prod(out.shape if hasattr(out, "shape") else np.shape(out), dtype=np.int64))
        rows.append(jnp.concatenate([jnp.reshape(b, (size, -1)) for b in blocks[k * n : (k + 1) * n]], axis=1))
    return jnp.concatenate(rows, axis=0)
