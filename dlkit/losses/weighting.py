"""From per-example losses to the one number that is differentiated."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.batches import as_float, spread

__all__ = ["weighted_mean"]


def weighted_mean(losses: Float[ArrayLike, "..."], weight: ArrayLike | None = None) -> Float[Array, ""]:
    r"""The mean of the losses, each counted by its weight: :math:`\sum_i w_i \ell_i / \sum_i w_i`.

    Dividing by the sum of the weights, and not by the number of rows, makes padded rows count for nothing.

    >>> losses = jnp.array([1.0, 3.0, jnp.nan])
    >>> float(weighted_mean(losses, jnp.array([1.0, 1.0, 0.0])))
    2.0

    Args:
      losses: `[B]`, `[B, T]` or any other shape.
      weight: non-negative, `[B]` or any other leading part of the shape of `losses`: a weight of shape `[B]` beside
        losses `[B, T]` counts for all T of them. None gives every loss weight 1.

    Returns:
      A scalar, in float32 at least. A loss with weight 0 is not read: NaN there changes neither the value nor the
      gradient with respect to `losses`. Where all weights are 0 the value is 0 and so is the gradient.

    Raises:
      ValueError: the shape of `weight` is not a leading part of the shape of `losses`.

    torch divides by the sum of the class weights in `CrossEntropyLoss(weight=...)` and by the number of elements
    elsewhere; Keras `sample_weight` divides by the number of rows (`sum_over_batch_size`), so it gives a smaller loss
    for a padded batch; optax leaves this step to the caller.
    """
    losses = as_float(losses, "losses")
    if weight is None:
        return jnp.mean(losses)
    weight = spread(weight, losses.shape, losses.dtype, what="losses")
    total = jnp.sum(weight)
    weighted = jnp.where(weight != 0, losses, 0) * weight
    return jnp.sum(weighted) / jnp.where(total == 0, 1, total)
