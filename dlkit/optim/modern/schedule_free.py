"""Schedule-free learning: an average of the iterates instead of a decaying learning rate."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, safe_increment, schedule_value, settle
from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.modern.whole import copied
from dlkit.optim.report import find_states
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.schedules import warmup_constant_schedule
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Transform, call_update, chain, check_link

__all__ = [
    "ScheduleFree",
    "ScheduleFreeState",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
]


class ScheduleFreeState(NamedTuple):
    """optax's fields; x, the average, follows from z and the parameters (`schedule_free_eval_params`)."""

    b1: Float[Array, ""]
    weight_sum: Float[Array, ""]  # of the weights w so far
    step_count: Int[Array, ""]  # int32: the number of the next update
    max_lr: Float[Array, ""]  # the largest learning rate so far
    base_optimizer_state: Any
    z: Any  # the iterates of the base optimizer


@dataclass(frozen=True)
class ScheduleFree(Transform[ScheduleFreeState]):
    """Runs `base_optimizer` on z, averages z into x, and puts the parameters y between the two.

        z' = z + base_optimizer's update for the gradient at y
        w  = (the largest learning rate so far)^weight_lr_power        c = w / (the sum of all w)
        x' = (1 - c) x + c z'
        y' = (1 - b1) z' + b1 x'

    The parameters that a training loop holds are y. Evaluate at x: `schedule_free_eval_params(state, params)`. The
    base optimizer should have no momentum: the interpolation stands for it. No decay of the rate is needed.

    Args:
      base_optimizer: a transform whose updates are whole steps (its learning rate included).
      learning_rate: the rate of `base_optimizer` again, a number or a schedule: it sets the weights w.
      b1: how far y is from z on the way to x, in (0, 1].
      weight_lr_power: how much less the steps of a warmup count in the average.
      state_dtype: the dtype of z; None means that of the parameters.
      first_count: the number that the first update gives to `learning_rate`.

    Differences. optax 0.2.8 weighs update t by schedule(t + 1), while its base optimizer uses schedule(t);
    `first_count=1` does so too. At a constant rate both are equal. Keras's `ScheduleFreeAdamW` equals
    `schedule_free_adamw` at a constant rate without decay. The authors' code warms up by (t + 1) / warmup_steps.

    Reference: Defazio et al., "The road less scheduled", 2024.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = schedule_free(optim.sgd(0.3), 0.3)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(schedule_free_eval_params(state, params)):.3f}")
    0.800
    0.392
    0.174

    Raises:
      ValueError: `b1` outside of (0, 1]; from `update`, when `params` is None.
    """

    base_optimizer: Any
    learning_rate: ScalarOrSchedule
    b1: Scalar = 0.9
    weight_lr_power: Scalar = 2.0
    state_dtype: Any = None
    _: KW_ONLY
    first_count: int = 0

    def __post_init__(self) -> None:
        check_link("schedule_free", self.base_optimizer)
        numbers = ("b1", "weight_lr_power")
        settle("schedule_free", self, numbers=numbers, schedules=("learning_rate",), dtypes=("state_dtype",))
        object.__setattr__(self, "first_count", as_count("schedule_free", "first_count", self.first_count))
        if not isinstance(self.b1, Traced) and not 0 < self.b1 <= 1:
            raise ValueError(f"schedule_free: b1 is {self.b1}, wanted 0 < b1 <= 1")

    def init(self, params: Any) -> ScheduleFreeState:
        dtype = jnp.result_type(float)
        total, largest = (jnp.zeros((), dtype) for _ in range(2))
        count = jnp.full((), self.first_count, jnp.int32)
        z = copied("schedule_free", params, self.state_dtype)
        return ScheduleFreeState(as_dtype(self.b1, dtype), total, count, largest, self.base_optimizer.init(params), z)

    def update(
        self, grads: Any, state: ScheduleFreeState, params: Any = None, **extra: Any
    ) -> tuple[Any, ScheduleFreeState]:
        need_params("schedule_free", params)
        dtype = state.max_lr.dtype
        rate = schedule_value("schedule_free", self.learning_rate, state.step_count).astype(dtype)
        max_lr = jnp.maximum(state.max_lr, rate)
        weight = max_lr ** as_dtype(self.weight_lr_power, dtype)
        weight_sum = state.weight_sum + weight
        # While the rate is 0 nothing has moved yet, and c = 0 keeps x where it is.
        share = jnp.where(weight_sum > 0, weight / jnp.where(weight_sum > 0, weight_sum, jnp.ones_like(weight)), 0)
        moves, base_state = call_update(self.base_optimizer, grads, state.base_optimizer_state, params, extra)
        b1 = state.b1

        def step(u: Array, z: Array, y: Array) -> tuple[Array, Array]:
            b, c = b1.astype(u.dtype), share.astype(u.dtype)
            # y' - y, with x and y' written out: no two large numbers are subtracted but z and y.
            return c * (z - y) + (1 - b * (1 - c)) * u, z + u

        updates, z = leafwise("schedule_free", step, moves, state.z, read=(params,))
        return updates, ScheduleFreeState(b1, weight_sum, safe_increment(state.step_count), max_lr, base_state, z)


