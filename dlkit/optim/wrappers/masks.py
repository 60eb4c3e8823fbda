"""Which parameters a transform acts on: path globs, or optax's forms (a tree of booleans, or a callable)."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeAlias

import jax

from dlkit import tree
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.narrowed import narrowed
from dlkit.optim.wrappers.shown import Shown

__all__ = ["WEIGHTS", "Mask", "Masked", "MaskedNode", "MaskedState", "masked", "resolve_mask"]

WEIGHTS = tree.WEIGHTS

Mask: TypeAlias = str | tuple[str, ...] | list[str] | dict[str, Any] | Callable[[Any], Any] | Any


@dataclass(frozen=True)
class BoolTree:
    """A tree of booleans in a hashable form."""

    structure: Any
    leaves: tuple[bool, ...]

    def tree(self) -> Any:
        return jax.tree.unflatten(self.structure, self.leaves)


def is_globs(mask: Any) -> bool:
    return isinstance(mask, str) or (
        isinstance(mask, tuple | list) and bool(mask) and all(isinstance(glob, str) for glob in mask)
    )


def settle_mask(owner: str, mask: Mask) -> Any:
    """The mask in the form that a definition holds: None, a glob, a tuple of globs, a callable or a `BoolTree`.

    Raises:
      TypeError: it is none of these.
    """
    if mask is None or isinstance(mask, str | BoolTree) or callable(mask):
        return mask
    if is_globs(mask):
        return tuple(mask)
    leaves, structure = jax.tree.flatten(mask)
    if not leaves or not all(isinstance(leaf, bool) for leaf in leaves):
        raise TypeError(
            f"{owner}: mask is {mask!r}, wanted a path glob such as '**/w', a tuple of globs, a tree of Python bools, "
            "or a callable that returns such a tree"
        )
    return BoolTree(structure, tuple(leaves))


def resolve_mask(mask: Mask, params: Any) -> Any:
    """The tree of booleans, one for every leaf of `params`, that `mask` means; None means every leaf.

    A tree of booleans may be a prefix of `params`. Every glob must match at least one leaf; of `WEIGHTS` one is
    enough, since not every model has tables.

    >>> params = {"embed": {"table": 1.0}, "head": {"w": 2.0, "b": 3.0}}
    >>> resolve_mask(WEIGHTS, params)
    {'embed': {'table': True}, 'head': {'b': False, 'w': True}}
    >>> resolve_mask({"embed": False, "head": True}, params)
    {'embed': {'table': False}, 'head': {'b': True, 'w': True}}

    Raises:
      ValueError: a glob matches nothing, or the tree of booleans does not fit.
      TypeError: the mask is none of the accepted forms.
    """
    if isinstance(params, ParamsPlaceholder):
        return params
    settled = settle_mask("mask", mask)
    if settled is None:
        return jax.tree.map(lambda _: True, params)
    if isinstance(settled, str | tuple):
        return tree.match_weights(params, settled)
    given = settled.tree() if isinstance(settled, BoolTree) else settled(params)
    try:
        return jax.tree.map(lambda keep, below: jax.tree.map(lambda _: bool(keep), below), given, params)
    except (ValueError, TypeError):
        raise ValueError(
            f"mask: it does not fit the parameters (nor is it a prefix of them):\n{tree.diff(params, given)}"
        ) from None


@jax.tree_util.register_static
@dataclass(frozen=True)
class ParamsPlaceholder:
    """Stands for a whole tree of parameters where `tree_map_params` asks which parts of a state are like them."""


class MaskedNode(NamedTuple):
    """Stands where a leaf was left out: a container of nothing, which JAX's tree functions pass over."""


class MaskedState(NamedTuple):
    """The state of the inner transform, made for the chosen leaves alone."""

    inner_state: Any


@dataclass(frozen=True, repr=False)
class Masked(Shown, Transform[MaskedState]):
    """Applies `inner` to the leaves that `mask` chooses, and returns the other gradients as they came.

    State is kept for the chosen leaves only. `inner` may be an optax transformation. To freeze the others, follow it
    by `masked(set_to_zero(), others)`. Functions of the parameters that `update` is given (a line search's `value_fn=`)
    become functions of the chosen leaves, the others standing still; `grad=` beside them is cut down, too.

    Args:
      inner: a transform.
      mask: a path glob, a tuple of globs, a tree of booleans (or a prefix of one), or a callable that returns it.
      mask_compatible_extra_args: whether an extra argument of `update` with the structure of the gradients (`grad=`) is
        cut down to the chosen leaves, too.

    >>> from dlkit import optim
    >>> import jax.numpy as jnp
    >>> tx = masked(optim.scale(-1.0), "**/w")
    >>> grads = {"w": jnp.ones(1), "b": jnp.ones(1)}
    >>> tx.update(grads, tx.init(grads), grads)[0]
    {'b': Array([1.], dtype=float32), 'w': Array([-1.], dtype=float32)}

    Raises:
      ValueError: from `init` and `update`, when the mask does not fit the tree.
    """

    inner: Any
    mask: Any
    _: KW_ONLY
    mask_compatible_extra_args: bool = False

    def __post_init__(self) -> None:
        check_link("masked", self.inner)
        object.__setattr__(self, "mask", settle_mask("masked", self.mask))

    def init(self, params: Any) -> MaskedState:
        return MaskedState(self.inner.init(choose(resolve_mask(self.mask, params), params)))

    def update(self, grads: Any, state: MaskedState, params: Any = None, **extra: Any) -> tuple[Any, MaskedState]:
        chosen = resolve_mask(self.mask, grads)
        some = None if params is None else choose(chosen, params)
        extra = choose_extra(chosen, grads, params, extra, every=self.mask_compatible_extra_args)
        updates, inner_state = call_update(self.inner, choose(chosen, grads), state.inner_state, some, extra)
        merged = jax.tree.map(lambda keep, new, old: new if keep else old, chosen, updates, grads)
        return merged, MaskedState(inner_state)


def choose(mask: Any, of: Any) -> Any:
    """`of` with a `MaskedNode` for every leaf that is not chosen."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else MaskedNode(), mask, of)


def choose_extra(mask: Any, grads: Any, params: Any, extra: dict[str, Any], *, every: bool = False) -> dict[str, Any]:
    """The extra arguments for a link that sees the chosen leaves alone: functions of the parameters take those.

    With `every`, all arguments with the structure of the gradients are cut down, too.
    """
    given = extra
    if params is not None:
        given = narrowed(extra, lambda some: _fill(some, params), lambda of: choose(mask, of), grads)
    if every:
        like = jax.tree.structure(grads)
        cut = {name: choose(mask, arg) for name, arg in extra.items() if jax.tree.structure(arg) == like}
        given = given | cut
    return given


def _fill(some: Any, params: Any) -> Any:
    """`some`, with the leaf of `params` for every leaf that was not chosen."""
    return jax.tree.map(
        lambda one, p: p if isinstance(one, MaskedNode) else one,
        some,
        params,
        is_leaf=lambda node: isinstance(node, MaskedNode),
    )


masked = Masked
