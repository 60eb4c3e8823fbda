"""Averages: of updates in a chain, and of any two trees by hand."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, bias_correction, safe_increment, settle
from dlkit.optim.leaves import check_like, leafwise, widest, zeros_like
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform

__all__ = ["Ema", "EmaState", "ema", "incremental_update", "periodic_update"]


class EmaState(NamedTuple):
    """Updates so far (int32), and the moving average, not bias-corrected."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    ema: Any


@dataclass(frozen=True)
class Ema(Transform[EmaState]):
    """m = decay m + (1 - decay) g; u = m / (1 - decay^t), t = 1 in the first update (without `debias`, u = m).

    An average of *updates*, as momentum is (`trace` without the factor 1 - decay). For an average of parameters see
    `average_params`.

    Args:
      decay: the weight of the old average.
      debias: whether the average is divided by the weight that it has so far.
      accumulator_dtype: the dtype of m; None means that of the parameters.

    >>> tx = ema(0.9)
    >>> grads, state = {"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)})
    >>> updates, state = tx.update(grads, state)
    >>> updates["w"].round(4), state.ema["w"]
    (Array([1.], dtype=float32), Array([0.1], dtype=float32))

    Raises:
      ValueError: `decay` outside of [0, 1).
    """

    decay: Scalar
    debias: bool = True
    accumulator_dtype: Any = None

    def __post_init__(self) -> None:
        settle("ema", self, decays=("decay",), dtypes=("accumulator_dtype",))

    def init(self, params: Any) -> EmaState:
        return EmaState(jnp.zeros((), jnp.int32), zeros_like("ema", params, self.accumulator_dtype))

    def update(self, grads: Any, state: EmaState, params: Any = None) -> tuple[Any, EmaState]:
        count = safe_increment(state.count)
        total = bias_correction(self.decay, count) if self.debias else None

        def step(g: Array, m: Array) -> tuple[Array, Array]:
            m = self.decay * m + (1 - self.decay) * g
            return (m if total is None else m / total.astype(m.real.dtype)), m

        updates, average = leafwise("ema", step, grads, state.ema)
        return updates, EmaState(count, average)


ema = Ema


def incremental_update(new_tensors: Any, old_tensors: Any, step_size: Any) -> Any:
    """step_size * new + (1 - step_size) * old, leaf by leaf: a moving average, or a target network.

    Each leaf keeps the dtype of the old one; the arithmetic is done in the wider of both, in float32 at least.

    >>> incremental_update({"w": jnp.ones(1)}, {"w": jnp.zeros(1)}, 0.25)
    {'w': Array([0.25], dtype=float32)}

    Raises:
      ValueError: the trees differ in structure or shapes.
    """
    check_like("incremental_update", "the new tensors do not match the old ones", old_tensors, new_tensors)

    def mix(new: Any, old: Any) -> Any:
        own = jnp.result_type(old)
        wide = widest(own, jnp.result_type(new), jnp.dtype(jnp.float32))
        weight = as_dtype(step_size, jnp.finfo(wide).dtype)
        return (weight * jnp.asarray(new, wide) + (1 - weight) * jnp.asarray(old, wide)).astype(own)

    return jax.tree.map(mix, new_tensors, old_tensors)


def periodic_update(new_tensors: Any, old_tensors: Any, steps: Any, update_period: Any) -> Any:
    """The new tensors where `steps` is a multiple of `update_period` (0 is), else the old ones.

    >>> [float(periodic_update(jnp.float32(1), jnp.float32(0), t, 3)) for t in range(4)]
    [1.0, 0.0, 0.0, 1.0]

    Raises:
      ValueError: the trees differ in structure or shapes.
    """
    check_like("periodic_update", "the new tensors do not match the old ones", old_tensors, new_tensors)
    now = jnp.asarray(steps) % update_period == 0
    return jax.tree.map(
        lambda new, old: jnp.where(now, jnp.asarray(new, jnp.result_type(old)), jnp.asarray(old)),
        new_tensors,
        old_tensors,
    )
