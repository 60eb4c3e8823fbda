"""Reading from a state what the last update knows of the point it led to: the loss, its gradient, how it went."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import tree

__all__ = ["value_and_grad_from_state"]


def stored_points(opt_state: Any) -> dict[str, Any]:
    """Every state with a `value` and a `grad`, by path: those of line searches and trust regions, optax's too."""

    def keeps(node: Any) -> bool:
        return {"value", "grad"} <= set(getattr(node, "_fields", ()))

    nodes = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=keeps)
    return {tree.path_str(path): node for path, node in nodes if keeps(node)}


def value_and_grad_from_state(value_fn: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad(value_fn)`, which reads loss and gradient from the state where the last update left them.

    A line search ends with an evaluation at the new parameters: the next step need not repeat it. Where the stored loss
    is not finite (before the first update) both are computed. The function must be the same in every step: with another
    batch, use `jax.value_and_grad`.

    Args:
      value_fn: the loss; arguments after the parameters are passed on.

    Returns:
      A function (params, *args, state, **kwargs) -> (value, gradient).

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p**2)
    >>> tx, p = optim.lbfgs(), jnp.ones(2)
    >>> state = tx.init(p)
    >>> value_and_grad_from_state(loss)(p, state=state)
    (Array(2., dtype=float32), Array([2., 2.], dtype=float32))

    Raises:
      ValueError: the state holds no such pair (a backtracking search without `store_grad`, say), or more than one.
    """

    def value_and_grad(params: Any, *args: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        found = stored_points(state)
        if len(found) != 1:
            raise ValueError(
                f"value_and_grad_from_state: the state keeps {len(found) or 'no'} losses with gradients, wanted one: "
                "put one line search into the chain"
            )
        ((path, node),) = found.items()
        if node.grad is None:
            raise ValueError(f"value_and_grad_from_state: the state at {path!r} keeps no gradient: use store_grad=True")

        def compute() -> tuple[Any, Any]:
            value, grad = jax.value_and_grad(value_fn)(params, *args, **kwargs)
            return jax.tree.map(lambda new, old: new.astype(old.dtype), (value, grad), (node.value, node.grad))

        return jax.lax.cond(jnp.isfinite(node.value), lambda: (node.value, node.grad), compute)

    return value_and_grad
