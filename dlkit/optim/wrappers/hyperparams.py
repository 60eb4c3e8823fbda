"""Hyperparameters that are data: in the state, to be changed between two calls of a compiled step."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from dlkit.optim.hyper import as_float, safe_increment
from dlkit.optim.report import find_states
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.masks import settle_mask
from dlkit.optim.wrappers.shown import Shown, check_callable, show

__all__ = [
    "InjectHyperparams",
    "InjectHyperparamsState",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "set_hyperparams",
]


class InjectHyperparamsState(NamedTuple):
    """Updates so far (int32); the numbers that the last update used; states of schedules that have one; inner state."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    hyperparams: dict[str, Any]
    hyperparams_states: dict[str, Any]
    inner_state: Any


@dataclass(frozen=True, repr=False)
class InjectHyperparams(Shown, Transform[InjectHyperparamsState]):
    """What `inject_hyperparams(recipe)(...)` returns: the recipe and its arguments, by name.

    The transform is made anew in every `init` and `update`, from the numbers in the state.
    """

    inner_factory: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...]  # every one but those that the state holds
    numbers: tuple[tuple[str, float], ...]  # where they start
    schedules: tuple[tuple[str, Any], ...]
    hyperparam_dtype: str | None = None

    def init(self, params: Any) -> InjectHyperparamsState:
        count = jnp.zeros((), jnp.int32)
        held = {name: schedule.init() for name, schedule in self.schedules if _has_state(schedule)}
        values = {name: self._typed(value) for name, value in self.numbers} | self._scheduled(count, held, {})
        inner = self._inner(jax.tree.map(jnp.copy, values)).init(params)  # it may keep them: no array twice in a state
        return InjectHyperparamsState(count, values, held, inner)

    def update(
        self, grads: Any, state: InjectHyperparamsState, params: Any = None, **extra: Any
    ) -> tuple[Any, InjectHyperparamsState]:
        values = {name: self._typed(state.hyperparams[name]) for name, _ in self.numbers}
        values |= self._scheduled(state.count, state.hyperparams_states, extra)
        held = {
            name: schedule.update(state.hyperparams_states[name], **extra)
            for name, schedule in self.schedules
            if _has_state(schedule)
        }
        updates, inner = call_update(self._inner(values), grads, state.inner_state, params, extra)
        return updates, InjectHyperparamsState(safe_increment(state.count), values, held, inner)

    def _scheduled(self, count: Any, held: dict[str, Any], extra: dict[str, Any]) -> dict[str, Array]:
        return {
            name: self._typed(schedule(held[name], **extra) if _has_state(schedule) else schedule(count))
            for name, schedule in self.schedules
        }

    def _typed(self, value: Any) -> Array:
        wanted = jnp.result_type(float) if self.hyperparam_dtype is None else jnp.dtype(self.hyperparam_dtype)
        return jax.lax.convert_element_type(as_dtype(value, wanted), wanted)  # strips a weak type

    def _inner(self, values: dict[str, Array]) -> Any:
        # Wrapped even where the values are known (in eager execution), so that `init` and every `update` build the
        # same links. A factory of another library gets the arrays.
        try:
            inner = self.inner_factory(**dict(self.arguments), **{name: Traced(v) for name, v in values.items()})
            if isinstance(inner, Transform):
                return inner
        except TypeError as error:
            if (getattr(self.inner_factory, "__module__", None) or "").split(".")[0] == "dlkit":
                error.add_note(_note(self.inner_factory, values))
                raise
        return self.inner_factory(**dict(self.arguments), **values)


def _note(factory: Any, values: Iterable[str]) -> str:
    return (
        f"in {show(factory)}, whose numbers {', '.join(values)} are data; name those that have to be plain numbers: "
        "inject_hyperparams(..., static_args=...)"
    )


def _has_state(schedule: Any) -> bool:
    """A schedule with a state of its own: `init() -> s`, `update(s, **extra) -> s`, `schedule(s, **extra)`."""
    return callable(getattr(schedule, "init", None)) and callable(getattr(schedule, "update", None))


