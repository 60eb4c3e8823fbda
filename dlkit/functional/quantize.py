"""Vector quantization: each vector replaced by the nearest of a table."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from dlkit.functional.linear import embedding
from dlkit.functional.precision import wide_dtype

__all__ = ["nearest", "perplexity", "quantize"]


def nearest(x: Float[Array, "*lead d"], table: Float[Array, "K d"]) -> Integer[Array, "*lead"]:
    """The index of the row of the table with the least squared distance to each vector; the first of equal ones.

    x `[..., d]`, table `[K, d]`. `|x - e|^2 = |x|^2 - 2 x e + |e|^2`, of which the first term is the same for all rows:
    no array of size `[..., K, d]` is made. Not differentiable.

    >>> nearest(jnp.array([[0.9, 0.1], [5.0, 5.0]]), jnp.array([[1.0, 0.0], [4.0, 4.0]])).tolist()
    [0, 1]

    Raises:
      ValueError: the last axis of x is not the table's.
    """
    if x.ndim == 0 or table.ndim != 2 or x.shape[-1] != table.shape[1]:
        raise ValueError(f"nearest: x is {list(x.shape)} and table {list(table.shape)}; want [..., d] and [K, d]")
    wide = wide_dtype(x.dtype)
    rows = lax.stop_gradient(table).astype(wide)
    flat = lax.stop_gradient(x).astype(wide).reshape(-1, x.shape[-1])
    scores = jnp.square(rows).sum(1)[None] - 2 * (flat @ rows.T)
    return jnp.argmin(scores, axis=1).astype(jnp.int32).reshape(x.shape[:-1])


def quantize(
    x: Float[Array, "*lead d"], table: Float[Array, "K d"], *, commitment: float = 0.25
) -> tuple[Float[Array, "*lead d"], Float[Array, "*lead"], Integer[Array, "*lead"]]:
    """The nearest row `e` of the table for each vector, the loss of each, and which row it is.

        y = x + sg(e - x)        loss = mean (sg(x) - e)^2 + commitment mean (x - sg(e))^2

    sg stops gradients: y has the value of e, and its gradient goes straight through to x; the first part of the loss
    moves the table toward x, the second x toward the table. Means are over the last axis.

    >>> y, loss, ids = quantize(jnp.array([[0.9, 0.1]]), jnp.array([[1.0, 0.0], [4.0, 4.0]]))
    >>> y.tolist(), (loss * 80).round(3).tolist(), ids.tolist()
    ([[1.0, 0.0]], [1.0], [0])

    Raises:
      ValueError: the last axis of x is not the table's.

    Reference: van den Oord, Vinyals and Kavukcuoglu, Neural discrete representation learning, 2017, arXiv:1711.00937.
    """
    ids = nearest(x, table)
    wide = wide_dtype(x.dtype)
    row, given = embedding(table, ids).astype(wide), x.astype(wide)
    loss = jnp.square(lax.stop_gradient(given) - row).mean(-1)
    loss = loss + commitment * jnp.square(given - lax.stop_gradient(row)).mean(-1)
    # Summed in this order y is e to the last bit but one; adding it to x last would round by |x|.
    y = lax.stop_gradient(row) + (given - lax.stop_gradient(given))
    return y.astype(x.dtype), loss.astype(x.dtype), ids


def perplexity(ids: Integer[Array, "..."], size: int) -> Float[Array, ""]:
    """`exp(-sum p log p)`, p the share of each of `size` codes among the ids: how many codes are in use.

    >>> perplexity(jnp.array([0, 1, 0, 1]), 8).round(3)
    Array(2., dtype=float32)
    """
    p = jnp.zeros(size, jnp.float32).at[ids.reshape(-1)].add(1.0) / ids.size
    return jnp.exp(-jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)))
