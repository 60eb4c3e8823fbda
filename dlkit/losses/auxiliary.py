"""The loss of a network with several heads."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp  # noqa: F401  (the doctest)
from jaxtyping import Array, Float

from dlkit.losses.classification import cross_entropy

__all__ = ["AuxLoss"]


@dataclass(frozen=True)
class AuxLoss:
    """`loss(outputs, targets)`, plus `weight` times the loss of each head where outputs are a tuple: `[B]`.

    For `models.AuxHeads`. Szegedy et al. 2014 have the weight 0.3. A metric gets the tuple too, in training: give one
    that takes `outputs[0]`, or measure in evaluation only.

    >>> loss = AuxLoss()
    >>> loss((jnp.zeros((2, 4)), jnp.zeros((2, 4))), jnp.array([0, 1])).round(4)
    Array([1.8022, 1.8022], dtype=float32)
    """

    loss: Any = cross_entropy
    weight: float = 0.3

    def __call__(self, outputs: Any, targets: Any) -> Float[Array, "B"]:
        if not isinstance(outputs, tuple):
            return self.loss(outputs, targets)
        first, *aside = outputs
        return self.loss(first, targets) + self.weight * sum(self.loss(y, targets) for y in aside)
