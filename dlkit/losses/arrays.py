"""What the losses share: a floating dtype to compute in, agreement of shapes, the mean over one example's elements."""

import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["Scalar", "as_float", "matched", "per_example"]

Scalar = int | float | Array
"""A hyperparameter: a number, or a scalar array that may change (or be vmapped over) without a new trace."""


def as_float(x: Array, name: str = "outputs") -> Array:
    """`x` in at least float32: half precision is widened, so that a loss of 1e-3 is not lost beside a log-sum of 10."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: got {x.dtype}{list(x.shape)}, expected floating point; convert with .astype(jnp.float32)"
        )
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)


def matched(loss: str, outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Both in the floating dtype of `outputs`, after a check that the shapes are equal.

    Nothing is broadcast: `[B, 1]` beside `[B]` would give `[B, B]` residuals and a plausible, wrong loss.
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{loss}: outputs {list(outputs.shape)} and targets {list(targets.shape)} differ in shape, and nothing is "
            "broadcast; bring them to the same shape (for outputs [B, 1] and targets [B]: outputs[..., 0])"
        )
    outputs = as_float(outputs)
    return outputs, targets.astype(outputs.dtype)


def per_example(values: Array, batch_axes: int) -> Array:
    """The mean over every axis after the first `batch_axes`."""
    if batch_axes < 0:
        raise ValueError(f"batch_axes: got {batch_axes}, expected 0 or more leading axes that count examples")
    return jnp.mean(values, axis=tuple(range(batch_axes, values.ndim)))
