"""Large axes cut into equal blocks, so that no matrix of statistics is larger than a block."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.preconditioners.axes import merge_small

__all__ = []


@dataclass(frozen=True)
class Blocks:
    """How an array of `shape` is cut: `counts[i]` blocks of `sizes[i]` along axis i.

    The blocks of an axis are equally long, and zeros fill the last one: fewer of them than there are blocks. A zero
    row neither changes the statistics of the others nor gets an update.

    >>> cut = cut_in_blocks((5, 3), 2)
    >>> cut.counts, cut.sizes, cut.split(jnp.ones((5, 3))).shape
    ((3, 2), (2, 2), (6, 2, 2))
    >>> bool(jnp.all(cut.join(cut.split(jnp.arange(15.0).reshape(5, 3))) == jnp.arange(15.0).reshape(5, 3)))
    True
    """

    original: tuple[int, ...]
    shape: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]

    def split(self, x: Array) -> Array:
        """`[blocks, *sizes]`."""
        x = x.reshape(self.shape)
        room = [(0, n * b - d) for d, n, b in zip(self.shape, self.counts, self.sizes, strict=True)]
        if any(high for _, high in room):
            x = jnp.pad(x, room)
        rank = len(self.shape)
        x = x.reshape([size for pair in zip(self.counts, self.sizes, strict=True) for size in pair])
        x = x.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
        return x.reshape(math.prod(self.counts), *self.sizes)

    def join(self, x: Array) -> Array:
        """The array again, in its original shape."""
        rank = len(self.shape)
        x = x.reshape(*self.counts, *self.sizes)
        x = x.transpose([axis for i in range(rank) for axis in (i, rank + i)])
        x = x.reshape([n * b for n, b in zip(self.counts, self.sizes, strict=True)])
        return x[tuple(slice(0, d) for d in self.shape)].reshape(self.original)


def cut_in_blocks(shape: tuple[int, ...], block_size: int, merge: bool = False) -> Blocks:
    """The fewest equal blocks of at most `block_size` an axis; `merge` merges small neighbouring axes first."""
    seen = merge_small(shape, block_size) if merge else tuple(shape) or (1,)
    counts = tuple(max(1, math.ceil(d / block_size)) for d in seen)
    sizes = tuple(max(1, math.ceil(d / n)) for d, n in zip(seen, counts, strict=True))
    return Blocks(tuple(shape), seen, counts, sizes)
