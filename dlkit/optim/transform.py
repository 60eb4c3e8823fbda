"""The contract that every optimizer, clip and wrapper keeps.

    updates, state = tx.update(grads, state, params)
    params = apply_updates(params, updates)

A transform is a frozen dataclass of hyperparameters: a value that prints, compares, hashes and pickles, and holds no
array. What it must remember (a momentum, a step count) is its `state`, a NamedTuple written just above it. An
optimizer is a `chain` of small transforms. The shape is optax's, so an optax transformation is a valid link here and a
`Transform` is a valid link of `optax.chain`, without either library knowing the other.

A transform of your own is its fields and its two methods:

>>> from dataclasses import dataclass
>>> from typing import NamedTuple
>>> class SignState(NamedTuple):
...     pass
>>> @dataclass(frozen=True)
... class Sign(Transform[SignState]):
...     step: float
...
...     def init(self, params):
...         return SignState()
...
...     def update(self, grads, state, params=None):
...         return jax.tree.map(lambda g: -self.step * jnp.sign(g), grads), state
>>> tx = chain(Sign(0.5), SetToZero())
>>> tx
chain(Sign(step=0.5), SetToZero())
>>> tx == chain(Sign(0.5), SetToZero())
True
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dlkit.optim.leaves import cast, check_like, widest

__all__ = [
    "Chain",
    "EmptyState",
    "Identity",
    "SetToZero",
    "Transform",
    "apply_updates",
    "chain",
    "identity",
    "set_to_zero",
]

S = TypeVar("S")


class Transform(ABC, Generic[S]):
    """Base of all gradient transforms: subclass as `@dataclass(frozen=True)` and write `init` and `update`.

    `uses_gradient` is False where `update` looks at the structure and dtypes of `grads` alone (it evaluates the loss
    itself): a training step then computes no gradient.
    """

    uses_gradient: ClassVar[bool] = True

    @abstractmethod
    def init(self, params: Any) -> S:
        """The state before the first update, for parameters of this structure, these shapes and dtypes."""

    @abstractmethod
    def update(self, grads: Any, state: S, params: Any = None) -> tuple[Any, S]:
        """What to add to the parameters (same structure and shapes as `grads`), and the state for the next call.

        **Updates are at least as wide as the gradients**: rounding a float32 sum back to the bfloat16 of its gradient
        would lose whatever is small beside it, a weight decay say. `apply_updates` rounds once, at the end.
        The new state has the structure, shapes, dtypes and weak types of `state`, so that a jitted step is traced
        once. Always pass `params`: a weight decay, a norm ratio or a projection needs them.
        """


class EmptyState(NamedTuple):
    """The state of a transform that remembers nothing."""


@dataclass(frozen=True)
class Identity(Transform[EmptyState]):
    """Leaves the gradients as they are.

    >>> Identity().update({"w": 2.0}, EmptyState())
    ({'w': 2.0}, EmptyState())
    """

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        return grads, state


@dataclass(frozen=True)
class SetToZero(Transform[EmptyState]):
    """Turns every gradient into zero: with `masked`, the way to freeze some of the parameters.

    >>> SetToZero().update({"w": jnp.ones(2)}, EmptyState())[0]
    {'w': Array([0., 0.], dtype=float32)}
    """

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        return jax.tree.map(jnp.zeros_like, grads), state


identity = Identity
set_to_zero = SetToZero


def call_update(link: Any, grads: Any, state: Any, params: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
    """`link.update`, with those of the extra keyword arguments that its signature takes. For wrappers."""
    if not extra:
        return link.update(grads, state, params)
    taken = inspect.signature(link.update).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        extra = {name: value for name, value in extra.items() if name in taken}
    return link.update(grads, state, params, **extra)


def takes_anything(link: Any) -> bool:
    """Whether a transformation of optax's is `link`, or inside, that takes any keyword argument: it may refuse some."""
    if isinstance(link, Transform):
        fields = dataclasses.fields(link) if dataclasses.is_dataclass(link) else ()
        return any(takes_anything(getattr(link, field.name)) for field in fields)
    if callable(getattr(link, "init", None)) and callable(update := getattr(link, "update", None)):
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(update).parameters.values())
    inside = link.values() if isinstance(link, dict) else link if isinstance(link, tuple | list) else ()
    return any(map(takes_anything, inside))


