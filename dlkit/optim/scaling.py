"""Multiplying updates: by a constant, by a schedule, by the (negative) learning rate."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, schedule_value, settle
from dlkit.optim.leaves import cast, leafwise
from dlkit.optim.report import find_states
from dlkit.optim.transform import EmptyState, Transform

__all__ = [
    "Scale",
    "ScaleByLearningRate",
    "ScaleByLearningRateState",
    "ScaleBySchedule",
    "ScaleByScheduleState",
    "learning_rate",
    "learning_rates",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
]


@dataclass(frozen=True)
class Scale(Transform[EmptyState]):
    """u = step_size * g

    >>> scale(-0.5).update({"w": jnp.ones(2)}, EmptyState())[0]
    {'w': Array([-0.5, -0.5], dtype=float32)}
    """

    step_size: Scalar

    def __post_init__(self) -> None:
        settle("scale", self, numbers=("step_size",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        (updates,) = leafwise("scale", lambda g: self.step_size * g, grads)
        return updates, state


class ScaleByScheduleState(NamedTuple):
    """Updates so far (int32)."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class ScaleBySchedule(Transform[ScaleByScheduleState]):
    """u_t = schedule(t) * g_t, where the first update is number t = 0.

    Args:
      step_size_fn: a schedule, or any callable from the count (an int32 scalar) to a factor.

    >>> from dlkit import optim
    >>> tx = scale_by_schedule(optim.linear_schedule(0.0, 1.0, transition_steps=2))
    >>> grads, state = {"w": jnp.ones(1)}, tx.init(None)
    >>> for _ in range(3):
    ...     updates, state = tx.update(grads, state)
    ...     print(updates["w"])
    [0.]
    [0.5]
    [1.]
    """

    step_size_fn: ScalarOrSchedule

    def __post_init__(self) -> None:
        settle("scale_by_schedule", self, schedules=("step_size_fn",))

    def init(self, params: Any) -> ScaleByScheduleState:
        return ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(self, grads: Any, state: ScaleByScheduleState, params: Any = None) -> tuple[Any, ScaleByScheduleState]:
        factor = schedule_value("scale_by_schedule", self.step_size_fn, state.count)
        (updates,) = leafwise("scale_by_schedule", lambda g: cast(factor, g.dtype) * g, grads)
        return updates, ScaleByScheduleState(safe_increment(state.count))


class ScaleByLearningRateState(NamedTuple):
    """Updates so far (int32), and the learning rate last used."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    learning_rate: Float[Array, ""]  # float32: the one last used; before the first update, the one it will use


@dataclass(frozen=True)
class ScaleByLearningRate(Transform[ScaleByLearningRateState]):
    """u_t = -learning_rate(t) * g_t: the last link of an optimizer. Update number t (the first is 0) uses schedule(t).

    The rate that was used stays in the state: `learning_rate(opt_state)` finds it there.

    Args:
      learning_rate: a number, a schedule, or any callable from the count to a rate (an optax schedule, say).
      flip_sign: whether to descend (the default) or not.

    >>> tx = scale_by_learning_rate(0.1)
    >>> state = tx.init(None)
    >>> updates, state = tx.update({"w": jnp.ones(1)}, state)
    >>> updates["w"], state.learning_rate
    (Array([-0.1], dtype=float32), Array(0.1, dtype=float32))

    Raises:
      TypeError: the learning rate is no number and not callable. ValueError: it is a negative number; to climb, take
        `flip_sign=False`.
    """

    learning_rate: ScalarOrSchedule
    _: KW_ONLY
    flip_sign: bool = True

    def __post_init__(self) -> None:
        settle("scale_by_learning_rate", self, schedules=("learning_rate",))

    def init(self, params: Any) -> ScaleByLearningRateState:
        count = jnp.zeros((), jnp.int32)
        return ScaleByLearningRateState(count, self._rate(count).astype(jnp.float32))

    def update(
        self, grads: Any, state: ScaleByLearningRateState, params: Any = None
    ) -> tuple[Any, ScaleByLearningRateState]:
        rate = self._rate(state.count)
        factor = -rate if self.flip_sign else rate  # once, not in every leaf
        (updates,) = leafwise("scale_by_learning_rate", lambda g: cast(factor, g.dtype) * g, grads)
        return updates, ScaleByLearningRateState(safe_increment(state.count), rate.astype(jnp.float32))

    def _rate(self, count: Int[Array, ""]) -> Float[Array, ""]:
        return schedule_value("scale_by_learning_rate", self.learning_rate, count)


scale = Scale
scale_by_schedule = ScaleBySchedule
scale_by_learning_rate = ScaleByLearningRate


def learning_rates(opt_state: Any) -> dict[str, Float[Array, "..."]]:
    """Every learning rate in an optimizer's state, by path: what the last update used (what the first one will use)."""
    return {path: state.learning_rate for path, state in find_states(opt_state, ScaleByLearningRateState).items()}


def learning_rate(opt_state: Any) -> Float[Array, "..."]:
    """The learning rate that the last update used, float32. Before the first update: the one that it will use.

    >>> from dlkit import optim
    >>> learning_rate(optim.adamw(3e-4).init({"w": jnp.ones(2)}))
    Array(0.0003, dtype=float32)

    Raises:
      ValueError: the state holds no learning rate, or more than one (then see `learning_rates`).
    """
    found = learning_rates(opt_state)
    if len(found) != 1:
        what = f"{len(found)} learning rates ({', '.join(found)}): use learning_rates" if found else "no learning rate"
        raise ValueError(f"learning_rate: the optimizer state holds {what}")
    return next(iter(found.values()))
