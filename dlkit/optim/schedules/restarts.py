"""Cosines that begin anew: SGDR in optax's, Keras's and torch's forms, and torch's cosine that goes up again.

>>> schedule = cosine_restarts_schedule(1.0, first_decay_steps=2, t_mul=2)
>>> [round(float(schedule(t)), 3) for t in range(8)]
[1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0, 0.962]
"""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.schedules.curves import Schedule, counts, geometric, half_cosine, like, share
from dlkit.optim.schedules.phases import JoinSchedules, warmup_cosine_decay_schedule

__all__ = [
    "CosineAnnealing",
    "CosineRestarts",
    "cosine_annealing_schedule",
    "cosine_restarts_schedule",
    "sgdr_schedule",
]


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """init_value ((1 - alpha) m_mul^i (1 + cos(pi x)) / 2 + alpha) in cycle i, with x its share that is over, 0 to 1.

    Cycle i takes first_decay_steps t_mul^i updates, which need not be whole.

    Args:
      init_value: the top of the first cycle.
      first_decay_steps: its length.
      t_mul: how the lengths grow, 1 or more.
      m_mul: how the tops change.
      alpha: the end of every cycle, as a share of init_value.

    Differences. Keras `CosineDecayRestarts`: the same, but it finds the cycle by a float32 logarithm, so that a restart
    may come an update late or early. torch `CosineAnnealingWarmRestarts(T_0, T_mult, eta_min)`: equal
    with t_mul = T_mult and alpha = eta_min / lr; its own default for T_mult is 1.

    Reference: Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.

    >>> cosine_restarts_schedule(1.0, 10, t_mul=1.0, m_mul=0.5)(20)
    Array(0.25, dtype=float32)

    Raises:
      ValueError: `first_decay_steps` below 1, t_mul below 1, or a negative m_mul.
    """

    init_value: Scalar
    first_decay_steps: int
    t_mul: float | int = 2.0
    m_mul: Scalar = 1.0
    alpha: Scalar = 0.0

    def __post_init__(self) -> None:
        owner = "cosine_restarts_schedule"
        settle(owner, self, numbers=("init_value", "alpha"), nonnegative=("m_mul",))
        counts(owner, self, "first_decay_steps", least=1)
        object.__setattr__(self, "t_mul", float(self.t_mul))
        if not self.t_mul >= 1:
            raise ValueError(f"{owner}: t_mul is {self.t_mul}, wanted 1 or more")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        count = jnp.maximum(jnp.asarray(count), 0)
        if self.t_mul == 1:
            length = self.first_decay_steps
            cycle, left = count // length, share(length - count % length, length)
        else:
            starts, offsets, lengths = _cycles(self.first_decay_steps, self.t_mul)
            cycle = jnp.searchsorted(jnp.asarray(starts), count.astype(jnp.int32), side="right") - 1
            gone = share(count.astype(jnp.int32) - jnp.asarray(starts)[cycle], 1)
            length = jnp.asarray(lengths, gone.dtype)[cycle]
            left = (length - (gone + jnp.asarray(offsets, gone.dtype)[cycle])) / length
        height = geometric(self.m_mul, cycle) * half_cosine(left)
        return self.init_value * ((1 - self.alpha) * height + self.alpha)


@functools.lru_cache(maxsize=64)
def _cycles(first: int, growth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every cycle that begins within int32: its first update, how far into the cycle that is, and its length."""
    starts, offsets, lengths = [], [], []
    for i in itertools.count():
        begin, length = first * (growth**i - 1) / (growth - 1), first * growth**i
        # Sums of powers are off by roundings: what is whole in exact arithmetic must not be rounded up.
        whole = round(begin) if abs(begin - round(begin)) < 1e-12 * (1 + begin) else math.ceil(begin)
        if whole >= 2**31:
            break
        starts.append(whole)
        offsets.append(max(whole - begin, 0.0))
        lengths.append(length)
    return np.array(starts, np.int32), np.array(offsets), np.array(lengths)


@dataclass(frozen=True)
class CosineAnnealing(Schedule):
    """end_value + (init_value - end_value) (1 + cos(pi t / half_period)) / 2, for ever: torch's `CosineAnnealingLR`.

    After `half_period` updates it goes up again; `cosine_decay_schedule` stays at the end. With 0 steps it is
    `end_value` throughout (torch divides by zero).

    >>> [round(float(cosine_annealing_schedule(1.0, 2)(t)), 3) for t in range(6)]
    [1.0, 0.5, 0.0, 0.5, 1.0, 0.5]

    Raises:
      ValueError: a negative number of steps.
    """

    init_value: Scalar
    half_period: int
    end_value: Scalar = 0.0

    def __post_init__(self) -> None:
        settle("cosine_annealing_schedule", self, numbers=("init_value", "end_value"))
        counts("cosine_annealing_schedule", self, "half_period")

    def __call__(self, count: Any) -> Float[Array, "..."]:
        half = self.half_period
        if half == 0:
            return like(count, self.end_value)
        count = jnp.maximum(jnp.asarray(count), 0)
        within = count % half
        gone = jnp.where((count // half) % 2 == 0, within, half - within)
        left, past = half_cosine(share(half - gone, half)), half_cosine(share(gone, half))
        return self.init_value * left + self.end_value * past


cosine_restarts_schedule = CosineRestarts
cosine_annealing_schedule = CosineAnnealing


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> JoinSchedules:
    """`warmup_cosine_decay_schedule`s one after the other, each of its own `decay_steps`: optax's form of SGDR.

    Args:
      cosine_kwargs: the arguments of `warmup_cosine_decay_schedule`, a mapping a cycle.

    >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}
    >>> [float(sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])(t).round(3)) for t in range(7)]
    [0.0, 1.0, 0.5, 0.0, 0.5, 0.25, 0.0]

    Raises:
      ValueError: no cycle, or one that `warmup_cosine_decay_schedule` refuses.
    """
    cycles = [dict(kwargs) for kwargs in cosine_kwargs]
    if not cycles:
        raise ValueError("sgdr_schedule: got no cycles, wanted the arguments of one or more")
    lengths = [as_count("sgdr_schedule", "decay_steps", kwargs["decay_steps"]) for kwargs in cycles]
    parts = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cycles]
    return JoinSchedules(parts, tuple(itertools.accumulate(lengths))[:-1])
