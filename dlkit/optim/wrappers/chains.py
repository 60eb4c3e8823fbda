"""Small ways to make and to join transforms: links with names, and functions as links."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from dlkit.optim.leaves import check_like
from dlkit.optim.transform import EmptyState, Transform, call_update, check_link
from dlkit.optim.wrappers.shown import Shown, check_callable

__all__ = [
    "NamedChain",
    "Stateless",
    "StatelessWithTreeMap",
    "WithExtraArgsSupport",
    "named_chain",
    "stateless",
    "stateless_with_tree_map",
    "with_extra_args_support",
]


@dataclass(frozen=True, repr=False)
class NamedChain(Transform[dict[str, Any]]):
    """What `named_chain` returns: `links`, pairs of a name and a transform, applied in order."""

    links: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.links]
        if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"named_chain: the names are {names}, wanted distinct strings")
        for _, link in self.links:
            check_link("named_chain", link)

    def init(self, params: Any) -> dict[str, Any]:
        return {name: link.init(params) for name, link in self.links}

    def update(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, dict[str, Any]]:
        names = [name for name, _ in self.links]
        if not isinstance(state, dict) or set(state) != set(names):
            shown = f"one with {sorted(state)}" if isinstance(state, dict) else f"a {type(state).__name__}"
            raise ValueError(f"named_chain: the state is {shown}, wanted a dict with {names}: that of its own `init`")
        if params is not None:
            check_like("named_chain", "the gradients do not match the parameters", params, grads)
        states = {}
        for name, link in self.links:
            grads, states[name] = call_update(link, grads, state[name], params, extra)
        return grads, states

    def __repr__(self) -> str:
        return f"named_chain({', '.join(f'({name!r}, {link!r})' for name, link in self.links)})"


def named_chain(*args: tuple[str, Any]) -> NamedChain:
    """A `chain` whose links have names: the state is a dict, `state[name]` that of a link.

    Extra keyword arguments of `update` go to the links that take them, as in `chain`.

    Args:
      *args: pairs of a name and a transform.

    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> tx = named_chain(("clip", optim.clip_by_global_norm(1.0)), ("rate", optim.scale_by_learning_rate(0.1)))
    >>> grads = {"w": jnp.array([3.0, 4.0])}
    >>> updates, state = tx.update(grads, tx.init(grads), grads)
    >>> state["clip"].norm, state["rate"].learning_rate
    (Array(5., dtype=float32), Array(0.1, dtype=float32))

    Raises:
      ValueError: two links of one name; from `update`, when the state is not that of these links.
      TypeError: a link is no transform.
    """
    return NamedChain(args)


@dataclass(frozen=True, repr=False)
class Stateless(Shown, Transform[EmptyState]):
    """u = f(g, p), a function of the whole trees of gradients and parameters, without a state.

    Args:
      f: `f(updates, params) -> updates`. Where `update` is called without parameters they are None. A function of a
        module pickles and compares; a lambda equals itself alone.

    >>> import jax.numpy as jnp
    >>> tx = stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
    >>> tx.update({"w": jnp.array([-3.0, 2.0])}, tx.init(None))[0]
    {'w': Array([-1.,  1.], dtype=float32)}

    Raises:
      TypeError: `f` is no function.
    """

    f: Callable[..., Any]

    def __post_init__(self) -> None:
        check_callable("stateless", "f", self.f)

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        return self.f(grads, params), state


@dataclass(frozen=True, repr=False)
class StatelessWithTreeMap(Shown, Transform[EmptyState]):
    """u = f(g, p), leaf by leaf, without a state.

    Args:
      f: `f(update, param) -> update`, from arrays to an array. Without parameters, `param` is None.

    >>> import jax.numpy as jnp
    >>> tx = stateless_with_tree_map(lambda g, p: g + 0.1 * p)
    >>> tx.update({"w": jnp.zeros(2)}, tx.init(None), {"w": jnp.ones(2)})[0]
    {'w': Array([0.1, 0.1], dtype=float32)}

    Raises:
      TypeError: `f` is no function. ValueError: from `update`, when gradients and parameters differ in structure.
    """

    f: Callable[..., Any]

    def __post_init__(self) -> None:
        check_callable("stateless_with_tree_map", "f", self.f)

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        if params is None:
            return jax.tree.map(lambda g: self.f(g, None), grads), state
        check_like("stateless_with_tree_map", "the gradients do not match the parameters", params, grads)
        return jax.tree.map(self.f, grads, params), state


@dataclass(frozen=True)
class WithExtraArgsSupport(Transform[Any]):
    """`inner`, with an `update` that takes any extra keyword argument and passes on those that `inner` takes.

    `chain` and every wrapper here do this by themselves: it is for code that calls `update(..., value=loss)` on
    whatever transform it is given.

    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> tx = with_extra_args_support(optim.scale(2.0))
    >>> tx.update({"w": jnp.ones(1)}, tx.init(None), value=3.0)[0]
    {'w': Array([2.], dtype=float32)}

    Raises:
      TypeError: `inner` is no transform.
    """

    inner: Any

    def __post_init__(self) -> None:
        check_link("with_extra_args_support", self.inner)

    def init(self, params: Any) -> Any:
        return self.inner.init(params)

    def update(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return call_update(self.inner, grads, state, params, extra)


stateless = Stateless
stateless_with_tree_map = StatelessWithTreeMap
with_extra_args_support = WithExtraArgsSupport
