"""Schedules: hyperparameters that change during training.

A schedule is a frozen dataclass that is called with the number of the update. **Update number t, the first being 0,
uses schedule(t).** The result is a float32 scalar (float64 when JAX's 64-bit mode is on). Counts are integers, and
what is left of a phase is subtracted as integers, so values stay accurate in float32 up to ten million steps, near
the end of a decay too. Names and arguments are optax's; values equal optax's at every step, except where noted. Values,
rates and exponents may be traced (a peak under `vmap`); numbers of steps are Python's.

>>> schedule = cosine_decay_schedule(1.0, decay_steps=4)
>>> schedule
CosineDecay(init_value=1.0, decay_steps=4, alpha=0.0, exponent=1.0)
>>> [round(float(schedule(t)), 3) for t in range(6)]
[1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.traced import Traced, as_dtype

__all__ = [
    "ConstantSchedule",
    "CosineDecay",
    "ExponentialDecay",
    "PolynomialSchedule",
    "Schedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "linear_schedule",
    "polynomial_schedule",
    "step_decay",
]


class Schedule(ABC):
    """Base of all schedules: subclass as `@dataclass(frozen=True)` and write `__call__`."""

    @abstractmethod
    def __call__(self, count: Any) -> Float[Array, "..."]:
        """The value for update number `count` (an integer, or an array of them)."""


def as_value(number: Any) -> Array:
    return as_dtype(number, jnp.result_type(float))


def share(part: Any, whole: int) -> Array:
    return jnp.asarray(part).astype(jnp.result_type(float)) / whole


def like(count: Any, number: Any) -> Array:
    return jnp.broadcast_to(as_value(number), jnp.shape(count))


def geometric(rate: Any, count: Any, per: int = 1) -> Array:
    """rate^(count / per)."""
    if isinstance(rate, Traced):
        return jnp.power(as_value(rate), share(count, per))
    if rate == 0:
        return as_value(jnp.asarray(count) == 0)
    # The logarithm is taken in double precision: a rate of 0.999999, rounded to float32, is off by 6 % after a
    # million steps.
    return jnp.exp(share(count, 1) * (math.log(rate) / per))


def counts(owner: str, record: Any, *names: str, least: int = 0) -> None:
    for name in names:
        object.__setattr__(record, name, as_count(owner, name, getattr(record, name), least))


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """The same value at every step.

    >>> constant_schedule(0.5)(7)
    Array(0.5, dtype=float32)
    """

    value: Scalar

    def __post_init__(self) -> None:
        settle("constant_schedule", self, numbers=("value",))

    def __call__(self, count: Any) -> Float[Array, "..."]:
        return like(count, self.value)


@dataclass(frozen=True)
class PolynomialSchedule(Schedule):
    """(init_value - end_value) (1 - c / transition_steps)^power + end_value, with c = count - transition_begin.

    c is kept within 0 ... transition_steps. With `transition_steps` = 0 the value stays at `init_value` (optax's rule).

    >>> polynomial_schedule(1.0, 0.0, power=2, transition_steps=4)(2)
    Array(0.25, dtype=float32)

    Raises:
      ValueError: a negative number of steps, or a power that is not above 0.
    """

    init_value: Scalar
    end_value: Scalar
    power: Scalar
    transition_steps: int
    transition_begin: int = 0

    def __post_init__(self) -> None:
        settle("polynomial_schedule", self, numbers=("init_value", "end_value", "power"))
        if not isinstance(self.power, Traced) and self.power <= 0:
            raise ValueError(f"polynomial_schedule: power is {self.power}, wanted more than 0")
        counts("polynomial_schedule", self, "transition_steps", "transition_begin")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        steps = self.transition_steps
        if steps == 0:
            return like(count, self.init_value)
        gone = jnp.clip(jnp.asarray(count) - self.transition_begin, 0, steps)
        # Both weights from integers, not one as 1 minus the other: neither end of the phase loses digits.
        weight, other = share(steps - gone, steps), share(gone, steps)
        if self.power != 1:
            inside = jnp.where(gone < steps, other, 0.0)  # log1p(-1) would make the gradient of a power NaN
            other = jnp.where(gone < steps, -jnp.expm1(self.power * jnp.log1p(-inside)), 1.0)
            weight = weight**self.power
        return self.init_value * weight + self.end_value * other


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """init_value * decay_rate^(c / transition_steps), with c = count - transition_begin, and 0 before that.

    With `staircase`, c / transition_steps is rounded down. `end_value` bounds the value: from below where
    decay_rate < 1, from above otherwise. With `transition_steps` = 0 or `decay_rate` = 0 the value stays at
    `init_value` (optax's rules).

    >>> exponential_decay(1.0, transition_steps=10, decay_rate=0.25)(5)
    Array(0.5, dtype=float32)

    Raises:
      ValueError: a negative number of steps or a negative rate.
    """

    init_value: Scalar
    transition_steps: int
    decay_rate: Scalar
    transition_begin: int = 0
    staircase: bool = False
    end_value: Scalar | None = None

    def __post_init__(self) -> None:
        settle("exponential_decay", self, numbers=("init_value",), nonnegative=("decay_rate",))
        counts("exponential_decay", self, "transition_steps", "transition_begin")
        if self.end_value is not None:
            settle("exponential_decay", self, numbers=("end_value",))

    def __call__(self, count: Any) -> Float[Array, "..."]:
        rate, steps = self.decay_rate, self.transition_steps
        if steps == 0 or (not isinstance(rate, Traced) and rate == 0):
            return like(count, self.init_value)
        since = jnp.maximum(jnp.asarray(count) - self.transition_begin, 0)
        value = self.init_value * (geometric(rate, since // steps) if self.staircase else geometric(rate, since, steps))
        if self.end_value is None:
            return value
        end = as_value(self.end_value)
        if isinstance(rate, Traced):
            return jnp.where(as_value(rate) < 1, jnp.maximum(value, end), jnp.minimum(value, end))
        return jnp.maximum(value, end) if rate < 1 else jnp.minimum(value, end)


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """init_value ((1 - alpha) [(1 + cos(pi c / decay_steps)) / 2]^exponent + alpha), c = min(count, decay_steps).

    A decay of 0 steps is over before it begins: alpha * init_value (optax raises).

    Reference: Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.

    >>> [round(float(cosine_decay_schedule(1.0, decay_steps=4, alpha=0.1)(t)), 3) for t in (0, 2, 4)]
    [1.0, 0.55, 0.1]

    Raises:
      ValueError: a negative number of steps.
    """

    init_value: Scalar
    decay_steps: int
    alpha: Scalar = 0.0
    exponent: Scalar = 1.0

    def __post_init__(self) -> None:
        settle("cosine_decay_schedule", self, numbers=("init_value", "alpha", "exponent"))
        counts("cosine_decay_schedule", self, "decay_steps")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        if self.decay_steps == 0:
            return like(count, self.init_value * self.alpha)
        left = self.decay_steps - jnp.clip(jnp.asarray(count), 0, self.decay_steps)
        weight = half_cosine(share(left, self.decay_steps))
        if self.exponent != 1:
            weight = weight**self.exponent
        return self.init_value * ((1 - self.alpha) * weight + self.alpha)


def half_cosine(left: Array) -> Array:
    # (1 - cos(pi x)) / 2 = sin(pi x / 2)^2, which does not cancel for small x, that is, near the end of a decay.
    return jnp.square(jnp.sin(left * (math.pi / 2)))


constant_schedule = ConstantSchedule
polynomial_schedule = PolynomialSchedule
exponential_decay = ExponentialDecay
cosine_decay_schedule = CosineDecay


def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: int, transition_begin: int = 0
) -> PolynomialSchedule:
    """A straight line from `init_value` to `end_value`: `polynomial_schedule` with power 1.

    >>> linear_schedule(0.0, 1.0, transition_steps=4)(1)
    Array(0.25, dtype=float32)
    """
    return PolynomialSchedule(init_value, end_value, 1.0, transition_steps, transition_begin)


def step_decay(init_value: Scalar, step_size: int, gamma: Scalar = 0.1) -> ExponentialDecay:
    """init_value * gamma^floor(count / step_size): torch's `StepLR`.

    >>> step_decay(1.0, step_size=30)(60)
    Array(0.01, dtype=float32)

    Raises:
      ValueError: `step_size` below 1.
    """
    return ExponentialDecay(init_value, as_count("step_decay", "step_size", step_size, 1), gamma, staircase=True)
