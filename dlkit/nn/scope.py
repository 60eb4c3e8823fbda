"""Where we are in the model while it is traced: for names in profiles and exceptions, never for numbers.

Each layer's `apply` and `__call__` run inside `in_scope`, which enters `jax.named_scope` under the name that the parent
gives the layer, checks the parameters once at the outermost layer, and notes on an exception where it was raised.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import AbstractArray

from dlkit.nn.checks import check_array, check_params, check_state, note_where
from dlkit.nn.mode import EVAL, Mode

__all__ = ["in_scope", "listening"]


@dataclass(frozen=True, eq=False)
class _Frame:
    layer: Any
    params: Any
    path: str


_frame: ContextVar[_Frame | None] = ContextVar("dlkit_frame", default=None)
_ear: ContextVar[Callable[[str, Any], Any] | None] = ContextVar("dlkit_ear", default=None)


@contextmanager
def listening(hear: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call `hear(path, y)` with what each layer gives, as long as the context lasts: for `models.features`.

    Where `hear` returns something, the model goes on with that: `inspect.grad_cam` adds a zero, to differentiate by it.
    """
    token = _ear.set(hear)
    try:
        yield
    finally:
        _ear.reset(token)


def _name_in(parent: _Frame, layer: Any, params: Any) -> str:
    """What the parent calls this layer: by identity of the parameters first, as one definition may serve twice."""
    children = parent.layer.children()
    for name in children:
        held = parent.params
        for part in name.split("/"):
            held = _item(held, part)
        if held is params and params is not None:
            return name
    return next((name for name, child in children.items() if child is layer), type(layer).__name__)


def _item(held: Any, part: str) -> Any:
    if isinstance(held, Mapping):
        return held.get(part)
    return held[int(part)] if isinstance(held, tuple) and part.isdigit() and int(part) < len(held) else None


def in_scope(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's `apply` or `__call__`; where its signature says that x is an array, nothing else gets in."""
    arguments = ("state", "x", "mode") if method.__name__ == "apply" else ("x",)
    annotation = getattr(method, "__annotations__", {}).get("x")
    is_array = isinstance(annotation, type) and issubclass(annotation, jax.Array | AbstractArray)

    @functools.wraps(method)
    def run(self: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        parent = _frame.get()
        given = dict(zip(arguments, args, strict=False)) | kwargs
        if parent is not None and parent.layer is self and parent.params is params:
            if is_array and "x" in given:
                check_array(self, given["x"])
            return method(self, params, *args, **kwargs)  # `apply` of a Pure layer, calling its `__call__`
        name = "" if parent is None else _name_in(parent, self, params)
        path = "/".join(part for part in (parent.path if parent else "", name) if part)
        token = _frame.set(_Frame(self, params, path))
        try:
            if not isinstance(given.get("mode", EVAL), Mode):
                raise TypeError(
                    f"{type(self).__name__}.apply wants a Mode as its fourth argument, EVAL or training(key), "
                    f"got {type(given['mode']).__name__}"
                )
            if parent is None:
                check_params(self, params)
                if "state" in given:
                    check_state(self, given["state"])
            if is_array and "x" in given:
                check_array(self, given["x"])
            with jax.named_scope(name or type(self).__name__):
                result = method(self, params, *args, **kwargs)
            if (hear := _ear.get()) is not None:
                whole = method.__name__ == "apply"
                instead = hear(path, result[0] if whole else result)
                if instead is not None:
                    result = (instead, *result[1:]) if whole else instead
            return result
        except Exception as error:
            note_where(error, path, self, given.get("x"))
            raise
        finally:
            _frame.reset(token)

    run.in_scope = True  # pyright: ignore[reportAttributeAccessIssue]
    return run
