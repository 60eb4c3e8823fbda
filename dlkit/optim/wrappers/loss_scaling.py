"""Dynamic loss scaling: gradients of float16 that neither vanish nor overflow."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.hyper import as_count, safe_increment, settle
from dlkit.optim.leaves import by_real, widest
from dlkit.optim.report import find_states
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.branches import all_finite, update_or_skip

__all__ = [
    "DynamicLossScale",
    "DynamicLossScaleState",
    "LossScale",
    "LossScaleState",
    "dynamic_loss_scale",
    "last_step_was_finite",
    "loss_scale",
    "unscaled",
]


class LossScaleState(NamedTuple):
    """The scale (float32), finite steps since it last changed (int32), whether the last step was, skipped ones."""

    scale: Float[Array, ""]
    finite_steps: Int[Array, ""]
    last_finite: Bool[Array, ""]
    skipped: Int[Array, ""]


@dataclass(frozen=True)
class LossScale:
    """How a loss scale moves: for a step of your own; `dynamic_loss_scale` is the same as a wrapper.

        overflow:                              scale = max(scale * backoff_factor, min_scale)
        growth_interval finite steps in a row: scale = min(scale * growth_factor, max_scale)

    The scale is a float32 whatever the model's dtype, and so is its product with the loss: float16 ends at 65504.

    Args:
      init_scale: where it starts.
      growth_interval: finite steps in a row before it grows.
      growth_factor, backoff_factor: what it is multiplied by.
      min_scale, max_scale: it stays between them.

    Differences. torch `GradScaler`: starts at 2^16 and has no bounds. Keras `LossScaleOptimizer`: starts at 2^15, as
    here.

    >>> policy = LossScale(init_scale=8.0, growth_interval=2)
    >>> state = policy.init()
    >>> grads = jax.grad(lambda w: state.scale * jnp.sum(w**2))(jnp.ones(2))
    >>> unscaled(grads, state.scale)
    Array([2., 2.], dtype=float32)
    >>> for finite in (True, True, False, False):
    ...     state = policy.adjust(state, jnp.asarray(finite))
    ...     print(state.scale)
    8.0
    16.0
    8.0
    4.0

    Raises:
      ValueError: a factor or a bound out of range.
    """

    init_scale: float = 2.0**15
    growth_interval: int = 2000
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    min_scale: float = 1.0
    max_scale: float = 2.0**24

    def __post_init__(self) -> None:
        names = ("init_scale", "growth_factor", "backoff_factor", "min_scale", "max_scale")
        settle("loss_scale", self, nonnegative=names)
        count = as_count("loss_scale", "growth_interval", self.growth_interval, 1)
        object.__setattr__(self, "growth_interval", count)
        if not 0 < self.min_scale <= self.init_scale <= self.max_scale < float("inf"):
            raise ValueError(
                f"loss_scale: wanted 0 < min_scale <= init_scale <= max_scale, got {self.min_scale}, "
                f"{self.init_scale}, {self.max_scale}"
            )
        if not (self.growth_factor >= 1 and 0 < self.backoff_factor < 1):
            raise ValueError(
                f"loss_scale: wanted growth_factor >= 1 and 0 < backoff_factor < 1, got {self.growth_factor}, "
                f"{self.backoff_factor}"
            )

    def init(self) -> LossScaleState:
        """The state before the first step."""
        finite, skipped = (jnp.zeros((), jnp.int32) for _ in range(2))
        return LossScaleState(jnp.asarray(self.init_scale, jnp.float32), finite, jnp.asarray(True), skipped)

    def adjust(self, state: LossScaleState, finite: Any) -> LossScaleState:
        """The state after a step whose gradients were all finite, or not."""
        count = jnp.where(finite, state.finite_steps + 1, 0)
        grows = count >= self.growth_interval
        larger = jnp.minimum(state.scale * jnp.float32(self.growth_factor), jnp.float32(self.max_scale))
        smaller = jnp.maximum(state.scale * jnp.float32(self.backoff_factor), jnp.float32(self.min_scale))
        scale = jnp.where(finite, jnp.where(grows, larger, state.scale), smaller)
        skipped = jnp.where(finite, state.skipped, safe_increment(state.skipped))
        return LossScaleState(scale, jnp.where(grows, 0, count), jnp.asarray(finite), skipped)


def unscaled(grads: Any, scale: Any) -> Any:
    """The gradients divided by the scale, in float32 at least: in float16 the small ones would vanish again.

    >>> unscaled({"w": jnp.array([3.0], jnp.float16)}, jnp.float32(2.0))
    {'w': Array([1.5], dtype=float32)}
    """

    def divide(g: Any) -> Any:
        wide = jnp.asarray(g, widest(jnp.result_type(g), jnp.dtype(jnp.float32)))
        with by_real(wide):
            return wide / jnp.asarray(scale, wide.real.dtype)

    return jax.tree.map(divide, grads)


class DynamicLossScaleState(NamedTuple):
    """The scale and its counts, and the inner state."""

    loss_scale: LossScaleState
    inner_state: Any


@dataclass(frozen=True)
class DynamicLossScale(Transform[DynamicLossScaleState]):
    """`inner` for gradients of a loss that was multiplied by `optim.loss_scale(opt_state)`.

    The gradients are divided by the scale in float32. Where one is not finite the step is skipped: zero updates, every
    bit of the inner state (slots, counts of schedules) as it was, and a smaller scale. `train.make_step` and
    `train.fit` multiply the loss by themselves, and keep what the model remembers in a skipped step.

    Args:
      inner: a transform; clipping and `with_report` belong inside, where gradients have their own size.
      policy: how the scale moves; see `LossScale`.

    >>> from dlkit import optim
    >>> tx = dynamic_loss_scale(optim.adam(0.1), LossScale(init_scale=4.0))
    >>> params = {"w": jnp.ones(2)}
    >>> state = tx.init(params)
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> grads = jax.grad(lambda p: loss_scale(state) * loss(p))(params)
    >>> updates, state = tx.update(grads, state, params)
    >>> updates["w"], loss_scale(state)
    (Array([-0.1, -0.1], dtype=float32), Array(4., dtype=float32))

    Raises:
      TypeError: `inner` is no transform.
    """

    inner: Any
    policy: LossScale = LossScale()

    def __post_init__(self) -> None:
        check_link("dynamic_loss_scale", self.inner)

    def init(self, params: Any) -> DynamicLossScaleState:
        return DynamicLossScaleState(self.policy.init(), self.inner.init(params))

    def update(
        self, grads: Any, state: DynamicLossScaleState, params: Any = None, **extra: Any
    ) -> tuple[Any, DynamicLossScaleState]:
        finite = all_finite(grads)
        grads = unscaled(grads, state.loss_scale.scale)
        updates, inner = update_or_skip(
            "dynamic_loss_scale",
            finite,
            lambda: call_update(self.inner, grads, state.inner_state, params, extra),
            grads,
            state.inner_state,
            keep=False,
        )
        return updates, DynamicLossScaleState(self.policy.adjust(state.loss_scale, finite), inner)


dynamic_loss_scale = DynamicLossScale


def _state_in(owner: str, opt_state: Any) -> LossScaleState:
    found = find_states(opt_state, LossScaleState)
    if len(found) != 1:
        raise ValueError(f"{owner}: the optimizer state holds {len(found) or 'no'} loss scales, wanted one")
    return next(iter(found.values()))


def loss_scale(opt_state: Any) -> Float[Array, "..."]:
    """What the loss has to be multiplied by (float32) before it is differentiated, from the optimizer's state.

    Raises:
      ValueError: the state holds no `dynamic_loss_scale`, or several.
    """
    return _state_in("loss_scale", opt_state).scale


def last_step_was_finite(opt_state: Any) -> Bool[Array, "..."]:
    """Whether the last step was taken, and not skipped for an overflow.

    Raises:
      ValueError: the state holds no `dynamic_loss_scale`, or several.
    """
    return _state_in("last_step_was_finite", opt_state).last_finite
