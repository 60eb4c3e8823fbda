"""Weight decay: coupled (L2) or decoupled, according to its place in the chain."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, safe_increment, schedule_value, settle
from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import EmptyState, Transform
from dlkit.optim.wrappers.masks import Mask, resolve_mask, settle_mask

__all__ = ["AddDecayedWeights", "AddDecayedWeightsState", "add_decayed_weights"]


class AddDecayedWeightsState(NamedTuple):
    """Updates so far (int32). Kept only where the decay is a schedule."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class AddDecayedWeights(Transform[AddDecayedWeightsState | EmptyState]):
    """u = g + weight_decay * p

    *Before* the scaling of Adam, RMSProp or Adagrad this is the gradient of weight_decay / 2 * |p|^2: coupled, or L2,
    decay (`torch.optim.Adam(weight_decay=)`; the recipes call it `l2=`). *After* it, and before the learning rate,
    it is decoupled decay (AdamW). For plain SGD both are the same.

    Args:
      weight_decay: a number or a schedule.
      mask: which parameters decay: None for all of them (as in optax and torch), path globs (`optim.WEIGHTS` leaves
        out biases and scales of norms), a tree of booleans or a prefix of one, or a callable that returns one.

    Reference: Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.

    >>> tx = add_decayed_weights(0.1, mask="**/w")
    >>> params = {"w": jnp.array([2.0]), "b": jnp.array([2.0])}
    >>> grads = {"w": jnp.zeros(1), "b": jnp.zeros(1)}
    >>> tx.update(grads, tx.init(params), params)[0]
    {'b': Array([0.], dtype=float32), 'w': Array([0.2], dtype=float32)}

    Raises:
      ValueError: `weight_decay` is negative; from `init` and `update`, a glob of `mask` matches nothing; from
        `update`, `params` is None.
    """

    weight_decay: ScalarOrSchedule = 0.0
    mask: Any = None

    def __post_init__(self) -> None:
        settle(
            "add_decayed_weights",
            self,
            schedules=("weight_decay",),
            nonnegative=() if callable(self.weight_decay) else ("weight_decay",),
        )
        object.__setattr__(self, "mask", settle_mask("add_decayed_weights", self.mask))

    def init(self, params: Any) -> AddDecayedWeightsState | EmptyState:
        if self.mask is not None:
            resolve_mask(self.mask, params)  # a misspelt glob is an error now, not at the first update
        return AddDecayedWeightsState(jnp.zeros((), jnp.int32)) if callable(self.weight_decay) else EmptyState()

    def update(
        self, grads: Any, state: AddDecayedWeightsState | EmptyState, params: Any = None
    ) -> tuple[Any, AddDecayedWeightsState | EmptyState]:
        need_params("add_decayed_weights", params)
        decay: Any = self.weight_decay
        if isinstance(state, AddDecayedWeightsState):
            decay = schedule_value("add_decayed_weights", decay, state.count)
            state = AddDecayedWeightsState(safe_increment(state.count))

        def step(g: Array, p: Array, decays: bool) -> Array:
            return g + as_dtype(decay, g.dtype) * p if decays else g

        (updates,) = leafwise("add_decayed_weights", step, grads, read=(params, resolve_mask(self.mask, params)))
        return updates, state


add_decayed_weights = AddDecayedWeights


def l2_links(l2: Scalar, mask: Mask) -> tuple[AddDecayedWeights, ...]:
    """The first link of a recipe with coupled decay, or nothing where `l2` is 0."""
    value = as_float("coupled decay", "l2", l2)
    if isinstance(value, float) and value < 0:
        raise ValueError(f"coupled decay: l2 is {l2}, wanted 0 or more")
    link = AddDecayedWeights(l2, mask)
    return (link,) if link.weight_decay else ()


def decay_links(weight_decay: ScalarOrSchedule, mask: Mask) -> tuple[AddDecayedWeights, ...]:
    """The link of a recipe whose decoupled decay is an option, or nothing where `weight_decay` is 0."""
    link = AddDecayedWeights(weight_decay, mask)
    return (link,) if link.weight_decay else ()
