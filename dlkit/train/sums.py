"""Adding up what the steps measure: on the device between two log points, on the host over an epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import metrics as m

__all__ = ["NEVER", "Packing", "Piece", "add", "empty", "merge_host", "merge_many", "split_kinds"]

NEVER = np.int32(2**31 - 1)


class Piece(NamedTuple):
    """What some consecutive steps measured, added up on the device."""

    count: Any  # int32: steps
    bad: Any  # int32: the first step whose loss was not finite, NEVER if none
    sums: dict[str, Any]  # of the metrics whose sums keep their shapes
    last: dict[str, Any]  # of the last step: learning rate, penalty, norm of the gradient


class Packing:
    """A tree of small arrays as one vector for each dtype, and back.

    A compiled call pays for every array that goes in or out: eleven scalars cost more than the update of a small
    network.
    """

    def __init__(self, like: Any) -> None:
        leaves, self.treedef = jax.tree.flatten(like)
        self.shapes = [(np.dtype(leaf.dtype).name, leaf.shape) for leaf in leaves]

    def pack(self, tree: Any) -> dict[str, Any]:
        """`{dtype: vector}`; of numpy arrays on the host, of JAX arrays in a compiled function."""
        leaves = jax.tree.leaves(tree)
        xp = np if all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves) else jnp
        groups: dict[str, list[Any]] = {}
        for leaf, (dtype, _) in zip(leaves, self.shapes, strict=True):
            groups.setdefault(dtype, []).append(leaf.reshape(-1))
        return {dtype: xp.concatenate(group) for dtype, group in groups.items()}

    def unpack(self, packed: Mapping[str, Any]) -> Any:
        """The tree that was packed."""
        begin, leaves = dict.fromkeys(packed, 0), []
        for dtype, shape in self.shapes:
            end = begin[dtype] + math.prod(shape)
            leaves.append(packed[dtype][begin[dtype] : end].reshape(shape))
            begin[dtype] = end
        return jax.tree.unflatten(self.treedef, leaves)


def split_kinds(
    table: Mapping[str, m.Metric], measured: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What was measured, as (sums that keep their shapes, sums that grow, plain values)."""
    fixed = {name: measured[name] for name, metric in table.items() if metric.fixed_size}
    growing = {name: measured[name] for name, metric in table.items() if not metric.fixed_size}
    return fixed, growing, {name: value for name, value in measured.items() if name not in table}


def empty(table: Mapping[str, m.Metric], shapes: Mapping[str, Any]) -> Piece:
    """A piece of no steps, from the shapes of what a step measures; new arrays on the host."""
    fixed, _, last = split_kinds(table, shapes)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (fixed, last))
    return Piece(np.zeros((), np.int32), np.asarray(NEVER), *zeros)


def add(table: Mapping[str, m.Metric], piece: Piece, measured: Mapping[str, Any], step: Any) -> tuple[Piece, Any]:
    """The piece with one step more, and that step's growing sums. Pure: for use inside a compiled step."""
    fixed, growing, last = split_kinds(table, measured)
    first = piece.count == 0
    merged = {name: table[name].merge(piece.sums[name], sums) for name, sums in fixed.items()}
    sums = jax.tree.map(
        lambda new, both: jnp.where(first, new, both).astype(jnp.result_type(new)), fixed, merged
    )  # a metric need not have sums that are neutral, so the first step's are taken as they are
    loss = [fixed["loss"]["sum"].high, *(last[name] for name in ("penalty", "grad_norm") if name in last)]
    finite = jnp.all(jnp.stack([jnp.isfinite(value).astype(jnp.int32) for value in loss]) == 1)
    bad = jnp.minimum(piece.bad, jnp.where(finite, jnp.asarray(NEVER), step.astype(jnp.int32)))
    return Piece(piece.count + 1, bad, sums, last), growing


def merge_host(table: Mapping[str, m.Metric], a: Any, b: Any) -> Any:
    """Two trees of sums by name (either may be None), merged."""
    if a is None or b is None:
        return a if b is None else b
    return {name: table[name].merge(a[name], b[name]) for name in a}


def merge_many(table: Mapping[str, m.Metric], several: Sequence[Mapping[str, Any]]) -> Any:
    """Any number of trees of sums, merged in order, pairwise: concatenation then copies each entry log2(n) times."""
    several = list(several)
    merge: Callable[[Any, Any], Any] = lambda a, b: merge_host(table, a, b)  # noqa: E731
    while len(several) > 1:
        pairs = [merge(*several[i : i + 2]) for i in range(0, len(several) - 1, 2)]
        several = pairs + ([several[-1]] if len(several) % 2 else [])
    return several[0] if several else None
