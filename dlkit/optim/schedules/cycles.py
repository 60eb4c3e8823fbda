"""Triangular cycles, and one cycle, by torch's numbers: for a learning rate, and backwards for a momentum.

>>> [float(cyclic_schedule(0.0, 1.0, step_size_up=2)(t)) for t in range(6)]
[0.0, 0.5, 1.0, 0.5, 0.0, 0.5]
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_float, settle
from dlkit.optim.schedules.curves import Schedule, as_value, counts, geometric, half_cosine

__all__ = ["Cyclic", "OneCycle", "cyclic_schedule", "onecycle_momentum_schedule", "onecycle_schedule"]


@dataclass(frozen=True)
class Cyclic(Schedule):
    """Up from `base_value` to `max_value` in a line and down again, over and over: torch's `CyclicLR`.

        triangular       the same height in every cycle
        triangular2      half the height of the cycle before
        exp_range        the height times gamma^t

    torch's momentum, which falls while the rate rises, is `cyclic_schedule(max_momentum, base_momentum, ...)`.

    Args:
      base_value, max_value: the two ends.
      step_size_up: updates from base to maximum, 1 or more.
      step_size_down: updates back; None means as many.
      mode: "triangular", "triangular2" or "exp_range".
      gamma: of exp_range.

    Reference: Smith, "Cyclical learning rates for training neural networks", 2017.

    >>> [float(cyclic_schedule(0.0, 1.0, 1, mode="triangular2")(t)) for t in range(6)]
    [0.0, 1.0, 0.0, 0.5, 0.0, 0.25]

    Raises:
      ValueError: a number of steps below 1, an unknown mode, or a negative gamma.
    """

    base_value: Scalar
    max_value: Scalar
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: Scalar = 1.0

    def __post_init__(self) -> None:
        if self.mode not in ("triangular", "triangular2", "exp_range"):
            raise ValueError(f"cyclic_schedule: mode is {self.mode!r}, wanted triangular, triangular2 or exp_range")
        settle("cyclic_schedule", self, numbers=("base_value", "max_value"), nonnegative=("gamma",))
        if self.step_size_down is None:
            object.__setattr__(self, "step_size_down", self.step_size_up)
        counts("cyclic_schedule", self, "step_size_up", "step_size_down", least=1)

    def __call__(self, count: Any) -> Float[Array, "..."]:
        count = jnp.maximum(jnp.asarray(count), 0)
        up, down = self.step_size_up, self.step_size_down or 0
        cycle, at = count // (up + down), count % (up + down)
        dtype = jnp.result_type(float)
        height = jnp.where(at <= up, at.astype(dtype) / up, (up + down - at).astype(dtype) / down)
        if self.mode == "triangular2":
            height = height * jnp.exp2(-cycle.astype(dtype))
        elif self.mode == "exp_range":
            height = height * geometric(self.gamma, count)
        return self.base_value * (1 - height) + self.max_value * height


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From `start_value` to `peak_value` and on to `end_value`, which stays: the shape of torch's `OneCycleLR`.

    The phases end where torch's do, at the updates pct_start total_steps - 1 (which need not be whole) and
    total_steps - 1; with `three_phase` at pct_start total_steps - 1, at 2 pct_start total_steps - 2 (back at
    `start_value`) and total_steps - 1. See `onecycle_schedule` and `onecycle_momentum_schedule`.

    >>> [round(float(OneCycle(0.0, 1.0, 0.0, 5, pct_start=0.6, anneal_strategy="linear")(t)), 3) for t in range(6)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]

    Raises:
      ValueError: `total_steps` below 1, `pct_start` outside of [0, 1], or an unknown strategy.
    """

    start_value: Scalar
    peak_value: Scalar
    end_value: Scalar
    total_steps: int
    pct_start: float | int = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    three_phase: bool = False

    def __post_init__(self) -> None:
        owner = "onecycle_schedule"
        settle(owner, self, numbers=("start_value", "peak_value", "end_value"))
        counts(owner, self, "total_steps", least=1)
        object.__setattr__(self, "pct_start", float(self.pct_start))
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"{owner}: pct_start is {self.pct_start}, wanted 0 to 1")
        if self.anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"{owner}: anneal_strategy is {self.anneal_strategy!r}, wanted 'cos' or 'linear'")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        count = jnp.maximum(jnp.asarray(count), 0)
        start, peak, end = self.start_value, self.peak_value, self.end_value
        first, last = self.pct_start * self.total_steps - 1, self.total_steps - 1.0
        second = 2 * self.pct_start * self.total_steps - 2
        phases = [(0.0, first, start, peak)]
        phases += [(first, second, peak, start), (second, last, start, end)] if self.three_phase else []
        phases += [] if self.three_phase else [(first, last, peak, end)]
        result = self._phase(count, *phases[-1])
        for phase in reversed(phases[:-1]):
            result = jnp.where(count <= math.floor(phase[1]), self._phase(count, *phase), result)
        return result

    def _phase(self, count: Any, begin: float, end: float, of: Any, to: Any) -> Array:
        length = end - begin
        if length <= 0:  # torch divides by zero where such a phase is met
            past = as_value(jnp.ones(jnp.shape(count)))
            return of * (1 - past) + to * past
        # What is whole is subtracted as integers: a float32 count is exact up to 16 million only.
        dtype = jnp.result_type(float)
        gone = (count - math.floor(begin)).astype(dtype) - (begin - math.floor(begin))
        left = (math.ceil(end) - count).astype(dtype) - (math.ceil(end) - end)
        left, past = jnp.clip(left / length, 0, 1), jnp.clip(gone / length, 0, 1)
        if self.anneal_strategy == "cos":
            left, past = half_cosine(left), half_cosine(past)
        return of * left + to * past


cyclic_schedule = Cyclic


def onecycle_schedule(
    max_value: Scalar,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
    three_phase: bool = False,
) -> OneCycle:
    """max_value / div_factor, up to `max_value`, and down to max_value / (div_factor final_div_factor).

    Differences. torch `OneCycleLR`: equal at every update; past the last one, torch raises and this stays. optax's
    `cosine_onecycle_schedule` and `linear_onecycle_schedule` have their peak and their end one update later.

    Reference: Smith, Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2018.

    >>> [round(float(onecycle_schedule(1.0, 10)(t)), 2) for t in (0, 1, 2, 9)]
    [0.04, 0.52, 1.0, 0.0]

    Raises:
      ValueError: `total_steps` below 1, `pct_start` outside of [0, 1], or an unknown strategy.
    """
    given = {"max_value": max_value, "div_factor": div_factor, "final_div_factor": final_div_factor}
    peak, div, final = (as_float("onecycle_schedule", name, value) for name, value in given.items())
    return OneCycle(peak / div, peak, peak / div / final, total_steps, pct_start, anneal_strategy, three_phase)


def onecycle_momentum_schedule(
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    base_momentum: Scalar = 0.85,
    max_momentum: Scalar = 0.95,
    three_phase: bool = False,
) -> OneCycle:
    """The momentum (or Adam's b1) beside `onecycle_schedule`: down to `base_momentum` at the peak, and up again.

    torch's `OneCycleLR` sets it too, with these defaults.

    >>> [round(float(onecycle_momentum_schedule(10)(t)), 2) for t in (0, 2, 9)]
    [0.95, 0.85, 0.95]

    Raises:
      ValueError: as `onecycle_schedule`.
    """
    return OneCycle(max_momentum, base_momentum, max_momentum, total_steps, pct_start, anneal_strategy, three_phase)
