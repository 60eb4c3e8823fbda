"""What losses and metrics ask of a batch's arrays: a dtype to compute in, agreement of shapes, labels, weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.functional.precision import wide_dtype

__all__ = ["as_float", "check_same_shape", "class_labels", "is_class", "spread", "widened"]


def as_float(x: ArrayLike, name: str = "outputs") -> Array:
    """`x` in at least float32: half precision is widened, so that a loss of 1e-3 is not lost beside a log-sum of 10.

    Raises:
      TypeError: `x` is not floating point.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: got {x.dtype}{list(x.shape)}, expected floating point; convert with .astype(jnp.float32)"
        )
    return x.astype(wide_dtype(x.dtype))


def widened(x: ArrayLike) -> Array:
    """`x` in at least float32, booleans and integers too."""
    x = jnp.asarray(x)
    return as_float(x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32))


def check_same_shape(owner: str, outputs: Array, targets: Array) -> None:
    """Nothing is broadcast: `[B, 1]` beside `[B]` would give `[B, B]` residuals and a plausible, wrong number.

    Raises:
      ValueError: the shapes differ.
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{owner}: outputs {list(outputs.shape)} and targets {list(targets.shape)} differ in shape, and nothing is "
            "broadcast; bring them to the same shape (for outputs [B, 1] and targets [B]: outputs[..., 0])"
        )


def class_labels(owner: str, scores: Array, targets: Array, *, soft: bool = False) -> Array:
    """Integer labels `[...]` for scores `[..., C]`, as int32.

    Args:
      owner: who asks, for the messages.
      soft: whether the owner would have taken soft labels `[..., C]` too, which the message then says.

    Raises:
      ValueError: the shapes do not fit.
      TypeError: the labels are not integers.
    """
    if targets.shape != scores.shape[:-1]:
        also = f" or soft labels {list(scores.shape)}" if soft else ""
        raise ValueError(
            f"{owner}: scores {list(scores.shape)} need integer targets {list(scores.shape[:-1])}{also}, "
            f"got {list(targets.shape)}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(
            f"{owner}: class labels must be integers, got {targets.dtype}; convert with .astype(jnp.int32), or, for "
            "one score an example, take the binary form"
        )
    return targets.astype(jnp.int32)


def is_class(scores: Array, labels: Array) -> Array:
    """Where the class is the label's, `[..., C]`: all False for a label outside [0, C)."""
    return jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1) == labels[..., None]


def spread(
    weight: ArrayLike | None, shape: tuple[int, ...], dtype: Any = jnp.float32, *, what: str = "values"
) -> Array:
    """The weight of each value, as an array of `shape`: 1 for None; `[B]` beside `[B, T]` is repeated over T.

    Raises:
      ValueError: the shape of `weight` is not a leading part of `shape`.
    """
    if weight is None:
        return jnp.ones(shape, dtype)
    weight = jnp.asarray(weight)
    if weight.shape != shape[: weight.ndim]:
        raise ValueError(
            f"weight {list(weight.shape)} does not fit {what} {list(shape)}: expected a leading part of that shape"
        )
    weight = weight.astype(dtype).reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
    return jnp.broadcast_to(weight, shape)
