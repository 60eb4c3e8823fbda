"""Transforms that act in some of the steps alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import safe_increment
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.branches import update_or_skip
from dlkit.optim.wrappers.shown import Shown, check_callable

__all__ = [
    "ConditionallyMask",
    "ConditionallyMaskState",
    "ConditionallyTransform",
    "ConditionallyTransformState",
    "conditionally_mask",
    "conditionally_transform",
]


@dataclass(frozen=True, repr=False)
class _Conditional(Shown, Transform[Any]):
    inner: Any
    should_transform_fn: Callable[..., Any]
    forward_extra_args: bool = False

    def __post_init__(self) -> None:
        owner = "conditionally_mask" if isinstance(self, ConditionallyMask) else "conditionally_transform"
        check_link(owner, self.inner)
        check_callable(owner, "should_transform_fn", self.should_transform_fn)

    def _either(
        self, owner: str, grads: Any, state: Any, params: Any, extra: dict[str, Any], *, keep: bool
    ) -> tuple[Any, Any, Any]:
        """The updates, the number of the next call, and the inner state."""
        do = self.should_transform_fn(state.step, **(extra if self.forward_extra_args else {}))
        held = state.inner_state
        updates, inner = update_or_skip(
            owner, do, lambda: call_update(self.inner, grads, held, params, extra), grads, held, keep=keep
        )
        return updates, safe_increment(state.step), inner


class ConditionallyTransformState(NamedTuple):
    """The inner state, and the calls so far (int32), those without an update included."""

    inner_state: Any
    step: Int[Array, ""]


@dataclass(frozen=True, repr=False)
class ConditionallyTransform(_Conditional):
    """`inner` where `should_transform_fn(t)` is true; else the gradients as they came, and the inner state as it was.

    Args:
      inner: a transform.
      should_transform_fn: from the number of the call (int32, the first is 0) to a boolean.
      forward_extra_args: whether `should_transform_fn` gets the extra keyword arguments of `update`, too.

    >>> from dlkit import optim
    >>> tx = conditionally_transform(optim.scale(-1.0), lambda t: t % 2 == 0)
    >>> grads, state = {"w": jnp.ones(1)}, tx.init(None)
    >>> for _ in range(3):
    ...     updates, state = tx.update(grads, state)
    ...     print(updates["w"])
    [-1.]
    [1.]
    [-1.]

    Raises:
      TypeError: `inner` is no transform, or `should_transform_fn` no function.
    """

    def init(self, params: Any) -> ConditionallyTransformState:
        return ConditionallyTransformState(self.inner.init(params), jnp.zeros((), jnp.int32))

    def update(
        self, grads: Any, state: ConditionallyTransformState, params: Any = None, **extra: Any
    ) -> tuple[Any, ConditionallyTransformState]:
        updates, step, inner = self._either("conditionally_transform", grads, state, params, extra, keep=True)
        return updates, ConditionallyTransformState(inner, step)


class ConditionallyMaskState(NamedTuple):
    """The calls so far (int32), those without an update included, and the inner state."""

    step: Int[Array, ""]
    inner_state: Any


@dataclass(frozen=True, repr=False)
class ConditionallyMask(_Conditional):
    """`inner` where `should_transform_fn(t)` is true; else zero updates, and the inner state as it was.

    Args:
      inner, should_transform_fn, forward_extra_args: see `conditionally_transform`.

    >>> from dlkit import optim
    >>> tx = conditionally_mask(optim.scale(-1.0), lambda t: t >= 1)
    >>> grads, state = {"w": jnp.ones(1)}, tx.init(None)
    >>> for _ in range(2):
    ...     updates, state = tx.update(grads, state)
    ...     print(updates["w"])
    [0.]
    [-1.]

    Raises:
      TypeError: `inner` is no transform, or `should_transform_fn` no function.
    """

    def init(self, params: Any) -> ConditionallyMaskState:
        return ConditionallyMaskState(jnp.zeros((), jnp.int32), self.inner.init(params))

    def update(
        self, grads: Any, state: ConditionallyMaskState, params: Any = None, **extra: Any
    ) -> tuple[Any, ConditionallyMaskState]:
        updates, step, inner = self._either("conditionally_mask", grads, state, params, extra, keep=False)
        return updates, ConditionallyMaskState(step, inner)


conditionally_transform = ConditionallyTransform
conditionally_mask = ConditionallyMask
