"""Grokfast: amplifies the slow part of the gradients."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.transform import Transform

__all__ = ["Grokfast", "GrokfastState", "grokfast"]


class GrokfastState(NamedTuple):
    is_initial_step: Bool[Array, ""]
    mu: Any  # the average of the gradients


@dataclass(frozen=True)
class Grokfast(Transform[GrokfastState]):
    """mu = alpha mu + (1 - alpha) g, starting from the first gradient, and u = g + lamb mu: put it before a rule.

    The paper's filter Grokfast-EMA: what stays the same from step to step is amplified, by which a model that has
    learned its training set by heart comes to generalize sooner.

    Args:
      alpha: the weight of the old average.
      lamb: the weight of the average in what is returned.

    Reference: Lee, Kang, Kim, Lee, "Grokfast: accelerated grokking by amplifying slow gradients", 2024.

    >>> tx = grokfast(alpha=0.5, lamb=2.0)
    >>> state = tx.init({"w": jnp.ones(1)})
    >>> for g in (1.0, 3.0):
    ...     updates, state = tx.update({"w": jnp.array([g])}, state)
    ...     print(updates["w"])
    [3.]
    [7.]

    Raises:
      ValueError: `alpha` outside of [0, 1), or a negative `lamb`.
    """

    alpha: Scalar = 0.98
    lamb: Scalar = 2.0

    def __post_init__(self) -> None:
        settle("grokfast", self, decays=("alpha",), nonnegative=("lamb",))

    def init(self, params: Any) -> GrokfastState:
        return GrokfastState(jnp.ones((), jnp.bool_), zeros_like("grokfast", params))

    def update(self, grads: Any, state: GrokfastState, params: Any = None) -> tuple[Any, GrokfastState]:
        def step(g: Array, mu: Array) -> tuple[Array, Array]:
            mu = self.alpha * jnp.where(state.is_initial_step, g, mu) + (1 - self.alpha) * g
            return g + self.lamb * mu, mu

        updates, mu = leafwise("grokfast", step, grads, state.mu)
        return updates, GrokfastState(jnp.zeros((), jnp.bool_), mu)


grokfast = Grokfast
