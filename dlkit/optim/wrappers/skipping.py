"""Steps that are better not taken: gradients that are not finite, or too large."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.gradients.clipping import global_norm
from dlkit.optim.hyper import as_count, safe_increment
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.branches import all_finite, update_or_skip

__all__ = ["ApplyIfFinite", "ApplyIfFiniteState", "apply_if_finite", "skip_large_updates", "skip_not_finite"]


class ApplyIfFiniteState(NamedTuple):
    """Steps in a row that were not finite, whether the last one was, all that were not, and the inner state."""

    notfinite_count: Int[Array, ""]
    last_finite: Bool[Array, ""]
    total_notfinite: Int[Array, ""]
    inner_state: Any


@dataclass(frozen=True)
class ApplyIfFinite(Transform[ApplyIfFiniteState]):
    """`inner`, but a step whose gradients hold an infinity or a NaN is skipped: zero updates, the inner state kept.

    After `max_consecutive_errors` skipped steps in a row the next one is taken whatever it is: what then breaks should
    be seen. `optim.report` tells how many were skipped.

    Args:
      inner: a transform.
      max_consecutive_errors: how many in a row are skipped.

    Differences. optax: equal; its counts are int32 too. torch: `GradScaler` skips, without a limit.

    >>> from dlkit import optim
    >>> tx = apply_if_finite(optim.sgd(0.1, momentum=0.9), max_consecutive_errors=3)
    >>> params = {"w": jnp.ones(2)}
    >>> updates, state = tx.update({"w": jnp.array([1.0, jnp.nan])}, tx.init(params), params)
    >>> updates["w"], int(state.total_notfinite)
    (Array([0., 0.], dtype=float32), 1)

    Raises:
      TypeError: `inner` is no transform, or the count no whole number. ValueError: the count is negative.
    """

    inner: Any
    max_consecutive_errors: int

    def __post_init__(self) -> None:
        check_link("apply_if_finite", self.inner)
        count = as_count("apply_if_finite", "max_consecutive_errors", self.max_consecutive_errors)
        object.__setattr__(self, "max_consecutive_errors", count)

    def init(self, params: Any) -> ApplyIfFiniteState:
        count, total = (jnp.zeros((), jnp.int32) for _ in range(2))
        return ApplyIfFiniteState(count, jnp.asarray(True), total, self.inner.init(params))

    def update(
        self, grads: Any, state: ApplyIfFiniteState, params: Any = None, **extra: Any
    ) -> tuple[Any, ApplyIfFiniteState]:
        finite = all_finite(grads)
        count = jnp.where(finite, 0, safe_increment(state.notfinite_count))
        updates, inner = update_or_skip(
            "apply_if_finite",
            jnp.logical_or(finite, count > self.max_consecutive_errors),
            lambda: call_update(self.inner, grads, state.inner_state, params, extra),
            grads,
            state.inner_state,
            keep=False,
        )
        total = jnp.where(finite, state.total_notfinite, safe_increment(state.total_notfinite))
        return updates, ApplyIfFiniteState(count, finite, total, inner)


apply_if_finite = ApplyIfFinite


def skip_not_finite(updates: Any, gradient_step: Any, params: Any) -> tuple[Bool[Array, ""], dict[str, Array]]:
    """For `MultiSteps(should_skip_update_fn=)`: leave out the gradients of a mini-step that are not all finite.

    Returns:
      Whether to skip, and `{"should_skip", "num_not_finite"}`: the same, and how many elements are not finite.

    >>> skip, about = skip_not_finite({"w": jnp.array([1.0, jnp.inf, jnp.nan])}, 0, None)
    >>> bool(skip), int(about["num_not_finite"])
    (True, 2)
    """
    number = jnp.zeros((), jnp.int32)
    for leaf in jax.tree.leaves(updates):
        number += jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32)
    skip = number > 0
    return skip, {"should_skip": skip, "num_not_finite": number}


def skip_large_updates(
    updates: Any, gradient_step: Any, params: Any, max_squared_norm: Any
) -> tuple[Bool[Array, ""], dict[str, Array]]:
    """For `MultiSteps(should_skip_update_fn=)`, by `functools.partial`: leave out gradients with a large global norm.

    A norm that is NaN is skipped, too.

    Returns:
      Whether to skip, and `{"should_skip", "norm_squared"}`: the same, and the square of the global norm.

    >>> skip, about = skip_large_updates({"w": jnp.array([3.0, 4.0])}, 0, None, 20.0)
    >>> bool(skip), float(about["norm_squared"])
    (True, 25.0)
    """
    norm: Float[Array, ""] = jnp.square(global_norm(updates))
    skip = ~(norm < as_dtype(max_squared_norm, norm.dtype))
    return skip, {"should_skip": skip, "norm_squared": norm}
