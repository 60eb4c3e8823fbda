"""Gradients of several calls, applied at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.hyper import as_count, safe_increment
from dlkit.optim.leaves import by_real, check_like, leafwise, widest, zeros_like
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.branches import update_or_skip
from dlkit.optim.wrappers.shown import Shown, check_callable

__all__ = ["ApplyEvery", "ApplyEveryState", "MultiSteps", "MultiStepsState", "apply_every", "multi_steps"]


class ApplyEveryState(NamedTuple):
    """Where in its k calls it is (int32, below k), and the sum since the last one that was applied."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    grad_acc: Any


@dataclass(frozen=True)
class ApplyEvery(Transform[ApplyEveryState]):
    """The sum of the last k updates in every k-th call, zero in the others.

    The links before it see every call, so this is not a larger batch: for that take `multi_steps`, or
    `train.fit(..., accumulate=k)`.

    Args:
      k: how many calls make one.

    >>> tx = apply_every(2)
    >>> grads, state = {"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)})
    >>> for _ in range(4):
    ...     updates, state = tx.update(grads, state)
    ...     print(updates["w"])
    [0.]
    [2.]
    [0.]
    [2.]

    Raises:
      TypeError: `k` is no whole number. ValueError: it is below 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", as_count("apply_every", "k", self.k, 1))

    def init(self, params: Any) -> ApplyEveryState:
        return ApplyEveryState(jnp.zeros((), jnp.int32), zeros_like("apply_every", params))

    def update(self, grads: Any, state: ApplyEveryState, params: Any = None) -> tuple[Any, ApplyEveryState]:
        first, last = state.count == 0, state.count == self.k - 1

        def step(g: Array, total: Array) -> tuple[Array, Array]:
            total = jnp.where(first, g, total + g)
            return jnp.where(last, total, jnp.zeros_like(total)), total

        updates, total = leafwise("apply_every", step, grads, state.grad_acc)
        return updates, ApplyEveryState((state.count + 1) % self.k, total)


class MultiStepsState(NamedTuple):
    """Mini-steps since the last update and updates so far (int32); the inner state; sums of gradients and weights."""

    mini_step: Int[Array, ""]
    gradient_step: Int[Array, ""]
    inner_opt_state: Any
    acc_grads: Any  # the sum, in accumulator_dtype
    skip_state: Any  # what should_skip_update_fn said of the last mini-step
    acc_weight: Float[Array, ""]  # what the calls in the sum weigh together, in JAX's default float


@dataclass(frozen=True, repr=False)
class MultiSteps(Shown, Transform[MultiStepsState]):
    """One update of `opt` for k calls, with the mean of their gradients; zero updates in between.

    Equal to one call with the gradient of the large batch: schedules, decay and clipping inside of `opt` count and see
    updates, not calls. Where the batches differ in their numbers of examples or valid tokens, and each gradient is that
    of a mean over these, say so in every call: `update(grads, state, params, weight=n)` gives sum(n g) / sum(n). (A
    training step of `dlkit.train` does.) Without, all calls count alike. To cut one batch into pieces and hold one of
    them in memory at a time, take `train.fit(..., accumulate=k)`.

    Args:
      opt: a transform.
      every_k_schedule: k, or a function from the number of updates so far (int32) to k.
      use_grad_mean: whether the mean is applied, or the sum (with weights: sum(n g)).
      should_skip_update_fn: `f(updates, gradient_step, params) -> (skip, what the state keeps)`: which calls do not
        count, `optim.skip_not_finite` say.
      accumulator_dtype: what the sum is kept in; leaves that are wider keep theirs. None: that of the parameters.

    Differences. optax: the same updates up to rounding; its `acc_grads` is a running mean, here it is the sum, divided
    once; it has no weights. torch: `backward()` several times, with the loss divided by hand. Keras:
    `gradient_accumulation_steps`.

    >>> from dlkit import optim
    >>> tx = multi_steps(optim.sgd(1.0), 2)
    >>> params = {"w": jnp.zeros(1)}
    >>> state = tx.init(params)
    >>> for g in (1.0, 3.0):
    ...     updates, state = tx.update({"w": jnp.array([g])}, state, params)
    ...     print(updates["w"], tx.has_updated(state))
    [0.] False
    [-2.] True
    >>> for g, n in ((1.0, 3), (3.0, 1)):
    ...     updates, state = tx.update({"w": jnp.array([g])}, state, params, weight=n)
    >>> updates["w"]
    Array([-1.5], dtype=float32)

    Raises:
      TypeError: `opt` is no transform, k no whole number. ValueError: k is below 1; from `update`, a weight that is
        negative or has axes.
    """

    opt: Any
    every_k_schedule: int | Callable[[Any], Any]
    use_grad_mean: bool = True
    should_skip_update_fn: Callable[..., Any] | None = None
    accumulator_dtype: Any = "float32"

    def __post_init__(self) -> None:
        check_link("multi_steps", self.opt)
        if not callable(self.every_k_schedule):
            k = as_count("multi_steps", "every_k_schedule", self.every_k_schedule, 1)
            object.__setattr__(self, "every_k_schedule", k)
        if self.should_skip_update_fn is not None:
            check_callable("multi_steps", "should_skip_update_fn", self.should_skip_update_fn)
        if self.accumulator_dtype is not None:
            object.__setattr__(self, "accumulator_dtype", jnp.dtype(self.accumulator_dtype).name)

    def init(self, params: Any) -> MultiStepsState:
        zero = jnp.zeros((), jnp.int32)
        sums = jax.tree.map(lambda p: jnp.zeros_like(p, self._accumulator(jnp.result_type(p))), params)
        told = {}
        if self.should_skip_update_fn is not None:
            about = jax.eval_shape(lambda p: self._skips(p, zero, p)[1], params)
            told = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), about)
        return MultiStepsState(zero, jnp.zeros((), jnp.int32), self.opt.init(params), sums, told, _weight(0))

    def update(
        self, grads: Any, state: MultiStepsState, params: Any = None, *, weight: Any = None, **extra: Any
    ) -> tuple[Any, MultiStepsState]:
        check_like("multi_steps", "the gradients do not match the state", state.acc_grads, grads)
        k = self.every_k_schedule(state.gradient_step) if callable(self.every_k_schedule) else self.every_k_schedule
        skip, told = jnp.asarray(False), state.skip_state
        if self.should_skip_update_fn is not None:
            skip, told = self._skips(grads, state.gradient_step, params)
        own = _weight(1 if weight is None else weight)

        def add(g: Array, total: Array) -> Array:
            g = jnp.asarray(g, total.dtype)
            if weight is not None:  # what weighs nothing may have no gradient either: 0 / 0
                with by_real(g):
                    g = jnp.where(own == 0, jnp.zeros_like(g), own.astype(g.real.dtype) * g)
            return jnp.where(skip, total, total + g)

        sums = jax.tree.map(add, grads, state.acc_grads)
        weights = jnp.where(skip, state.acc_weight, state.acc_weight + own)
        whole = jnp.where(weights == 0, jnp.ones_like(weights), weights)
        last = jnp.logical_and(~skip, state.mini_step >= jnp.asarray(k, jnp.int32) - 1)

        def mean(total: Array, g: Any) -> Array:
            with by_real(total):
                scaled = total / whole.astype(total.real.dtype) if self.use_grad_mean else total
            return scaled.astype(jnp.result_type(g))  # rounded once, to what a large batch would have given

        updates, inner = update_or_skip(
            "multi_steps",
            last,
            lambda: call_update(self.opt, jax.tree.map(mean, sums, grads), state.inner_opt_state, params, extra),
            grads,
            state.inner_opt_state,
            keep=False,
        )
        after = MultiStepsState(
            jnp.where(skip, state.mini_step, jnp.where(last, 0, state.mini_step + 1)),
            jnp.where(last, safe_increment(state.gradient_step), state.gradient_step),
            inner,
            jax.tree.map(lambda total: jnp.where(last, jnp.zeros_like(total), total), sums),
            told,
            jnp.where(last, jnp.zeros_like(weights), weights),
        )
        return updates, after

    def has_updated(self, state: MultiStepsState) -> Bool[Array, ""]:
        """Whether the last call was one that updated the parameters."""
        return jnp.logical_and(state.mini_step == 0, state.gradient_step > 0)

    def gradient_transformation(self) -> "MultiSteps":
        """Itself: optax's `MultiSteps` is no transformation, and has this method to make one."""
        return self

    def _accumulator(self, own: Any) -> Any:
        return own if self.accumulator_dtype is None else widest(own, jnp.dtype(self.accumulator_dtype))

    def _skips(self, grads: Any, step: Any, params: Any) -> Any:
        assert self.should_skip_update_fn is not None
        return self.should_skip_update_fn(grads, step, params)


def _weight(given: Any) -> Float[Array, ""]:
    """
    Raises:
      ValueError: it has axes, or is a negative number.
    """
    if jnp.shape(given) != () or (isinstance(given, int | float) and given < 0):
        what = f"shape {jnp.shape(given)}" if jnp.shape(given) else given
        raise ValueError(
            f"multi_steps: weight is {what}, wanted a number of 0 or more: examples or tokens of this call"
        )
    return jnp.asarray(given).astype(jnp.result_type(float))


apply_every = ApplyEvery
multi_steps = MultiSteps
