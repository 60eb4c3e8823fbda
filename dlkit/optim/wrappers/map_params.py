"""Mapping over the parts of an optimizer's state that are like the parameters: for shardings, say."""

from collections.abc import Callable
from typing import Any

import jax

from dlkit.optim.wrappers.masks import MaskedNode, ParamsPlaceholder

__all__ = ["tree_map_params"]


def tree_map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """`f` on every leaf of those trees in an optimizer's state that have the structure of the parameters.

    So a tree that says something about each parameter (its sharding, its path) becomes one about each slot.

    Args:
      initable: the transform that made the state, or its `init`.
      f: `f(slot, *those_of_rest)`, for each leaf.
      state: the state, or its shapes.
      *rest: trees with the structure of the parameters.
      transform_non_params: for all other leaves (counts, rates); None leaves them as they are.
      is_leaf: as in `jax.tree.map`. Without it, leaves that a mask left out stay left out.

    Differences. optax's needs `is_leaf` for states of masks. What is not made leaf by leaf does not count as like the
    parameters: the vectors of `flatten`.

    >>> from dlkit import optim
    >>> import jax.numpy as jnp
    >>> tx = optim.adam(0.1)
    >>> state = tx.init({"w": jnp.ones(2), "b": jnp.ones(1)})
    >>> tree_map_params(tx, lambda slot, name: name, state, {"w": "matrix", "b": "bias"})[0].mu
    {'b': 'bias', 'w': 'matrix'}

    Raises:
      ValueError: `state` is not that of this transform, or a tree of `rest` has another structure.
    """
    init = getattr(initable, "init", initable)
    pattern = init(ParamsPlaceholder())

    def one(mark: Any, part: Any) -> Any:
        if isinstance(mark, ParamsPlaceholder):
            return _mapped(f, part, rest, is_leaf)
        return part if transform_non_params is None else jax.tree.map(transform_non_params, part)

    return jax.tree.map(one, pattern, state, is_leaf=lambda x: isinstance(x, ParamsPlaceholder))


def _mapped(f: Callable[..., Any], part: Any, rest: tuple[Any, ...], is_leaf: Callable[[Any], bool] | None) -> Any:
    if is_leaf is not None:
        return jax.tree.map(f, part, *rest, is_leaf=is_leaf)

    def at(slot: Any, *others: Any) -> Any:
        return slot if isinstance(slot, MaskedNode) else f(slot, *others)

    return jax.tree.map(at, part, *rest, is_leaf=lambda x: isinstance(x, MaskedNode))
