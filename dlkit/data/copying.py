"""The copy task: what a memory is tested with."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["copy_task"]


def copy_task(
    key: Any, lengths: Integer[Any, "B"], longest: int, bits: int = 8
) -> tuple[Float[Array, "B T bits+1"], Float[Array, "B T bits"], Float[Array, "B T"]]:
    """Random bits, a mark, then silence, in which the bits are to be said again: (x, y, weight), T = 2 longest + 1.

    Example b has `lengths[b]` vectors of bits at the times 0, 1, ..., the mark (1 in the last feature of x) at
    `lengths[b]`, and its answer `y` at the times after it, where `weight` is 1; elsewhere x, y and weight are 0. A pure
    function of the key: draw a batch in each step, inside `jit`.

    Args:
      key: of the bits.
      lengths: `[B]` integers in 1 .. longest; what is longer is cut off.
      longest: decides the shapes.
      bits: of each vector.

    >>> x, y, weight = copy_task(jax.random.key(0), jnp.array([1, 2]), 2, bits=3)
    >>> x.shape, y.shape, weight.tolist()
    ((2, 5, 4), (2, 5, 3), [[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]])

    Raises:
      ValueError: lengths is no `[B]`, or longest or bits is below 1.

    Reference: Graves, Wayne and Danihelka, Neural Turing machines, 2014, arXiv:1410.5401 (section 4.1).
    """
    lengths = jnp.asarray(lengths)
    if lengths.ndim != 1 or longest < 1 or bits < 1:
        raise ValueError(
            f"copy_task wants lengths [B], longest and bits of at least 1, got lengths of shape {lengths.shape}, "
            f"longest={longest}, bits={bits}"
        )
    lengths = lengths[:, None]
    t = jnp.arange(2 * longest + 1, dtype=lengths.dtype)[None]
    drawn = jax.random.bernoulli(key, 0.5, (lengths.shape[0], longest, bits)).astype(jnp.float32)
    padded = jnp.pad(drawn, ((0, 0), (0, longest + 1), (0, 0)))
    given = padded * (t < lengths).astype(jnp.float32)[..., None]
    mark = (t == lengths).astype(jnp.float32)[..., None]
    weight = ((t > lengths) & (t <= 2 * lengths)).astype(jnp.float32)
    back = jnp.clip(t - lengths - 1, 0, 2 * longest)
    y = jnp.take_along_axis(padded, back[..., None], axis=1) * weight[..., None]
    return jnp.concatenate([given, mark], axis=-1), y, weight
