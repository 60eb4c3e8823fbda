"""Models from models: the same definition with some of its layers replaced."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dlkit.nn.checks import describe
from dlkit.nn.combinators import Chain
from dlkit.nn.layer import Layer

__all__ = ["map_layers"]

L = TypeVar("L", bound=Layer)


def map_layers(fn: Callable[[str, Layer], Layer], model: L) -> L:
    """The model with `fn(path, layer)` in place of each of its layers, those inside a layer first.

    A path is that of the layer's parameters, `blocks/attention/q`; a layer is replaced by another one that takes the
    same inputs. What `fn` returns unchanged stays the same object, and so does a model in which nothing changes.

    Layers are found in fields, in tuples, in `Chain` and in `Stack`, at any depth. A layer of your own that makes its
    parts from its numbers, in `parts`, takes replacements in a field `replaced: tuple[tuple[str, Layer], ...] = ()` and
    adds `dict(self.replaced)` to them.

    >>> from dlkit import nn
    >>> model = nn.Chain(nn.Linear(4, 8), nn.Relu(), head=nn.Linear(8, 2))
    >>> map_layers(lambda path, layer: nn.Gelu() if layer == nn.Relu() else layer, model)
    Chain(linear1=Linear(d_in=4, d_out=8), relu1=Gelu(), head=Linear(d_in=8, d_out=2))

    Raises:
      TypeError: a part to be replaced is neither a field nor can it stand in `replaced`.
    """
    return _mapped(fn, model, "")


def _mapped(fn: Callable[[str, Layer], Layer], layer: Any, path: str) -> Any:
    own = layer.children().get("")  # a Stack's block, say, whose parameters are those of the stack
    transparent, parts = own is not None, layer.parts()
    if own is not None and all(own is not part for part in parts.values()):
        new = _mapped(fn, own, path)  # a layer that stands for the one it builds
        return fn(path, layer) if new is own else new
    changes: dict[str, Any] = {}
    for name, part in parts.items():
        inside = path if transparent else f"{path}/{name}".lstrip("/")
        if isinstance(part, Layer):
            new: Any = _mapped(fn, part, inside)
            changed = new is not part
        else:
            new = tuple(_mapped(fn, child, f"{inside}/{i}") for i, child in enumerate(part))
            changed = any(a is not b for a, b in zip(new, part, strict=True))
        if changed:
            changes[name] = new
    return fn(path, _with_parts(layer, changes) if changes else layer)


def _with_parts(layer: Any, changes: Mapping[str, Any]) -> Any:
    if isinstance(layer, Chain):  # its constructor takes layers by name, so fields cannot be replaced one by one
        return type(layer)(**{**layer.parts(), **changes})  # pyright: ignore[reportArgumentType]
    names = {field.name for field in dataclasses.fields(layer) if field.init}
    own = {name: part for name, part in changes.items() if name in names}
    made = {name: part for name, part in changes.items() if name not in names}
    if made:
        if "replaced" not in names:
            raise TypeError(
                f"{describe(layer)} makes its part {min(made)!r} itself, so it cannot be replaced: give the class a "
                f"field `replaced: tuple[tuple[str, Layer], ...] = ()` and let `parts` add dict(self.replaced)"
            )
        usual = dataclasses.replace(layer, **own, replaced=()).parts()
        held = dict(layer.replaced) | made
        own["replaced"] = tuple((name, held[name]) for name in sorted(held) if held[name] != usual[name])
    return dataclasses.replace(layer, **own)
