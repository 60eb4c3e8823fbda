"""Keras's Ftrl: follow the regularized leader, which sets parameters to zero under an l1 penalty."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, schedule_value, settle
from dlkit.optim.keras.base import base
from dlkit.optim.leaves import check_real, leafwise, need_params, zeros_like
from dlkit.optim.scaling import ScaleByLearningRateState
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform
from dlkit.optim.wrappers.masks import Mask

__all__ = ["FollowTheLeader", "FollowTheLeaderState", "ftrl"]


class FollowTheLeaderState(NamedTuple):
    rate: ScaleByLearningRateState  # updates so far, and the rate last used
    accumulator: Any  # the sum of squared gradients
    linear: Any  # what the gradients so far add up to, as a linear function of p


@dataclass(frozen=True)
class FollowTheLeader(Transform[FollowTheLeaderState]):
    """FTRL-proximal's step, rate included: see `ftrl`.

    Raises:
      ValueError: a positive `learning_rate_power`, or another negative argument; from `update`, when `params` is None.
    """

    learning_rate: ScalarOrSchedule = 0.001
    learning_rate_power: Scalar = -0.5
    initial_accumulator_value: Scalar = 0.1
    l1: Scalar = 0.0
    l2: Scalar = 0.0
    l2_shrinkage: Scalar = 0.0
    beta: Scalar = 0.0

    def __post_init__(self) -> None:
        strengths = ("initial_accumulator_value", "l1", "l2", "l2_shrinkage", "beta")
        settle("ftrl", self, schedules=("learning_rate",), numbers=("learning_rate_power",), nonnegative=strengths)
        if isinstance(self.learning_rate_power, float) and self.learning_rate_power > 0:
            raise ValueError(f"ftrl: learning_rate_power is {self.learning_rate_power}, wanted 0 or less")

    def init(self, params: Any) -> FollowTheLeaderState:
        check_real("ftrl", params)
        count = jnp.zeros((), jnp.int32)
        rate = schedule_value("ftrl", self.learning_rate, count).astype(jnp.float32)
        accumulator = zeros_like("ftrl", params, fill=self.initial_accumulator_value)
        return FollowTheLeaderState(ScaleByLearningRateState(count, rate), accumulator, zeros_like("ftrl", params))

    def update(self, grads: Any, state: FollowTheLeaderState, params: Any = None) -> tuple[Any, FollowTheLeaderState]:
        need_params("ftrl", params)
        count = state.rate.count
        rate = schedule_value("ftrl", self.learning_rate, count)

        def step(g: Array, accumulator: Array, linear: Array, p: Array) -> tuple[Array, Array, Array]:
            eta = rate.astype(g.dtype)
            power = as_dtype(-1 * self.learning_rate_power, g.dtype)
            total = accumulator + g * g
            before, after = jnp.power(accumulator, power), jnp.power(total, power)
            linear = linear + g + 2 * self.l2_shrinkage * p - (after - before) / eta * p
            quadratic = after / eta + 2 * self.l2 + self.beta / eta
            least = as_dtype(self.l1, g.dtype)
            known = quadratic > 0  # else there was no gradient yet, and no penalty
            new = (jnp.clip(linear, -least, least) - linear) / jnp.where(known, quadratic, jnp.ones_like(quadratic))
            return jnp.where(known, new - p, jnp.zeros_like(p)), total, linear

        updates, accumulator, linear = leafwise("ftrl", step, grads, state.accumulator, state.linear, read=(params,))
        used = ScaleByLearningRateState(safe_increment(count), rate.astype(jnp.float32))
        return updates, FollowTheLeaderState(used, accumulator, linear)


def ftrl(
    learning_rate: ScalarOrSchedule = 0.001,
    learning_rate_power: Scalar = -0.5,
    initial_accumulator_value: Scalar = 0.1,
    l1_regularization_strength: Scalar = 0.0,
    l2_regularization_strength: Scalar = 0.0,
    l2_shrinkage_regularization_strength: Scalar = 0.0,
    beta: Scalar = 0.0,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Ftrl: the parameters are what would have been best for all gradients so far, penalties included.

        n' = n + g^2                                                 k = -learning_rate_power, eta = learning_rate
        z  = z + g + 2 l2_shrinkage p - (n'^k - n^k) / eta p
        p  = (min(max(z, -l1), l1) - z) / (n'^k / eta + 2 (l2 + beta / (2 eta)))

    n starts from `initial_accumulator_value`, z from 0, and p is no part of z yet: the first step leaves the initial
    parameters behind. With l1 = 0 and an initial value of 0 it is Adagrad from then on.

    Args:
      learning_rate: eta, a number or a schedule.
      learning_rate_power: the power of n in the rates; 0 or less. 0 is a rate that does not fall.
      initial_accumulator_value: what n starts from.
      l1_regularization_strength: sets p to 0 where |z| is below it.
      l2_regularization_strength: the penalty of p^2.
      l2_shrinkage_regularization_strength: a penalty that enters the gradients.
      beta: more of the l2 penalty, at small rates.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Differences. Keras gives NaN for a parameter without a gradient at `initial_accumulator_value=0`; here it stays.

    Reference: McMahan et al., "Ad click prediction: a view from the trenches", 2013.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = ftrl(1.0)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    0.736
    0.209
    0.063

    Raises:
      ValueError: an argument out of range, or two of the clipping arguments.
    """
    shared = base("ftrl", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    step = FollowTheLeader(
        learning_rate,
        learning_rate_power,
        initial_accumulator_value,
        l1_regularization_strength,
        l2_regularization_strength,
        l2_shrinkage_regularization_strength,
        beta,
    )
    return shared.before(step, rate=learning_rate)
