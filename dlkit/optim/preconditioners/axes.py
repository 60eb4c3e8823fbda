"""Arrays seen as matrices along each of their axes: what Shampoo, SOAP and PSGD have in common."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import tree
from dlkit.optim.leaves import widest

__all__ = []

HIGHEST = jax.lax.Precision.HIGHEST  # a root or a basis of rounded statistics is wrong in its small eigenvalues


def wide_dtype(dtype: Any) -> Any:
    """float32, or float64 where `dtype` is: eigenvalues, QR and inverses are never taken in less."""
    return widest(jnp.dtype(jnp.float32), jnp.dtype(dtype))


def real_leaves(owner: str, params: Any) -> tuple[list[Any], Any]:
    """The leaves and the structure of `params`.

    Raises:
      TypeError: a leaf is not real floating point.
    """
    found = tree.flatten(params)
    for path, leaf in found.items():
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{owner}: it works on real floating-point parameters; {path!r} is {dtype}. Leave it out with `masked`"
            )
    return list(found.values()), jax.tree.structure(params)


def columns(owner: str, grads: Any, *states: Any) -> tuple[list[Any], list[list[Any]], Callable[[list[Any]], Any]]:
    """The leaves of `grads`, what each of `states` holds for every leaf, and how to make a tree of a list again.

    Raises:
      ValueError: a state was made for a tree of another structure.
    """
    leaves, structure = jax.tree.flatten(grads)
    try:
        held = [structure.flatten_up_to(state) for state in states]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{owner}: the gradients do not match the state (made for other parameters?): {error}"
        ) from None
    return leaves, held, lambda column: jax.tree.unflatten(structure, column)


def check_shapes(owner: str, expected: Sequence[tuple[int, ...]], got: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError where the state of a leaf was made for another shape."""
    if list(expected) != list(got):
        raise ValueError(
            f"{owner}: the gradients do not match the state (made for other parameters?): a leaf wants matrices of "
            f"shapes {list(expected)}, the state has {list(got)}"
        )


def merge_small(shape: Sequence[int], limit: int) -> tuple[int, ...]:
    """Neighbouring axes merged, from the first on, while their product is at most `limit` (Anil et al. 2020).

    >>> merge_small((3, 3, 16, 32), 256), merge_small((5, 1, 1), 4), merge_small((), 4)
    ((144, 32), (5,), (1,))
    """
    merged = [1]
    for size in shape:
        if merged[-1] == 1 or size == 1 or merged[-1] * size <= limit:
            merged[-1] *= size
        else:
            merged.append(size)
    return tuple(merged)


def most_square(shape: Sequence[int]) -> tuple[int, ...]:
    """A tensor of three or more axes as the matrix, of merged neighbours, whose longer side is the shortest.

    Of two such cuts it is the later one: the last axis of a kernel, its outputs, is likelier to stay alone.

    >>> most_square((3, 3, 16, 32)), most_square((4, 5)), most_square(())
    ((144, 32), (4, 5), (1,))
    """
    if len(shape) < 3:
        return tuple(shape) or (1,)
    cuts = [(math.prod(shape[:k]), math.prod(shape[k:])) for k in range(1, len(shape))]
    return min(reversed(cuts), key=max)


def unfold(x: Array, axis: int) -> Float[Array, "d rest"]:
    """The matrix whose rows go along `axis`."""
    return jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


@partial(jax.jit, static_argnums=1)
def outer(x: Array, axis: int) -> Float[Array, "d d"]:
    """X X^T, X being `unfold(x, axis)`."""
    rows = unfold(x, axis)
    return jnp.matmul(rows, rows.T, precision=HIGHEST)


def along(matrix: Any, x: Array, axis: int) -> Array:
    """M applied to every vector along `axis`; a vector stands for a diagonal matrix, None for the identity."""
    if matrix is None:
        return x
    if matrix.ndim == 1:
        return x * matrix.reshape((-1,) + (1,) * (x.ndim - 1 - axis))[(None,) * axis]
    product = jnp.tensordot(matrix, x, axes=([1], [axis]), precision=HIGHEST)
    return jnp.moveaxis(product, 0, axis)


@jax.jit
def everywhere(matrices: Sequence[Any], x: Array) -> Array:
    """One matrix an axis, all applied."""
    for axis, matrix in enumerate(matrices):
        x = along(matrix, x, axis)
    return x
