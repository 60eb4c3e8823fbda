"""A learning rate that falls when the loss no longer does."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.leaves import leafwise, real_dtype
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Transform

__all__ = ["ReduceLROnPlateau", "ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    """optax's fields. `scale` is what the last updates were multiplied by."""

    scale: Float[Array, ""]
    best_value: Float[Array, ""]
    plateau_count: Int[Array, ""]  # checks in a row without a new best one
    cooldown_count: Int[Array, ""]  # checks still to pass without counting
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    avg_value: Float[Array, ""]  # the mean of the last `count` values, which have not been checked


@dataclass(frozen=True)
class ReduceLROnPlateau(Transform[ReduceLROnPlateauState]):
    """u = scale g, where the scale is multiplied by `factor` after `patience` checks in a row without a new best value.

    Call `update(grads, state, params, value=loss)`, and put it behind an optimizer:
    `chain(adam(1e-3), reduce_on_plateau())`. The scale in the state may be read, logged and set.

        value < best (1 - rtol) - atol           a new best one

    Args:
      factor: what the scale is multiplied by.
      patience: how many checks in a row without a new best value it takes.
      rtol, atol: by how much a value must be below the best one.
      cooldown: how many checks after a reduction do not count.
      accumulation_size: how many values (one a call) are averaged for one check: the batches of an epoch, say.
      min_scale: the scale never falls below it.

    Differences. optax: equal; its patience=0 reduces in every update, here it is an error. torch's `ReduceLROnPlateau`
    reduces one check later, when patience + 1 have passed without a new best value, so its patience=p is
    `patience=p + 1` here. It is called once an epoch with the metric, this in every update. Its `threshold` is `rtol`
    (mode "rel") or `atol` (mode "abs"), its mode "max" is the negative value with an `atol`, its `min_lr` is min_scale
    times the rate. In a cooldown, torch too counts nothing.

    >>> tx = reduce_on_plateau(factor=0.5, patience=2)
    >>> grads, state = {"w": jnp.ones(1)}, None
    >>> state = tx.init(grads)
    >>> for loss in (1.0, 0.9, 0.9, 0.9, 0.8):
    ...     updates, state = tx.update(grads, state, value=loss)
    ...     print(state.scale)
    1.0
    1.0
    1.0
    0.5
    0.5

    Raises:
      ValueError: `factor` outside of (0, 1), a negative tolerance, both tolerances 0, `rtol` above 1; `patience` or
        `accumulation_size` below 1, a negative `cooldown`.
      TypeError: from `update`, without `value`.
    """

    factor: Scalar = 0.1
    patience: int = 10
    rtol: Scalar = 1e-4
    atol: Scalar = 0.0
    cooldown: int = 0
    accumulation_size: int = 1
    min_scale: Scalar = 0.0

    def __post_init__(self) -> None:
        owner = "reduce_on_plateau"
        settle(owner, self, decays=("factor",), nonnegative=("rtol", "atol", "min_scale"))
        for name, least in (("patience", 1), ("cooldown", 0), ("accumulation_size", 1)):
            object.__setattr__(self, name, as_count(owner, name, getattr(self, name), least))
        if not isinstance(self.factor, Traced) and not self.factor > 0:
            raise ValueError(f"{owner}: factor is {self.factor}, wanted 0 < factor < 1")
        if not isinstance(self.rtol, Traced) and not self.rtol <= 1:
            raise ValueError(f"{owner}: rtol is {self.rtol}, wanted 0 <= rtol <= 1")
        if not isinstance(self.rtol, Traced) and not isinstance(self.atol, Traced) and self.rtol == self.atol == 0:
            raise ValueError(f"{owner}: rtol and atol are both 0, wanted one above 0")

    def init(self, params: Any) -> ReduceLROnPlateauState:
        best, average = jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), jnp.float32)
        plateau, cooldown, count = (jnp.zeros((), jnp.int32) for _ in range(3))
        return ReduceLROnPlateauState(jnp.ones((), jnp.float32), best, plateau, cooldown, count, average)

    def update(
        self, grads: Any, state: ReduceLROnPlateauState, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[Any, ReduceLROnPlateauState]:
        if value is None:
            raise TypeError("reduce_on_plateau: it reads the loss: call update(grads, state, params, value=loss)")
        state = self._seen(state, jnp.asarray(value, jnp.float32))

        def step(g: Array) -> Array:
            return state.scale.astype(real_dtype(g.dtype)) * g

        (updates,) = leafwise("reduce_on_plateau", step, grads)
        return updates, state

    def _seen(self, state: ReduceLROnPlateauState, value: Array) -> ReduceLROnPlateauState:
        def number(x: Any) -> Array:
            return as_dtype(x, jnp.float32)

        count = state.count + 1
        average = (state.count.astype(jnp.float32) * state.avg_value + value) / count.astype(jnp.float32)
        check = count == self.accumulation_size
        better = average < (1 - number(self.rtol)) * state.best_value - number(self.atol)
        plateau = jnp.where(better, 0, state.plateau_count + 1)
        cooling = state.cooldown_count > 0
        reduce = (plateau >= self.patience) & ~cooling & ~better
        scale = jnp.where(reduce, jnp.maximum(state.scale * number(self.factor), number(self.min_scale)), state.scale)
        cooldown = jnp.where(cooling, state.cooldown_count - 1, jnp.where(reduce, self.cooldown, 0))
        checked = ReduceLROnPlateauState(
            scale,
            jnp.where(better, average, state.best_value),
            jnp.where(reduce | cooling, 0, plateau).astype(jnp.int32),
            cooldown.astype(jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.float32),
        )
        waiting = state._replace(count=count, avg_value=average)
        return ReduceLROnPlateauState(*(jnp.where(check, a, b) for a, b in zip(checked, waiting, strict=True)))


reduce_on_plateau = ReduceLROnPlateau
