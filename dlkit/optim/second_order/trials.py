"""Steps that are tried before they are taken: how well a model foretold the loss, and the damping that follows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.second_order import vectors

__all__ = ["TrialInfo"]


class TrialInfo(NamedTuple):
    """How the trials of the last update went."""

    evaluations: Int[Array, ""]  # of the loss
    ratio: Float[Array, ""]  # of the last trial: its decrease over the one that the model promised
    accepted: Bool[Array, ""]  # whether a step was taken
    failed: Bool[Array, ""]  # whether no step lowers the loss


def no_info(dtype: Any) -> TrialInfo:
    accepted, failed = (jnp.zeros((), bool) for _ in range(2))
    return TrialInfo(jnp.zeros((), jnp.int32), jnp.zeros((), dtype), accepted, failed)


def gain_ratio(value: Any, new_value: Any, promised: Any) -> Any:
    """(f(p) - f(p + d)) / (m(0) - m(d)); -1 where the new loss is not finite or the model rises, 1 for a step of 0.

    Near a minimum both differences are rounding, and their ratio would be noise: a few units in the last place of the
    loss are added to both (Conn, Gould, Toint, "Trust-region methods", 2000, section 17.4.2).
    """
    rounding = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    promised = promised + rounding
    good = jnp.isfinite(new_value) & (promised > 0)
    ratio = (value - new_value + rounding) / jnp.where(good, promised, jnp.ones_like(promised))
    still = (promised == 0) & (new_value == value)
    return jnp.where(good, ratio, jnp.where(still, 1, -1).astype(value.dtype))


class Damped(NamedTuple):
    """What `damped_search` found: the direction (zeros where it failed), and the damping for the next step."""

    direction: Any
    value: Float[Array, ""]
    damping: Float[Array, ""]
    info: TrialInfo


def damped_search(
    solve: Callable[[Any], tuple[Any, Any]],
    loss: Callable[[Any], Any],
    params: Any,
    value: Any,
    damping: Any,
    max_trials: int,
) -> Damped:
    """Steps with more and more damping until one lowers the loss; less damping next time where the model was good.

        ratio > 1e-4:   take the step; damping = damping max(1/3, 1 - (2 ratio - 1)^3)
        otherwise:      damping = 2 damping, then 4, 8, ... times more (Nielsen's rule)

    `solve` gives from a damping the direction, and the decrease that the model promises.
    """
    dtype, no = value.dtype, jnp.bool_(False)
    least = jnp.finfo(dtype).eps ** 2  # a damping of 0 could not grow again

    def body(carry: tuple[Damped, Any]) -> tuple[Damped, Any]:
        at, factor = carry
        direction, promised = solve(at.damping)
        new = jnp.asarray(loss(vectors.move(params, direction)), dtype)
        ratio = gain_ratio(value, new, promised)
        good = ratio > 1e-4
        less = jnp.maximum(1.0 / 3, 1 - (2 * jnp.minimum(ratio, 1) - 1) ** 3)
        changed = jnp.maximum(at.damping * jnp.where(good, less, factor), least)
        info = TrialInfo(at.info.evaluations + 1, ratio, good, no)
        taken = vectors.where(good, direction, at.direction)
        return Damped(taken, jnp.where(good, new, at.value), changed.astype(dtype), info), 2 * factor

    shape = jax.eval_shape(solve, damping)[0]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
    info = TrialInfo(jnp.int32(0), jnp.zeros((), dtype), no, no)
    start = (Damped(zeros, value, damping, info), jnp.asarray(2, dtype))
    end = jax.lax.while_loop(lambda c: ~c[0].info.accepted & (c[0].info.evaluations < max_trials), body, start)[0]
    return end._replace(info=end.info._replace(failed=~end.info.accepted))
