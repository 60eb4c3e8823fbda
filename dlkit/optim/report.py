"""Reading what an optimizer remembers."""

from typing import Any, TypeVar

import jax

from dlkit import tree

__all__ = ["find_states"]

T = TypeVar("T")


def find_states(opt_state: Any, kind: type[T]) -> dict[str, T]:
    """Every state of the type `kind` inside `opt_state`, by path: inside chains, masks and optax's wrappers too.

    >>> from dlkit import optim
    >>> state = optim.adam(1e-3).init({"w": jax.numpy.ones(2)})
    >>> list(find_states(state, optim.ScaleByAdamState))
    ['0']
    """
    nodes = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return {tree.path_str(path): node for path, node in nodes if isinstance(node, kind)}
