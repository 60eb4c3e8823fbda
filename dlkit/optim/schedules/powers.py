"""Decays by a power of the number of updates: power law, inverse time, inverse square root; and other plain decays.

>>> [round(float(inverse_sqrt_schedule(0.0, 1.0, warmup_steps=4)(t)), 3) for t in (0, 2, 4, 16, 64)]
[0.0, 0.5, 1.0, 0.5, 0.25]
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_count, as_float, settle
from dlkit.optim.schedules.curves import (
    ConstantSchedule,
    ExponentialDecay,
    Schedule,
    as_value,
    counts,
    linear_schedule,
    share,
)
from dlkit.optim.schedules.phases import JoinSchedules, PiecewiseConstant
from dlkit.optim.traced import Traced

__all__ = [
    "PowerLawDecay",
    "TanhDecay",
    "inverse_sqrt_schedule",
    "inverse_time_decay",
    "multi_step_decay",
    "natural_exp_decay",
    "noam_schedule",
    "power_law_decay",
    "tanh_decay",
    "warmup_factor_schedule",
]


@dataclass(frozen=True)
class PowerLawDecay(Schedule):
    """init_value / (1 + decay_rate t / decay_steps)^power.

    With a power above 1/2 and up to 1 it satisfies the conditions of Robbins and Monro. Spall's gains
    a / (A + 1 + t)^alpha are power_law_decay(a / (A + 1)^alpha, A + 1, power=alpha).

    Args:
      init_value: the value at t = 0.
      decay_steps, decay_rate: at t = decay_steps / decay_rate the value is init_value / 2^power.
      power: 1/2 for the inverse square root, 1 for the inverse time.
      staircase: whether t / decay_steps is rounded down.

    Reference: Robbins, Monro, "A stochastic approximation method", 1951.

    >>> power_law_decay(1.0, decay_steps=10, power=0.5)(30)
    Array(0.5, dtype=float32)

    Raises:
      ValueError: `decay_steps` below 1, or a negative rate or power.
    """

    init_value: Scalar
    decay_steps: int = 1
    decay_rate: Scalar = 1.0
    power: Scalar = 0.5
    staircase: bool = False

    def __post_init__(self) -> None:
        settle("power_law_decay", self, numbers=("init_value",), nonnegative=("decay_rate", "power"))
        counts("power_law_decay", self, "decay_steps", least=1)

    def __call__(self, count: Any) -> Float[Array, "..."]:
        since = jnp.maximum(jnp.asarray(count), 0)
        gone = share(since // self.decay_steps, 1) if self.staircase else share(since, self.decay_steps)
        return self.init_value * jnp.exp(-self.power * jnp.log1p(self.decay_rate * gone))


@dataclass(frozen=True)
class TanhDecay(Schedule):
    """end_value + (init_value - end_value) (1 - tanh(lower + (upper - lower) x)) / 2, x = min(t / decay_steps, 1).

    It starts and ends near the two values, not at them: within 1e-6 and 0.25 % of the way with the defaults. With 0
    steps it is over before it begins.

    Differences. timm's `TanhLRScheduler`: equal within the cycle; after it, timm's is `end_value`.

    Reference: Hsueh, Li, Wu, "Stochastic gradient descent with hyperbolic-tangent decay on classification", 2019.

    >>> [round(float(tanh_decay(1.0, 10)(t)), 3) for t in (0, 5, 7, 10)]
    [1.0, 0.982, 0.5, 0.002]

    Raises:
      ValueError: a negative number of steps.
    """

    init_value: Scalar
    decay_steps: int
    end_value: Scalar = 0.0
    lower: Scalar = -7.0
    upper: Scalar = 3.0

    def __post_init__(self) -> None:
        settle("tanh_decay", self, numbers=("init_value", "end_value", "lower", "upper"))
        counts("tanh_decay", self, "decay_steps")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        steps = max(self.decay_steps, 1)
        gone = jnp.clip(jnp.asarray(count) + (steps - self.decay_steps), 0, steps)
        inside = self.lower * share(steps - gone, steps) + self.upper * share(gone, steps)
        # (1 - tanh z) / 2 is the logistic function of -2 z, which does not cancel where tanh is near 1.
        left, past = 1 / (1 + jnp.exp(2 * inside)), 1 / (1 + jnp.exp(-2 * inside))
        return self.init_value * left + self.end_value * past


power_law_decay = PowerLawDecay
tanh_decay = TanhDecay


def inverse_time_decay(
    init_value: Scalar, decay_steps: int, decay_rate: Scalar, staircase: bool = False
) -> PowerLawDecay:
    """init_value / (1 + decay_rate t / decay_steps): Keras's `InverseTimeDecay`, torch's `lr_decay` of Adagrad.

    >>> inverse_time_decay(1.0, decay_steps=10, decay_rate=0.5)(20)
    Array(0.5, dtype=float32)

    Raises:
      ValueError: `decay_steps` below 1, or a negative rate.
    """
    return PowerLawDecay(init_value, decay_steps, decay_rate, 1.0, staircase)


def natural_exp_decay(
    init_value: Scalar, decay_steps: int, decay_rate: Scalar, staircase: bool = False
) -> ExponentialDecay:
    """init_value exp(-decay_rate t / decay_steps): TensorFlow 1's `natural_exp_decay`.

    >>> round(float(natural_exp_decay(1.0, 10, 0.5)(20)), 3)
    0.368

    Raises:
      ValueError: `decay_steps` below 1.
    """
    owner = "natural_exp_decay"
    rate, steps = as_float(owner, "decay_rate", decay_rate), as_count(owner, "decay_steps", decay_steps, 1)
    base: Any = Traced(jnp.exp(-as_value(rate))) if isinstance(rate, Traced) else math.exp(-rate)
    return ExponentialDecay(init_value, steps, base, staircase=staircase)


def inverse_sqrt_schedule(
    init_value: Scalar, peak_value: Scalar, warmup_steps: int, timescale: int | None = None
) -> JoinSchedules:
    """A line to `peak_value` over `warmup_steps`, then peak_value / sqrt(1 + (t - warmup_steps) / timescale).

    With `timescale` = warmup_steps, the default, that is peak_value sqrt(warmup_steps / t). Without warm-up the default
    is 10,000 (transformers' `get_inverse_sqrt_schedule`, which this equals from init_value = 0).

    Reference: Zhai et al., "Scaling vision transformers", 2022.

    >>> [round(float(inverse_sqrt_schedule(0.0, 1.0, 4)(t)), 3) for t in (0, 4, 16)]
    [0.0, 1.0, 0.5]

    Raises:
      ValueError: a negative number of steps, or a timescale below 1.
    """
    owner = "inverse_sqrt_schedule"
    warmup = as_count(owner, "warmup_steps", warmup_steps)
    scale = (warmup or 10_000) if timescale is None else as_count(owner, "timescale", timescale, 1)
    return JoinSchedules((linear_schedule(init_value, peak_value, warmup), PowerLawDecay(peak_value, scale)), (warmup,))


def noam_schedule(d_model: int, warmup_steps: int, factor: Scalar = 1.0) -> JoinSchedules:
    """factor d_model^(-1/2) min(n^(-1/2), n warmup_steps^(-3/2)), n = t + 1: the Transformer's.

    The steps n of the paper count from 1, so the first rate is not 0; the peak is at t = warmup_steps - 1.

    Reference: Vaswani et al., "Attention is all you need", 2017, section 5.3.

    >>> [round(float(noam_schedule(4, 4)(t)), 3) for t in (0, 1, 3, 15)]
    [0.062, 0.125, 0.25, 0.125]

    Raises:
      ValueError: `d_model` below 1, or a negative warm-up.
    """
    width = as_count("noam_schedule", "d_model", d_model, 1)
    steps = max(as_count("noam_schedule", "warmup_steps", warmup_steps), 1)
    peak = as_float("noam_schedule", "factor", factor) * (width * steps) ** -0.5
    rise = linear_schedule(peak / steps, peak, steps - 1)
    return JoinSchedules((rise, PowerLawDecay(peak, steps)), (steps - 1,))


def multi_step_decay(init_value: Scalar, milestones: Iterable[int], gamma: Scalar = 0.1) -> PiecewiseConstant:
    """init_value gamma^(how many milestones have been reached): torch's `MultiStepLR`.

    A milestone that is given twice counts twice.

    >>> [float(multi_step_decay(1.0, [2, 4], gamma=0.5)(t)) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]

    Raises:
      ValueError: a negative milestone or gamma.
    """
    owner = "multi_step_decay"
    factor, steps = as_float(owner, "gamma", gamma), [as_count(owner, "a milestone", m) for m in milestones]
    return PiecewiseConstant(init_value, {step: factor**times for step, times in Counter(steps).items()})


def warmup_factor_schedule(init_value: Scalar, factor: Scalar = 1 / 3, total_steps: int = 5) -> JoinSchedules:
    """factor * init_value for `total_steps`, then init_value: torch's `ConstantLR`.

    >>> [float(warmup_factor_schedule(1.0, 0.5, 2)(t)) for t in range(4)]
    [0.5, 0.5, 1.0, 1.0]

    Raises:
      ValueError: a negative number of steps.
    """
    owner = "warmup_factor_schedule"
    value, low = as_float(owner, "init_value", init_value), as_float(owner, "factor", factor)
    parts = ConstantSchedule(low * value), ConstantSchedule(value)
    return JoinSchedules(parts, (as_count(owner, "total_steps", total_steps),))
