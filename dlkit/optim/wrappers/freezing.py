"""Parameters that stay as they are."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dlkit.optim.transform import SetToZero, Transform, call_update, check_link
from dlkit.optim.wrappers.masks import Mask, Masked, MaskedState, choose, choose_extra, resolve_mask, settle_mask
from dlkit.optim.wrappers.shown import Shown

__all__ = ["SelectiveTransform", "freeze", "selective_transform"]


def freeze(mask: Mask) -> Masked:
    """Zero for the chosen leaves, and the other gradients as they came.

    As the *first* link it keeps the frozen gradients out of a norm that is clipped; the optimizer behind it still keeps
    slots for these leaves, and its weight decay still moves them. As the *last* link nothing moves them. Where both
    matter, use `selective_transform`; to spare the backward pass too, `train.fit(..., freeze=globs)`.

    Args:
      mask: what is frozen: path globs, a tree of booleans (or a prefix of one), or a callable that returns it.

    >>> tx = freeze("backbone/**")
    >>> grads = {"backbone": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(1)}}
    >>> tx.update(grads, tx.init(grads))[0]
    {'backbone': {'w': Array([0., 0.], dtype=float32)}, 'head': {'w': Array([1.], dtype=float32)}}

    Raises:
      ValueError: from `init` and `update`, when a glob matches nothing or the mask does not fit.
    """
    return Masked(SetToZero(), mask)


@dataclass(frozen=True, repr=False)
class SelectiveTransform(Shown, Transform[MaskedState]):
    """`optimizer` for the leaves that are not frozen: the others have no slots, no part in a norm, and no decay.

    Their updates are zero: `apply_updates` leaves their bits as they are.

    Args:
      optimizer: a transform, of optax too. It sees the trainable leaves alone.
      freeze_mask: what is frozen: path globs, a tree of booleans (or a prefix of one), or a callable that returns it.

    Differences. optax: the same, without globs; its state is that of `partition`, here a `MaskedState`.

    >>> from dlkit import optim
    >>> tx = selective_transform(optim.adamw(0.1, weight_decay=0.1), freeze_mask="backbone/**")
    >>> params = {"backbone": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(1)}}
    >>> state = tx.init(params)
    >>> jax.tree.leaves(state.inner_state[0].mu)
    [Array([0.], dtype=float32)]
    >>> tx.update(params, state, params)[0]["backbone"]
    {'w': Array([0., 0.], dtype=float32)}

    Raises:
      TypeError: `optimizer` is no transform.
      ValueError: from `init` and `update`, when a glob matches nothing or the mask does not fit.
    """

    optimizer: Any
    _: KW_ONLY
    freeze_mask: Any

    def __post_init__(self) -> None:
        check_link("selective_transform", self.optimizer)
        object.__setattr__(self, "freeze_mask", settle_mask("selective_transform", self.freeze_mask))

    def init(self, params: Any) -> MaskedState:
        return MaskedState(self.optimizer.init(choose(self._trained(params), params)))

    def update(self, grads: Any, state: MaskedState, params: Any = None, **extra: Any) -> tuple[Any, MaskedState]:
        trained = self._trained(grads)
        some = None if params is None else choose(trained, params)
        extra = choose_extra(trained, grads, params, extra)
        updates, inner = call_update(self.optimizer, choose(trained, grads), state.inner_state, some, extra)
        merged = jax.tree.map(lambda keep, new, g: new if keep else jnp.zeros_like(g), trained, updates, grads)
        return merged, MaskedState(inner)

    def _trained(self, of: Any) -> Any:
        return jax.tree.map(lambda frozen: not frozen, resolve_mask(self.freeze_mask, of))


selective_transform = SelectiveTransform
