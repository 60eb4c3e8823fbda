"""Affine maps and table lookups."""

import math

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer, Shaped

__all__ = ["embedding", "linear", "one_hot"]


def linear(
    x: Float[Array, "*batch d_in"], w: Float[Array, "w_in d_out"], b: Float[Array, "..."] | None = None
) -> Float[Array, "*batch d_out"]:
    """The affine map `y = x w + b` of the last axis: `[..., d_in]` to `[..., d_out]`.

    The weight is `[d_in, d_out]`, as in flax and Keras; torch stores its transpose. The leading axes are flattened
    into one before the product, which changes no number but keeps the gradient of `w` one plain matrix product.

    >>> linear(jnp.ones((5, 7, 3)), jnp.ones((3, 2)), jnp.zeros(2)).shape
    (5, 7, 2)

    Raises:
      ValueError: the last axis of `x` is not `d_in`, or `b` is not `[d_out]`.
    """
    if x.ndim == 0 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"linear: x is {list(x.shape)} and w is {list(w.shape)}; want x [..., d_in] and w [d_in, d_out]"
            + (" (w looks transposed: pass w.T)" if w.ndim == 2 and x.shape[-1:] == w.shape[1:] else "")
        )
    *lead, d_in = x.shape
    y = add_bias("linear", x.reshape(math.prod(lead), d_in) @ w, b)
    return y.reshape(*lead, w.shape[1])


def add_bias(who: str, y: Array, b: Array | None) -> Array:
    if b is None:
        return y
    if b.shape != y.shape[-1:]:
        raise ValueError(
            f"{who}: b is {list(b.shape)}, but the output has {y.shape[-1]} features; want b [{y.shape[-1]}]"
        )
    return y + b.reshape((1,) * (y.ndim - 1) + b.shape)


def embedding(table: Float[Array, "V D"], ids: Integer[Array, "*batch"]) -> Float[Array, "*batch D"]:
    """The rows `table[ids]`: `[V, D]` and integers `[...]` to `[..., D]`.

    The gradient of `table` is a scatter-add of the cotangent rows: a row looked up twice gets the sum of both. An id
    outside `0 .. V - 1` gives a row of NaN, so a wrong one is seen in the loss, and adds nothing to the gradient.
    Negative ids are outside too: an array index would take them from the end. torch raises an IndexError for both,
    which compiled code cannot.

    >>> embedding(jnp.arange(6.0).reshape(3, 2), jnp.array([2, 0]))
    Array([[4., 5.],
           [0., 1.]], dtype=float32)
    """
    size = table.shape[0]
    ids = ids.astype(jnp.int32)
    return table.at[jnp.where(ids < 0, size, ids)].get(mode="fill", fill_value=jnp.nan)


def one_hot(
    ids: Integer[Array, "*batch"], classes: int, dtype: DTypeLike = jnp.float32
) -> Shaped[Array, "*batch {classes}"]:
    """The unit vectors `e_id`, on a new last axis: integers `[...]` to `[..., classes]`.

    An id outside `0 .. classes - 1` gives a row of zeros, as in `jax.nn.one_hot`; torch raises.

    >>> one_hot(jnp.array([1, 0, 9]), 2)
    Array([[0., 1.],
           [1., 0.],
           [0., 0.]], dtype=float32)
    """
    labels = jnp.arange(classes, dtype=jnp.int32).reshape((1,) * ids.ndim + (classes,))
    return (ids.astype(jnp.int32)[..., None] == labels).astype(dtype)
