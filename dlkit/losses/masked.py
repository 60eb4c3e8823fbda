"""The loss of hidden tokens."""

from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float, Int

from dlkit.losses.classification import cross_entropy

__all__ = ["masked_cross_entropy"]


def masked_cross_entropy(outputs: Any, targets: Int[Array, "B T"]) -> Float[Array, "B"]:
    """The mean cross-entropy of each row's hidden tokens: `outputs` has `logits` `[B, T, C]` and `masked` `[B, T]`.

    Where rows have equally many of them, as in a `models.MaskedLM`, the mean over rows is that over hidden tokens. A
    row without any has the loss 0.

    >>> from dlkit import models
    >>> hidden = jnp.array([[True, False, True]])
    >>> outputs = models.MaskedOutputs(jnp.zeros((1, 3, 4)), hidden)
    >>> masked_cross_entropy(outputs, jnp.array([[0, 1, 2]])).round(4)  # log 4
    Array([1.3863], dtype=float32)
    """
    each = cross_entropy(outputs.logits, targets)
    hidden = outputs.masked.astype(each.dtype)
    return (each * hidden).sum(-1) / hidden.sum(-1).clip(1)