schedule_free = ScheduleFree


def schedule_free_eval_params(state: Any, params: Any) -> Any:
    """The parameters to evaluate and to keep: x = (y - (1 - b1) z) / b1, where `params` are y.

    `state` is that of `schedule_free`, or of a chain that holds one of them.

    Raises:
      ValueError: the state holds no schedule-free state, or more than one.
    """
    found = find_states(state, ScheduleFreeState)
    if len(found) != 1:
        raise ValueError(
            f"schedule_free_eval_params: the state holds {len(found) or 'no'} ScheduleFreeStates, wanted one"
        )
    own = next(iter(found.values()))

    def average(y: Array, z: Array) -> Array:
        b = own.b1.astype(y.dtype)
        return (y - (1 - b) * z) / b

    (x,) = leafwise("schedule_free_eval_params", average, params, read=(own.z,))
    return jax.tree.map(lambda a, p: a.astype(jnp.result_type(p)), x, params)


def _warmed_up(learning_rate: ScalarOrSchedule, warmup_steps: int | None) -> ScalarOrSchedule | Callable[[Any], Any]:
    if warmup_steps is None:
        return learning_rate
    if callable(learning_rate):
        raise TypeError("schedule_free: warmup_steps with a learning_rate that is a schedule already: leave one out")
    peak: Any = learning_rate
    return warmup_constant_schedule(0.0, peak, warmup_steps)


def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    weight_decay: Scalar | None = None,
    weight_lr_power: Scalar = 2.0,
    state_dtype: Any = None,
    *,
    first_count: int = 0,
) -> ScheduleFree:
    """SGD without a schedule: `schedule_free` around p = p - eta (g + weight_decay p).

    Args:
      learning_rate: eta.
      warmup_steps: over how many updates eta grows linearly from 0; None for a constant rate.
      b1, weight_lr_power, state_dtype, first_count: see `ScheduleFree`.
      weight_decay: the strength of the decay of y; None for none.

    Differences. See `ScheduleFree`.

    Reference: Defazio et al., "The road less scheduled", 2024.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = schedule_free_sgd(0.3)
    >>> state = tx.init(params)
    >>> for _ in range(10):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(schedule_free_eval_params(state, params)):.3f}")
    0.011

    Raises:
      ValueError: as `ScheduleFree`; a negative weight_decay.
      TypeError: `warmup_steps` with a schedule.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    links = [scale_by_learning_rate(rate)]
    if weight_decay is not None:
        links.insert(0, add_decayed_weights(weight_decay))  # pyright: ignore[reportArgumentType]
    return schedule_free(chain(*links), rate, b1, weight_lr_power, state_dtype, first_count=first_count)


def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: Any = None,
    *,
    first_count: int = 0,
) -> ScheduleFree:
    """AdamW without a schedule: `schedule_free` around AdamW with no momentum of its own.

    Args:
      learning_rate: eta.
      warmup_steps: over how many updates eta grows linearly from 0; None for a constant rate.
      b1, weight_lr_power, state_dtype, first_count: see `ScheduleFree`.
      b2, eps, weight_decay: see `adamw`; the decay is that of y.

    Differences. See `ScheduleFree`.

    Reference: Defazio et al., "The road less scheduled", 2024.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = schedule_free_adamw(0.3)
    >>> state = tx.init(params)
    >>> for _ in range(20):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(schedule_free_eval_params(state, params)):.3f}")
    0.002

    Raises:
      ValueError: as `ScheduleFree`, and as `adamw`.
      TypeError: `warmup_steps` with a schedule.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    base = chain(scale_by_adam(0.0, b2, eps), add_decayed_weights(weight_decay), scale_by_learning_rate(rate))
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype, first_count=first_count)
