"""The contract that every layer, block and model keeps.

    y, state = layer.apply(params, state, x, mode)

A layer is a frozen dataclass of hyperparameters: a value that prints, compares, hashes and pickles, and holds no
array. What it learns is `params`, what it must remember until its next call is `state` (None when nothing), how to
run is `mode`. A layer of your own lists its parts as fields and says what it computes; its `init` follows from the
fields, keys folded by their names:

>>> from dataclasses import dataclass
>>> from dlkit import nn
>>> @dataclass(frozen=True)
... class Gate(nn.Pure):
...     inner: nn.Linear
...     gate: nn.Linear
...
...     def __call__(self, params, x):
...         return self.inner(params["inner"], x) * nn.functional.sigmoid(self.gate(params["gate"], x))
>>> layer = Gate(nn.Linear(3, 2), nn.Linear(3, 2))
>>> params = layer.init(jax.random.key(0))
>>> sorted(params), layer(params, jnp.ones((5, 3))).shape
(['gate', 'inner'], (5, 2))

A leaf (a layer with parameters of its own) writes `init` too. That is all; `apply` of a `Pure` layer is given.

What a layer can be given beside `x` (a mask, lengths, a memory to attend to) are optional keyword arguments after
`mode`. `Chain` and `Residual` pass `x` alone, so a model that needs them says so in its own `apply`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, final, get_args, get_origin

import jax  # noqa: F401  (the doctest above)
import jax.numpy as jnp

from dlkit.nn.mode import Mode, fold_name
from dlkit.nn.scope import in_scope

__all__ = ["Layer", "Pure", "child_state"]

P = TypeVar("P")
S = TypeVar("S")


class Layer(Generic[P, S]):
    """Base of all layers: subclass as `@dataclass(frozen=True)` and write `apply` (and `init` if it is a leaf)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # The one piece of machinery: what a layer computes runs under its name in the model, so that profiles, HLO
        # and exceptions show the path. `__repr__` is set here because @dataclass keeps one that it finds.
        super().__init_subclass__(**kwargs)
        for name in ("apply", "__call__"):
            method = cls.__dict__.get(name)
            if method is not None and not hasattr(method, "in_scope"):
                setattr(cls, name, in_scope(method))
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Layer.__repr__

    def parts(self) -> "dict[str, Layer | tuple[Layer, ...]]":
        """The fields that are layers, or tuples of layers.

        Raises:
          TypeError: a field mixes layers with other things, or is a list; or the class is no dataclass.
        """
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{type(self).__name__} is no dataclass: decorate it with @dataclass(frozen=True)")
        found: dict[str, Layer | tuple[Layer, ...]] = {}
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            several = isinstance(value, tuple | list) and any(isinstance(v, Layer) for v in value)
            if several and not (isinstance(value, tuple) and all(isinstance(v, Layer) for v in value)):
                raise TypeError(
                    f"{type(self).__name__}.{field.name} is a {type(value).__name__} with layers in it: "
                    f"expected a tuple of layers alone, so that the definition is a value"
                )
            empty = value == () and any(_is_layer_type(t) for t in get_args(field.type))
            if several or empty or isinstance(value, Layer):
                found[field.name] = value  # pyright: ignore[reportArgumentType]
        return found

    def children(self) -> "dict[str, Layer]":
        """The layers that this one is made of, by name; those in a tuple are called `name/0`, `name/1`, ..."""
        found: dict[str, Layer] = {}
        for name, part in self.parts().items():
            found |= {name: part} if isinstance(part, Layer) else {f"{name}/{i}": v for i, v in enumerate(part)}
        return found

    def init(self, key: Any) -> P:
        """Fresh parameters: by default those of the children, as a dict (a tuple of dicts for a tuple of layers)."""
        tree: dict[str, Any] = {}
        for name, part in self.parts().items():
            if isinstance(part, Layer):
                tree[name] = part.init(fold_name(key, name))
            else:
                tree[name] = tuple(child.init(fold_name(key, f"{name}/{i}")) for i, child in enumerate(part))
        return tree  # pyright: ignore[reportReturnType]

    def init_state(self) -> S:
        """The state before the first call: by default that of the children that remember, else None."""
        tree: dict[str, Any] = {}
        for name, part in self.parts().items():
            held = part.init_state() if isinstance(part, Layer) else tuple(child.init_state() for child in part)
            if any(state is not None for state in (held if isinstance(held, tuple) else [held])):
                tree[name] = held
        return tree or None  # pyright: ignore[reportReturnType]

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> S:
        """The state before the first of several calls on consecutive pieces of `batch` sequences: for generation.

        Given as `state`, it makes a model continue where its last call ended: attention remembers up to `length` keys
        and values, a recurrent layer its carry. By default that of the children, else the layer's `init_state()`.
        """
        tree: dict[str, Any] = {}
        for name, part in self.parts().items():
            several = isinstance(part, tuple)
            held = tuple(child.init_cache(batch, length, dtype) for child in (part if several else (part,)))
            if any(state is not None for state in held):
                tree[name] = held if several else held[0]
        return tree or self.init_state()  # pyright: ignore[reportReturnType]

    def apply(self, params: P, state: S, x: Any, mode: Mode) -> tuple[Any, S]:
        """The output for `x`, and the state for the next call (same structure, shapes and dtypes as `state`)."""
        raise TypeError(f"{type(self).__name__} does not say what it computes: give it an `apply`")

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        shown = [f for f in fields if f.repr and getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


class Pure(Layer[P, None]):
    """A layer whose output depends on `params` and `x` alone: it is also callable, `y = layer(params, x)`."""

    def __call__(self, params: P, x: Any) -> Any:
        raise TypeError(f"{type(self).__name__} does not say what it computes: give it a `__call__`")

    @final
    def apply(self, params: P, state: None, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, None]:
        return self(params, x, **inputs), None


def _is_layer_type(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Layer)


def child_state(state: Any, name: str) -> Any:
    """The state of the child `name`, or None where it remembers nothing. For layers that hold arbitrary children."""
    return state.get(name) if isinstance(state, Mapping) else None
