"""Polyak's step size: as long as the loss is above its minimum."""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import leafwise
from dlkit.optim.measures import tree_sum_sq
from dlkit.optim.rules.momentum import sgd
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, EmptyState, Transform, chain

__all__ = ["ScaleByPolyak", "polyak_sgd", "scale_by_polyak"]


@dataclass(frozen=True)
class ScaleByPolyak(Transform[EmptyState]):
    """u = g min((value - f_min) / (|g|^2 + eps), max_learning_rate): see `polyak_sgd`.

    `update` needs the keyword argument `value`: the loss at the parameters. Where |g|^2 + eps is no more than 2.2e-16,
    u = 0.

    >>> tx = scale_by_polyak()
    >>> tx.update({"w": jnp.array([2.0, 0.0])}, EmptyState(), value=jnp.float32(1.0))[0]
    {'w': Array([0.5, 0. ], dtype=float32)}

    Raises:
      ValueError: a negative `max_learning_rate` or `eps`, or an unknown variant; from `update`, no `value`.
    """

    f_min: Scalar = 0.0
    max_learning_rate: Scalar = 1.0
    eps: Scalar = 0.0
    variant: Literal["sps", "sps+"] = "sps"

    def __post_init__(self) -> None:
        settle("scale_by_polyak", self, nonnegative=("max_learning_rate", "eps"), numbers=("f_min",))
        if self.variant not in ("sps", "sps+"):
            raise ValueError(f"scale_by_polyak: variant is {self.variant!r}, wanted 'sps' or 'sps+'")

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None, *, value: Any = None) -> tuple[Any, EmptyState]:
        if value is None:
            raise ValueError("scale_by_polyak: it reads the loss: call update(grads, state, params, value=loss)")
        rate = self._rate(grads, value)
        (updates,) = leafwise("scale_by_polyak", lambda g: rate.astype(g.real.dtype) * g, grads)
        return updates, state

    def _rate(self, grads: Any, value: Any) -> Float[Array, ""]:
        square = tree_sum_sq(grads) + self.eps
        dtype = square.dtype
        gap = jnp.asarray(value, dtype) - self.f_min
        gap = jnp.maximum(gap, jnp.zeros_like(gap)) if self.variant == "sps+" else gap
        flat = square <= float(np.finfo(np.float64).eps)
        rate = gap / jnp.where(flat, jnp.ones_like(square), square)
        return jnp.where(flat, jnp.zeros_like(rate), jnp.minimum(rate, as_dtype(self.max_learning_rate, dtype)))


scale_by_polyak = ScaleByPolyak


def polyak_sgd(
    max_learning_rate: Scalar = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Scalar = 0.0,
    eps: Scalar = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> Chain:
    """Gradient descent with Polyak's step size. Give `update` the loss: `update(grads, state, params, value=loss)`.

        g = scaling g
        p = p - g min((value - f_min) / (|g|^2 + eps), max_learning_rate)          |g| over all leaves

    For a convex loss with minimum f_min no step leads away from the minimizer. A model that can fit all its data has
    f_min = 0.

    Args:
      max_learning_rate: the longest step.
      scaling: a factor of the gradient: a number or a schedule. |g| is that of the scaled gradient, so far from the
        bound a smaller `scaling` makes *longer* steps, as in optax.
      f_min: the least value of the loss, or a guess below it.
      eps: is added to |g|^2.
      variant: `"sps+"` takes max(value - f_min, 0), for a guess f_min that may lie above the loss.

    Differences. optax: equal. torch and Keras have none. In the paper the factor of the step, c, divides; there is no
    `scaling`.

    References: Loizou et al., "Stochastic Polyak step-size for SGD", 2021. Garrigos, Gower, Schaipp, "Function value
    learning", 2023 (sps+).

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = polyak_sgd()
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     value, grads = jax.value_and_grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, value=value)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    1.250
    0.312
    0.078

    Raises:
      ValueError: a negative `max_learning_rate` or `eps`, or an unknown variant; from `update`, no `value`.
    """
    return chain(sgd(scaling), scale_by_polyak(f_min, max_learning_rate, eps, variant))
