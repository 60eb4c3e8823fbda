"""All leaves as one vector: a single elementwise program for many small parameters."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.leaves import check_like, widest
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.narrowed import narrowed

__all__ = ["Flatten", "flatten"]


@dataclass(frozen=True)
class Flatten(Transform[Any]):
    """`inner` on one vector that holds all leaves, one after the other.

    A model of many small arrays then has one update, and slots that are one array each. It costs a copy of gradients
    and parameters. Leaves of different dtypes meet in the widest one, and their slots and updates are of that dtype.
    What looks at a leaf's shape or path (globs, `WEIGHTS`, a norm for each leaf) does not fit inside.

    Args:
      inner: a transform.

    >>> from dlkit import optim
    >>> tx = flatten(optim.adam(0.1))
    >>> params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    >>> state = tx.init(params)
    >>> state[0].mu.shape
    (9,)
    >>> jax.tree.map(jnp.shape, tx.update(params, state, params)[0])
    {'b': (3,), 'w': (2, 3)}

    Raises:
      TypeError: `inner` is no transform.
    """

    inner: Any

    def __post_init__(self) -> None:
        check_link("flatten", self.inner)

    def init(self, params: Any) -> Any:
        return self.inner.init(_ravel(params))

    def update(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        like = jax.tree.structure(grads)
        if params is not None:
            check_like("flatten", "the gradients do not match the parameters", params, grads)
            extra = narrowed(extra, lambda vector: _like(_unravel(vector, params), params), _ravel, grads)
        given = {name: _ravel(arg) if jax.tree.structure(arg) == like else arg for name, arg in extra.items()}
        vector = None if params is None else _ravel(params)
        updates, state = call_update(self.inner, _ravel(grads), state, vector, given)
        return _unravel(updates, grads), state


def _ravel(of: Any) -> Array:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(of)]
    if not leaves:
        return jnp.zeros((0,))
    dtype = widest(*(leaf.dtype for leaf in leaves))
    return jnp.concatenate([jnp.ravel(leaf).astype(dtype) for leaf in leaves])


def _like(of: Any, params: Any) -> Any:
    return jax.tree.map(lambda leaf, p: leaf.astype(jnp.result_type(p)), of, params)


def _unravel(vector: Array, like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    parts, begin = [], 0
    for leaf in leaves:
        end = begin + math.prod(jnp.shape(leaf))
        part = vector[begin:end].reshape(jnp.shape(leaf))
        parts.append(part if jnp.iscomplexobj(leaf) else part.real)
        begin = end
    return jax.tree.unflatten(structure, parts)


flatten = Flatten
