"""What the losses share: hyperparameters, outputs beside targets, the axes that belong to one example."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.batches import as_float, check_same_shape

__all__ = ["Scalar", "is_number", "matched", "own_axes", "per_example"]

Scalar = int | float | np.number | Array
"""A hyperparameter: a number, or a scalar array that may change (or be vmapped over) without a new trace."""


def is_number(x: Scalar) -> bool:
    """Whether `x` is a number of Python or numpy: known while tracing, so it can be checked and compared."""
    return isinstance(x, (int, float, np.number))


def matched(loss: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Both in the floating dtype of `outputs`, at least float32, after a check that the shapes are equal."""
    outputs, targets = jnp.asarray(outputs), jnp.asarray(targets)
    check_same_shape(loss, outputs, targets)
    outputs = as_float(outputs)
    return outputs, targets.astype(outputs.dtype)


def own_axes(batch_axes: int, ndim: int) -> tuple[int, ...]:
    """The axes after the first `batch_axes`: those of the elements of one example."""
    if batch_axes < 0:
        raise ValueError(f"batch_axes: got {batch_axes}, expected 0 or more leading axes that count examples")
    return tuple(range(batch_axes, ndim))


def per_example(values: Array, batch_axes: int) -> Array:
    """The mean over every axis after the first `batch_axes`."""
    return jnp.mean(values, axis=own_axes(batch_axes, values.ndim))