def inject_hyperparams(
    inner_factory: Callable[..., Any], static_args: str | Iterable[str] = (), hyperparam_dtype: Any = None
) -> Callable[..., InjectHyperparams]:
    """A recipe whose numbers are data: `inject_hyperparams(adamw)(3e-4, b1=0.9)`.

    `state.hyperparams` holds every number that the recipe was given or has as a default other than 0. To change one,
    use `set_hyperparams`: a compiled step goes on without being traced again, and under `vmap` each run has its own.
    A schedule is evaluated before every update: update number t (the first is 0) uses schedule(t), and
    `state.hyperparams` then holds the value that was used; to set it by hand has no effect. Booleans, strings, None and
    what `static_args` names stay what they are.

    A default of 0 means that the recipe leaves a term out, so it stays out: give the 0 to make it data.

    Args:
      inner_factory: a recipe or transform of dlkit or of optax: any function that returns a transform. A function of a
        module pickles; the definition is equal to another one with equal arguments.
      static_args: names of arguments that are no data: callables that are no schedules, and numbers that decide shapes
        or counts (`every_k`, a memory size).
      hyperparam_dtype: what the numbers are kept in: float32 by default, float64 in JAX's 64-bit mode.

    Returns:
      A function with the recipe's arguments, each of which may be a schedule. It returns the transform. A schedule may
      have a state: an object with `init()`, `update(state, **extra)` and `__call__(state, **extra)`, such as optax's
      `StatefulSchedule`, where extra are the keyword arguments of `update`.

    Differences. optax: the default dtype is that of the first gradient (a bfloat16 learning rate for bfloat16
    gradients), and defaults of 0 are data, too. Its schedules start at 0 as well (before 0.1, at 1).
    `inject_stateful_hyperparams` is the same function under an old name.

    >>> from dlkit import optim
    >>> tx = inject_hyperparams(optim.sgd)(0.1)
    >>> params = {"w": jnp.ones(1)}
    >>> state = tx.init(params)
    >>> update = jax.jit(tx.update)
    >>> update(params, state, params)[0]["w"]
    Array([-0.1], dtype=float32)
    >>> update(params, set_hyperparams(state, learning_rate=0.5), params)[0]["w"]  # not traced again
    Array([-0.5], dtype=float32)

    Raises:
      TypeError: `inner_factory` is no function, has no such argument, or a number is none. ValueError: out of range.
    """
    check_callable("inject_hyperparams", "inner_factory", inner_factory)
    static = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    signature = inspect.signature(inner_factory)
    unknown = [name for name in static if name not in signature.parameters]
    if unknown:
        raise ValueError(
            f"inject_hyperparams: static_args names {unknown[0]!r}; {show(inner_factory)} takes "
            f"{', '.join(signature.parameters)}"
        )
    dtype = None if hyperparam_dtype is None else jnp.dtype(hyperparam_dtype).name

    def make(*args: Any, **kwargs: Any) -> InjectHyperparams:
        given = _named(signature, args, kwargs)
        defaults = {
            name: p.default
            for name, p in signature.parameters.items()
            if name not in given and p.default is not p.empty and _is_number(p.default) and p.default != 0
        }
        numbers, schedules, arguments = {}, {}, {}
        for name, value in (given | defaults).items():
            if name in static:
                arguments[name] = _plain(value)
            elif callable(value):
                schedules[name] = value
            elif _is_number(value):
                numbers[name] = as_float(show(inner_factory), name, value)
            else:
                arguments[name] = _plain(value)
        if not schedules:  # ranges, before anything is traced
            try:
                check_link("inject_hyperparams", inner_factory(**arguments, **numbers))
            except TypeError as error:
                error.add_note(_note(inner_factory, numbers))
                raise
        held, data, moving = (tuple(sorted(of.items())) for of in (arguments, numbers, schedules))
        return InjectHyperparams(inner_factory, held, data, moving, dtype)

    return make


inject_stateful_hyperparams = inject_hyperparams


def _named(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise TypeError("inject_hyperparams: a recipe with *args cannot be given them: its arguments need names")
        named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.ndarray | jax.Array | Traced) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """An argument as a definition holds it: a tree of booleans in a hashable form."""
    return settle_mask("inject_hyperparams", value) if isinstance(value, dict | list) else value


def set_hyperparams(opt_state: Any, **values: Any) -> Any:
    """The optimizer state with other hyperparameters, wherever in it `inject_hyperparams` keeps them.

    Structure, shapes and dtypes stay, so that a compiled step goes on without being traced again. A value may have the
    leading axes of a state made under `vmap`.

    >>> from dlkit import optim
    >>> state = optim.inject_hyperparams(optim.adam)(1e-3).init({"w": jnp.ones(2)})
    >>> set_hyperparams(state, learning_rate=1e-4).hyperparams["learning_rate"]
    Array(0.0001, dtype=float32)

    Raises:
      ValueError: the state holds no hyperparameter of this name, or the shape does not fit.
    """
    found = find_states(opt_state, InjectHyperparamsState)
    known = sorted({name for state in found.values() for name in state.hyperparams})
    for name in values:
        if name not in known:
            raise ValueError(f"set_hyperparams: the state holds no {name!r}; it holds {', '.join(known) or 'none'}")

    def one(node: Any) -> Any:
        if not isinstance(node, InjectHyperparamsState):
            return node
        held = {
            name: _like(name, old, values[name]) if name in values else old for name, old in node.hyperparams.items()
        }
        return node._replace(hyperparams=held, inner_state=nested(node.inner_state))

    def nested(of: Any) -> Any:
        return jax.tree.map(one, of, is_leaf=lambda node: isinstance(node, InjectHyperparamsState))

    return nested(opt_state)


def _like(name: str, old: Any, new: Any) -> Array:
    made = jax.lax.convert_element_type(jnp.asarray(new), jnp.result_type(old))
    if made.shape not in ((), jnp.shape(old)):
        raise ValueError(f"set_hyperparams: {name} has shape {made.shape}, wanted {jnp.shape(old)}")
    return jnp.broadcast_to(made, jnp.shape(old))
