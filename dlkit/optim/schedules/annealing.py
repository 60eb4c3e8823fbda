"""From one value to another and no further: annealing, and the schedules that hold a rate before they lower it.

>>> schedule = warmup_stable_decay_schedule(0.0, 1.0, warmup_steps=2, stable_steps=3, decay_steps=2)
>>> [float(schedule(t)) for t in range(9)]
[0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.schedules.curves import (
    ConstantSchedule,
    Schedule,
    as_value,
    counts,
    half_cosine,
    like,
    linear_schedule,
    share,
)
from dlkit.optim.schedules.phases import JoinSchedules
from dlkit.optim.traced import Traced

__all__ = [
    "Anneal",
    "anneal_schedule",
    "flat_cosine_schedule",
    "lr_range_test_schedule",
    "swa_schedule",
    "warmup_stable_decay_schedule",
]

SHAPES = ("linear", "cosine", "1-sqrt", "exponential")
Shape: TypeAlias = Literal["linear", "cosine", "1-sqrt", "exponential"]


@dataclass(frozen=True)
class Anneal(Schedule):
    """From `init_value` at t = 0 to `end_value` at t = transition_steps, where it stays.

        linear, cosine, 1-sqrt      init w(x) + end (1 - w(x))       x = min(t, transition_steps) / transition_steps
        exponential                 init^(1 - x) end^x

        w(x) = 1 - x (linear),  (1 + cos(pi x)) / 2 (cosine),  1 - sqrt(x) (1-sqrt)

    With 0 steps the value is `end_value` from the first update on.

    Args:
      init_value, end_value: the two values; for `exponential` both above 0.
      transition_steps: how long it takes.
      shape: "linear", "cosine", "1-sqrt" or "exponential".

    >>> [round(float(anneal_schedule(1.0, 0.01, 4, "exponential")(t)), 3) for t in range(6)]
    [1.0, 0.316, 0.1, 0.032, 0.01, 0.01]

    Raises:
      ValueError: a negative number of steps, an unknown shape, or an exponential that is not between positive values.
    """

    init_value: Scalar
    end_value: Scalar
    transition_steps: int
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"anneal_schedule: shape is {self.shape!r}, wanted one of {', '.join(SHAPES)}")
        settle("anneal_schedule", self, numbers=("init_value", "end_value"))
        counts("anneal_schedule", self, "transition_steps")
        for name in ("init_value", "end_value") if self.shape == "exponential" else ():
            value = getattr(self, name)
            if not isinstance(value, Traced) and value <= 0:
                raise ValueError(f"anneal_schedule: {name} is {value}, wanted more than 0 for an exponential")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        steps = self.transition_steps
        if steps == 0:
            return like(count, self.end_value)
        gone = jnp.clip(jnp.asarray(count), 0, steps)
        left, past = share(steps - gone, steps), share(gone, steps)
        if self.shape == "exponential":
            return self.init_value * jnp.exp(past * self._log_ratio())
        if self.shape == "cosine":
            left, past = half_cosine(left), half_cosine(past)
        elif self.shape == "1-sqrt":
            root = jnp.sqrt(past)
            left, past = left / (1 + root), root  # 1 - sqrt(x) = (1 - x) / (1 + sqrt(x)): exact near the end too
        return self.init_value * left + self.end_value * past

    def _log_ratio(self) -> Any:
        if isinstance(self.init_value, Traced) or isinstance(self.end_value, Traced):
            return jnp.log(as_value(self.end_value)) - jnp.log(as_value(self.init_value))
        return math.log(self.end_value / self.init_value)


anneal_schedule = Anneal


def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    end_value: Scalar = 0.0,
    decay_shape: Shape = "linear",
) -> JoinSchedules:
    """WSD: a line up to `peak_value`, `stable_steps` at the peak, then down to `end_value` and no further.

    With the linear shape this is the trapezoid. A run can be prolonged by starting again from before the decay, which
    a cosine over the whole length does not allow.

    Args:
      init_value: the value at t = 0; peak_value / warmup_steps wastes no update.
      peak_value: reached at t = warmup_steps and held up to and including t = warmup_steps + stable_steps.
      warmup_steps, stable_steps, decay_steps: the lengths of the three phases; each may be 0. (In optax's
        `warmup_cosine_decay_schedule`, decay_steps is the length of the whole; here of the decay alone.)
      end_value: the value from t = warmup_steps + stable_steps + decay_steps on.
      decay_shape: see `Anneal`. "1-sqrt" was the best of those compared by Hägele et al.

    References: Hu et al., "MiniCPM: unveiling the potential of small language models with scalable training
    strategies", 2024. Hägele et al., "Scaling laws and compute-optimal training beyond fixed training durations", 2024.

    >>> schedule = warmup_stable_decay_schedule(0.5, 1.0, 1, 1, 4, decay_shape="1-sqrt")
    >>> [round(float(schedule(t)), 3) for t in range(7)]
    [0.5, 1.0, 1.0, 0.5, 0.293, 0.134, 0.0]

    Raises:
      ValueError: a negative number of steps, or an unknown shape.
    """
    owner = "warmup_stable_decay_schedule"
    warmup, stable = as_count(owner, "warmup_steps", warmup_steps), as_count(owner, "stable_steps", stable_steps)
    decay = Anneal(peak_value, end_value, as_count(owner, "decay_steps", decay_steps), decay_shape)
    rise = linear_schedule(init_value, peak_value, warmup)
    return JoinSchedules((rise, ConstantSchedule(peak_value), decay), (warmup, warmup + stable))


def flat_cosine_schedule(
    init_value: Scalar, flat_steps: int, decay_steps: int, end_value: Scalar = 0.0
) -> JoinSchedules:
    """`init_value` for `flat_steps`, then half a cosine of `decay_steps` down to `end_value`: fastai's `fit_flat_cos`.

    Differences. fastai gives the share of the flat part (`pct_start`, 0.75) and the end as init_value / 1e5.

    >>> [round(float(flat_cosine_schedule(1.0, 2, 2)(t)), 3) for t in range(6)]
    [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]

    Raises:
      ValueError: a negative number of steps.
    """
    flat = as_count("flat_cosine_schedule", "flat_steps", flat_steps)
    decay = Anneal(init_value, end_value, as_count("flat_cosine_schedule", "decay_steps", decay_steps))
    return JoinSchedules((ConstantSchedule(init_value), decay), (flat,))


def swa_schedule(
    init_value: Scalar, swa_value: Scalar, anneal_steps: int = 10, anneal_strategy: Literal["cos", "linear"] = "cos"
) -> Anneal:
    """From the rate that was reached to that of stochastic weight averaging, where it stays: torch's `SWALR`.

    It comes after the schedule of the first part: `join_schedules([first, swa_schedule(rate, swa_value)], [start])`.

    Differences. torch: equal, with `init_value` the rate that it finds in the optimizer.

    Reference: Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018.

    >>> [round(float(swa_schedule(1.0, 0.1, 4)(t)), 3) for t in range(6)]
    [1.0, 0.868, 0.55, 0.232, 0.1, 0.1]

    Raises:
      ValueError: a negative number of steps, or an unknown strategy.
    """
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(f"swa_schedule: anneal_strategy is {anneal_strategy!r}, wanted 'cos' or 'linear'")
    steps = as_count("swa_schedule", "anneal_steps", anneal_steps)
    return Anneal(init_value, swa_value, steps, "cosine" if anneal_strategy == "cos" else "linear")


def lr_range_test_schedule(
    init_value: Scalar = 1e-7, end_value: Scalar = 10.0, steps: int = 100, shape: Shape = "exponential"
) -> Anneal:
    """A rate that grows from `init_value` to `end_value` while the loss is watched, to find a good one.

    A good rate lies well below the one at which the loss stops falling.

    Differences. Smith's test is linear (`shape="linear"`); fastai's `lr_find` is exponential, with these defaults.

    Reference: Smith, "Cyclical learning rates for training neural networks", 2017.

    >>> [f"{float(lr_range_test_schedule(1e-4, 1.0, 4)(t)):.0e}" for t in range(5)]
    ['1e-04', '1e-03', '1e-02', '1e-01', '1e+00']

    Raises:
      ValueError: `steps` below 1, an unknown shape, or a value that is not above 0 in the exponential.
    """
    return Anneal(init_value, end_value, as_count("lr_range_test_schedule", "steps", steps, 1), shape)
