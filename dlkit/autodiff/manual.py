"""Manual differentiation: a formula from paper as the rule that JAX uses, checked before it is believed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import tree

__all__ = ["manual"]


def manual(
    fn: Callable[..., Any], gradient: Callable[..., Any], *, check_at: tuple[Any, ...] | None = None, **options: Any
) -> Callable[..., Any]:
    """`fn` with your own gradient: reverse mode calls the formula in place of differentiating `fn`.

    Args:
      fn: a scalar function.
      gradient: the formula, a function of the same arguments. It returns a tree like the argument, or, for several
        arguments, a tuple with one tree for each.
      check_at: arguments at which the formula is compared with finite differences right away, by `check_grads`.
      options: those of `check_grads`.

    It is a `jax.custom_vjp`, so forward mode is not available. For functions with arrays as outputs write a
    `custom_vjp` yourself and pass it to `check_grads`.

    >>> square = manual(lambda x: x * x, lambda x: 2.0 * x, check_at=(3.0,))
    >>> float(jax.grad(square)(5.0))
    10.0

    Raises:
      AssertionError: the check fails; the message names the worst element and the likely cause.
      ValueError: the function is not scalar, or the formula gives a tree unlike the arguments (when it is used).
    """

    @jax.custom_vjp
    def wrapped(*args: Any) -> Any:
        return _scalar(fn(*args))

    def forward(*args: Any) -> tuple[Any, tuple[Any, ...]]:
        return _scalar(fn(*args)), args

    def backward(args: tuple[Any, ...], cotangent: Any) -> tuple[Any, ...]:
        found = gradient(*args)
        found = found if len(args) > 1 else (found,)
        like, ours = (
            jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), t) for t in (args, found)
        )
        different = f"expected a tuple of {len(args)}, got {type(found).__name__}"
        if isinstance(found, tuple):
            different = tree.diff(like, ours)
        if different:
            raise ValueError(f"manual: the gradient must be a tree like the arguments: {different}")
        return jax.tree.map(lambda a, g: (cotangent * g).astype(jnp.result_type(a)), args, found)

    wrapped.defvjp(forward, backward)
    if check_at is not None:
        from dlkit.autodiff.checking import check_grads

        check_grads(wrapped, *check_at, **{"modes": ("reverse",), **options})
    return wrapped


def _scalar(value: Any) -> Any:
    if jnp.shape(value) != ():
        raise ValueError(
            f"manual wants a scalar function, this one gives shape {list(jnp.shape(value))}: "
            "sum it, or write a custom_vjp"
        )
    return value
