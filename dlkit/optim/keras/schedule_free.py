"""Keras's ScheduleFreeAdamW: an average of the iterates in the place of a falling rate."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import (
    Scalar,
    ScalarOrSchedule,
    as_count,
    bias_correction,
    safe_increment,
    schedule_value,
    settle,
)
from dlkit.optim.keras.base import base
from dlkit.optim.leaves import leafwise, need_params, zeros_like
from dlkit.optim.scaling import ScaleByLearningRateState
from dlkit.optim.transform import Chain, Transform
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScheduleFreeStep", "ScheduleFreeStepState", "schedule_free_adamw"]


class ScheduleFreeStepState(NamedTuple):
    rate: ScaleByLearningRateState  # updates so far, and the rate last used
    z: Any  # the parameters that descent moves
    nu: Any  # the average of the squared gradients


@dataclass(frozen=True)
class ScheduleFreeStep(Transform[ScheduleFreeStepState]):
    """The step of `schedule_free_adamw`, rate included.

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a `b1` of 0, a negative `eps` or `warmup_steps`; from `update`, when
        `params` is None.
    """

    learning_rate: ScalarOrSchedule = 0.0025
    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        owner = "schedule_free_adamw"
        settle(owner, self, schedules=("learning_rate",), decays=("b1", "b2"), nonnegative=("eps",))
        object.__setattr__(self, "warmup_steps", as_count(owner, "warmup_steps", self.warmup_steps))
        if not self.b1:
            raise ValueError(f"{owner}: b1 is 0.0, wanted 0 < b1 < 1: the average is found by dividing by it")

    def init(self, params: Any) -> ScheduleFreeStepState:
        zeros = zeros_like("schedule_free_adamw", params)
        count = jnp.zeros((), jnp.int32)
        rate = ScaleByLearningRateState(count, self._rate(count).astype(jnp.float32))
        return ScheduleFreeStepState(rate, jax.tree.map(jnp.add, zeros, params), zeros)

    def update(self, grads: Any, state: ScheduleFreeStepState, params: Any = None) -> tuple[Any, ScheduleFreeStepState]:
        need_params("schedule_free_adamw", params)
        eta, count = self._rate(state.rate.count), safe_increment(state.rate.count)
        of_nu, share = 1 / bias_correction(self.b2, count), 1 / count.astype(eta.dtype)

        def step(g: Array, z: Array, nu: Array, y: Array) -> tuple[Array, Array, Array]:
            x = (y - (1 - self.b1) * z) / self.b1
            nu = self.b2 * nu + (1 - self.b2) * (g * g)
            z = z - eta.astype(g.dtype) * g / (jnp.sqrt(of_nu.astype(g.dtype) * nu) + self.eps)
            x = (1 - share).astype(g.dtype) * x + share.astype(g.dtype) * z
            return (1 - self.b1) * z + self.b1 * x - y, z, nu

        updates, z, nu = leafwise("schedule_free_adamw", step, grads, state.z, state.nu, read=(params,))
        rate = ScaleByLearningRateState(count, eta.astype(jnp.float32))
        return updates, ScheduleFreeStepState(rate, z, nu)

    def _rate(self, count: Array) -> Array:
        rate = schedule_value("schedule_free_adamw", self.learning_rate, count)
        if not self.warmup_steps:
            return rate
        done = (count + 1).astype(rate.dtype) / self.warmup_steps
        return rate * jnp.minimum(done, jnp.ones_like(done))


def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-8,
    warmup_steps: int = 0,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.ScheduleFreeAdamW: gradients are taken at y, between the iterate z and its plain average x.

        z = z - eta g / (sqrt(nu / (1 - beta_2^t)) + epsilon)        nu = beta_2 nu + (1 - beta_2) g^2, g at y = p
        x = (1 - 1 / t) x + z / t                                    t = 1 in the first update
        p = (1 - beta_1) z + beta_1 x                                eta = learning_rate min(1, t / warmup_steps)

    The parameters of the model are y in training; the average x = (p - (1 - beta_1) z) / beta_1 is what to evaluate.

    Args:
      learning_rate: a number, or a schedule.
      beta_1: how far y is on the way from z to x; above 0.
      beta_2: the weight of the old average of squared gradients.
      epsilon: stands outside of the corrected root.
      warmup_steps: over how many updates the rate rises.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Differences. optax's `contrib.schedule_free_adamw` weighs the average by the rates.

    Reference: Defazio et al., "The road less scheduled", 2024.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = schedule_free_adamw(0.3)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.380
    2.720
    2.161

    Raises:
      ValueError: as `ScheduleFreeStep`, or two of the clipping arguments.
    """
    shared = base("schedule_free_adamw", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    step = ScheduleFreeStep(learning_rate, beta_1, beta_2, epsilon, warmup_steps)
    return shared.before(step, rate=learning_rate)