def takes_examples(link: Any) -> bool:
    """Whether `link` wants a gradient per example, stacked along a leading axis: `per_example`, itself or first."""
    return bool(getattr(link, "per_example", False)) or (
        isinstance(link, Chain) and bool(link.links) and takes_examples(link.links[0])
    )


def check_link(owner: str, link: Any) -> None:
    """Raise unless `link` has the shape of a transform: a `Transform`, or optax's pair."""
    if isinstance(link, type) or not (
        callable(getattr(link, "init", None)) and callable(getattr(link, "update", None))
    ):
        raise TypeError(f"{owner}: got {link!r}, wanted a transform: an object with `init` and `update`")


@dataclass(frozen=True, repr=False)
class Chain(Transform[tuple[Any, ...]]):
    """What `chain` returns: `links`, applied in order."""

    links: tuple[Any, ...]

    def __post_init__(self) -> None:
        for link in self.links:
            check_link("chain", link)

    def init(self, params: Any) -> tuple[Any, ...]:
        return tuple(link.init(params) for link in self.links)

    def update(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, tuple[Any, ...]]:
        self._check_state(state)
        states = []
        checked = params is None
        for link, link_state in zip(self.links, state, strict=True):
            if not checked and not takes_examples(link):  # such a link takes their extra axis away
                check_like("chain", "the gradients do not match the parameters", params, grads)
                checked = True
            grads, link_state = call_update(link, grads, link_state, params, extra)
            states.append(link_state)
        return grads, tuple(states)

    @property
    def uses_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the first link looks at the gradient: the others see only what it returns."""
        return not self.links or getattr(self.links[0], "uses_gradient", True)

    def _check_state(self, state: Any) -> None:
        hint = "pass the state that its own `init(params)` or its last update returned: update(grads, state, params)"
        if not isinstance(state, tuple | list) or hasattr(state, "_fields"):
            shown = "None" if state is None else f"a {type(state).__name__}"
            raise TypeError(f"chain: the state is {shown}, wanted a tuple of {len(self.links)}; {hint}")
        if len(state) != len(self.links):
            raise ValueError(f"chain: the state is a tuple of {len(state)}, wanted one of {len(self.links)}; {hint}")

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.links))})"


def chain(*links: Any) -> Chain:
    """Transforms applied one after the other, each to what the one before it returned.

    The state is the tuple of the links' states. Links are `Transform`s, other chains, or optax's transformations.
    Extra keyword arguments of `update` (optax's `value=`, `grad=`, ...) go to the links that take them.

    >>> from dlkit import optim
    >>> chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-3))
    chain(ClipByGlobalNorm(max_norm=1.0), chain(ScaleByAdam(...), AddDecayedWeights(...), ScaleByLearningRate(...)))

    Raises:
      TypeError: a link is no transform; from `update`, when the state is no tuple of states.
      ValueError: from `update`, when gradients, parameters and state do not belong together.
    """
    return Chain(links)


def apply_updates(params: Any, updates: Any) -> Any:
    """`params + updates`, leaf by leaf. The sum is rounded once, to the dtype of the parameter.

    >>> apply_updates({"w": jnp.ones(2, jnp.bfloat16)}, {"w": jnp.ones(2, jnp.float32)})
    {'w': Array([2, 2], dtype=bfloat16)}

    Raises:
      ValueError: the trees differ in structure or in shapes.
    """
    check_like("apply_updates", "the updates do not match the parameters", params, updates)

    def add(p: Any, u: Any) -> Any:
        dtype = jnp.result_type(p)
        wide = widest(dtype, jnp.result_type(u))
        return cast(cast(p, wide) + cast(u, wide), dtype)

    return jax.tree.map(add, params, updates)
