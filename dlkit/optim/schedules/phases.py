"""Schedules in several phases: steps, interpolation, warm-up, one cycle, and joins of any others.

>>> schedule = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=6)
>>> [round(float(schedule(t)), 3) for t in range(8)]
[0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_count, as_float, settle
from dlkit.optim.schedules.curves import (
    ConstantSchedule,
    CosineDecay,
    Schedule,
    as_value,
    exponential_decay,
    half_cosine,
    like,
    linear_schedule,
    share,
)
from dlkit.optim.traced import Traced

__all__ = [
    "JoinSchedules",
    "PiecewiseConstant",
    "PiecewiseInterpolate",
    "cosine_onecycle_schedule",
    "join_schedules",
    "linear_onecycle_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]

Boundaries: TypeAlias = Mapping[int, Any] | Iterable[tuple[int, Any]] | None


def _pairs(owner: str, given: Boundaries) -> tuple[tuple[int, Any], ...]:
    items = given.items() if isinstance(given, Mapping) else given or ()
    pairs = [(as_count(owner, "a boundary", b), as_float(owner, "a scale", s)) for b, s in items]
    for boundary, factor in pairs:
        if not isinstance(factor, Traced) and factor < 0:
            raise ValueError(f"{owner}: the scale at {boundary} is {factor}, wanted 0 or more")
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class PiecewiseConstant(Schedule):
    """init_value times every scale whose boundary has been reached (count >= boundary).

    Args:
      init_value: the value before the first boundary.
      boundaries_and_scales: a dict {boundary: scale}, or pairs; stored as a sorted tuple of pairs.

    >>> piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})(20)
    Array(0.25, dtype=float32)

    Raises:
      ValueError: a negative scale or boundary.
    """

    init_value: Scalar
    boundaries_and_scales: Boundaries = None

    def __post_init__(self) -> None:
        settle("piecewise_constant_schedule", self, numbers=("init_value",))
        pairs = _pairs("piecewise_constant_schedule", self.boundaries_and_scales)
        object.__setattr__(self, "boundaries_and_scales", pairs)

    def __call__(self, count: Any) -> Float[Array, "..."]:
        value, result = self.init_value, like(count, self.init_value)
        for boundary, factor in self.boundaries_and_scales:  # pyright: ignore[reportOptionalIterable, reportGeneralTypeIssues]
            value = value * factor
            result = jnp.where(jnp.asarray(count) < boundary, result, as_value(value))
        return result


@dataclass(frozen=True)
class PiecewiseInterpolate(Schedule):
    """Joins the values of `piecewise_constant_schedule` at the boundaries by lines or by half cosines.

    The value is `init_value` at step 0 and `init_value` times the first scale at the first boundary, and so on; after
    the last boundary it is constant.

    >>> piecewise_interpolate_schedule("linear", 1.0, {10: 0.5})(5)
    Array(0.75, dtype=float32)

    Raises:
      ValueError: an unknown type, a negative scale or boundary.
    """

    interpolate_type: Literal["linear", "cosine"]
    init_value: Scalar
    boundaries_and_scales: Boundaries = None

    def __post_init__(self) -> None:
        owner = "piecewise_interpolate_schedule"
        if self.interpolate_type not in ("linear", "cosine"):
            raise ValueError(f"{owner}: interpolate_type is {self.interpolate_type!r}, wanted 'linear' or 'cosine'")
        settle(owner, self, numbers=("init_value",))
        object.__setattr__(self, "boundaries_and_scales", _pairs(owner, self.boundaries_and_scales))

    def __call__(self, count: Any) -> Float[Array, "..."]:
        points: list[tuple[int, Any]] = [(0, self.init_value)]
        for boundary, factor in self.boundaries_and_scales:  # pyright: ignore[reportOptionalIterable, reportGeneralTypeIssues]
            points.append((boundary, points[-1][1] * factor))
        count = jnp.asarray(count)
        result = like(count, points[-1][1])
        for (begin, start), (end, stop) in reversed(list(itertools.pairwise(points))):
            length = max(end - begin, 1)
            gone = jnp.clip(count - begin, 0, length)
            left, past = share(length - gone, length), share(gone, length)
            if self.interpolate_type == "cosine":
                left, past = half_cosine(left), half_cosine(past)
            result = jnp.where(count < end, start * left + stop * past, result)
        return result


@dataclass(frozen=True)
class JoinSchedules(Schedule):
    """Schedules one after the other; each counts from its own boundary.

    Args:
      schedules: the schedules (any callables).
      boundaries: where each but the first begins: one fewer than schedules, in rising order.

    >>> join_schedules([linear_schedule(0.0, 1.0, 4), ConstantSchedule(2.0)], [4])(4)
    Array(2., dtype=float32)

    Raises:
      ValueError: the numbers of schedules and boundaries do not fit, or the boundaries fall.
      TypeError: a schedule is not callable.
    """

    schedules: Sequence[Callable[[Any], Any]]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", tuple(self.schedules))
        bounds = tuple(as_count("join_schedules", "a boundary", boundary) for boundary in self.boundaries)
        object.__setattr__(self, "boundaries", bounds)
        for schedule in self.schedules:
            if not callable(schedule):
                raise TypeError(f"join_schedules: got {schedule!r}, wanted schedules: see constant_schedule")
        if len(bounds) != len(self.schedules) - 1 or list(bounds) != sorted(bounds):
            raise ValueError(
                f"join_schedules: got {len(self.schedules)} schedules and the boundaries {bounds}, wanted one boundary "
                "fewer than schedules, in rising order"
            )

    def __call__(self, count: Any) -> Float[Array, "..."]:
        count = jnp.asarray(count)
        result = as_value(self.schedules[0](count))
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            # Not below 0: a schedule need not be defined there, and NaN in the branch not taken spoils a gradient.
            result = jnp.where(count < boundary, result, as_value(schedule(jnp.maximum(count - boundary, 0))))
        return result


piecewise_constant_schedule = PiecewiseConstant
piecewise_interpolate_schedule = PiecewiseInterpolate
join_schedules = JoinSchedules


def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: int) -> Schedule:
    """A line from `init_value` to `peak_value` over `warmup_steps`, then constant.

    Without warm-up (0 steps) it is `peak_value` throughout. optax's stays at `init_value` then, usually 0, for ever.

    >>> warmup_constant_schedule(0.0, 1.0, warmup_steps=0)(0)
    Array(1., dtype=float32)
    """
    if as_count("warmup_constant_schedule", "warmup_steps", warmup_steps) == 0:
        return ConstantSchedule(peak_value)
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    decay_steps: int,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> JoinSchedules:
    """A line from `init_value` to `peak_value` over `warmup_steps`, then a cosine decay to `end_value`.

    `decay_steps` is the length of the whole, warm-up included: the value is `end_value` from that step on. The peak is
    reached at step `warmup_steps`; with `warmup_steps` = 0 that is the first. A first rate of 0 wastes an update: an
    `init_value` of peak_value / warmup_steps is a common choice.

    >>> schedule = warmup_cosine_decay_schedule(0.1, 1.0, warmup_steps=0, decay_steps=2)
    >>> [round(float(schedule(t)), 3) for t in range(3)]
    [1.0, 0.5, 0.0]

    Raises:
      ValueError: `decay_steps` is smaller than `warmup_steps`.
    """
    owner = "warmup_cosine_decay_schedule"
    warmup, total = as_count(owner, "warmup_steps", warmup_steps), as_count(owner, "decay_steps", decay_steps)
    if total < warmup:
        raise ValueError(f"{owner}: decay_steps (the whole length) is {total}, wanted warmup_steps = {warmup} or more")
    peak, end = as_float(owner, "peak_value", peak_value), as_float(owner, "end_value", end_value)
    decay = CosineDecay(peak, total - warmup, end / peak if peak else 0.0, exponent)
    return JoinSchedules((linear_schedule(init_value, peak, warmup), decay), (warmup,))


def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: Scalar,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> JoinSchedules:
    """A line from `init_value` to `peak_value` over `warmup_steps`, then `exponential_decay` from there.

    >>> schedule = warmup_exponential_decay_schedule(0.0, 1.0, warmup_steps=2, transition_steps=1, decay_rate=0.5)
    >>> [float(schedule(t)) for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.25]

    Raises:
      ValueError: a negative number of steps or a negative rate.
    """
    warmup = as_count("warmup_exponential_decay_schedule", "warmup_steps", warmup_steps)
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return JoinSchedules((linear_schedule(init_value, peak_value, warmup), decay), (warmup,))


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> PiecewiseInterpolate:
    """peak / div_factor, up to the peak by a half cosine, down to peak / (div_factor final_div_factor) by another.

    The peak is at step int(pct_start * transition_steps).

    Differences. optax: equal. torch `OneCycleLR` starts at the same value but reaches its peak and its end one step
    earlier (at pct_start * total_steps - 1 and total_steps - 1), so its warm-up is one step shorter and has other
    values: of 10 steps 0.04, 0.52, 1 there and 0.04, 0.28, 0.76, 1 here. Where pct_start * total_steps is whole its
    decay is this one, one step earlier.

    Reference: Smith, Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2018.

    >>> cosine_onecycle_schedule(10, 1.0)(3)
    Array(1., dtype=float32)

    Raises:
      ValueError: `transition_steps` below 1.
    """
    owner, shape = "cosine_onecycle_schedule", (peak_value, pct_start, div_factor, final_div_factor)
    steps, peak, pct, div, final = _onecycle(owner, transition_steps, *shape)
    return PiecewiseInterpolate("cosine", peak / div, ((int(pct * steps), div), (steps, 1 / (div * final))))


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    pct_final: Scalar = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> PiecewiseInterpolate:
    """Three lines: up to the peak, back to peak / div_factor, and on to peak / (div_factor final_div_factor).

    They end at int(pct_start * transition_steps), int(pct_final * transition_steps) and transition_steps. Where two of
    these ends coincide, that phase has no steps (optax's dict of boundaries loses one of the two scales then).

    >>> linear_onecycle_schedule(10, 1.0)(3)
    Array(1., dtype=float32)

    Raises:
      ValueError: `transition_steps` below 1.
    """
    owner, shape = "linear_onecycle_schedule", (peak_value, pct_start, div_factor, final_div_factor)
    steps, peak, pct, div, final = _onecycle(owner, transition_steps, *shape)
    back = int(as_float(owner, "pct_final", pct_final) * steps)
    return PiecewiseInterpolate("linear", peak / div, ((int(pct * steps), div), (back, 1 / div), (steps, 1 / final)))


def _onecycle(owner: str, steps: Any, *numbers: Any) -> tuple[int, Any, Any, Any, Any]:
    names = ("peak_value", "pct_start", "div_factor", "final_div_factor")
    peak, pct, div, final = (as_float(owner, name, x) for name, x in zip(names, numbers, strict=True))
    return as_count(owner, "transition_steps", steps, 1), peak, pct, div, final
