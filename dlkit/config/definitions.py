"""Definitions as plain data, and back: layers, initializers, optimizer transforms, schedules.

A definition becomes a mapping of its `type` and the fields that differ from their defaults. Types are looked up in one
table of dlkit's own public classes and nowhere else: no name is imported, nothing is called that is not in the table.

>>> from dlkit import nn
>>> to_data(nn.Linear(4, 2))
{'type': 'Linear', 'd_in': 4, 'd_out': 2}
>>> from_data({"type": "Linear", "d_in": 4, "d_out": 2}) == nn.Linear(4, 2)
True
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from dlkit.config.errors import ConfigError, nearest
from dlkit.config.explain import show

__all__ = ["from_data", "table", "to_data"]

MAX_DEPTH = 24
NONE = {"type": "None"}


@functools.cache
def table() -> Mapping[str, type]:
    """Every class that a definition may name: layers by their own name, the others with their module's before it.

    `Linear`, `initializers.Orthogonal`, `optim.ScaleByAdam`, `losses.Penalty`.
    """
    from dlkit import losses, models, nn, optim
    from dlkit.nn import initializers

    found: dict[str, type] = {}
    bases = (
        nn.Layer, initializers.Initializer, optim.Transform, optim.Schedule, optim.LossScale, losses.Penalty,
        models.NoiseSchedule,
    )  # fmt: skip
    prefixes = {"": nn, "initializers.": initializers, "optim.": optim, "losses.": losses, "models.": models}
    for prefix, module in prefixes.items():
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, bases) and dataclasses.is_dataclass(value):
                # A recipe that is an alias of its class (`clip = Clip`) is listed under the class's name alone.
                found[prefix + value.__name__] = value
    return types.MappingProxyType(found)


@functools.cache
def _names() -> Mapping[type, str]:
    return {cls: name for name, cls in reversed([*table().items()])}


def to_data(definition: Any) -> Any:
    """A definition as strings, numbers, booleans, lists and mappings, such as TOML and JSON hold.

    Raises:
      TypeError: something inside is not a public definition of dlkit or a plain value: a class of your own, an array,
        a function.
    """
    return _to_data(definition, "definition")


def _to_data(value: Any, path: str) -> Any:
    if value is None:
        return dict(NONE)
    if type(value) in (bool, int, float, str):
        return value
    if type(value) in (tuple, list):
        return [_to_data(v, f"{path}[{i}]") for i, v in enumerate(value)]
    name = _names().get(type(value))
    if name is None:
        raise TypeError(
            f"{path}: {value!r} of type {type(value).__name__} has no form as data: expected a public definition of "
            f"dlkit, a number, a string, a boolean, a tuple of these, or None"
        )
    if _is_chain(type(value)):
        children = value.children().items()
        layers = [{"name": n, **_to_data(layer, f"{path}.{n}")} for n, layer in children]
        return {"type": name, "layers": layers}
    data = {"type": name}
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if field.init and not _is_default(field, held):
            data[field.name] = _to_data(held, f"{path}.{field.name}")
    return data


def _is_chain(cls: type) -> bool:
    from dlkit.nn import Chain

    return cls is Chain


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return type(field.default) is type(value) and bool(field.default == value)
    if field.default_factory is not dataclasses.MISSING:
        return bool(field.default_factory() == value)
    return False


def from_data(data: Any) -> Any:
    """The definition that `data` describes: the inverse of `to_data`.

    In a `Chain`, a layer without a `name` is called after its type and counted, as `nn.Chain(*layers)` does.

    Raises:
      ConfigError: an unknown type or field, a field that is missing or of the wrong type, or a value that the class
        refuses. The message gives the path inside the data.
    """
    return _from_data(data, "definition", 0)


def _from_data(data: Any, path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{path[:200]}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list | tuple):
        return tuple(_from_data(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(data))
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: expected a table with a `type`, a list or a plain value, got {show(data)}")
    name = data.get("type")
    if name == "None" and len(data) == 1:
        return None
    cls = table().get(name) if isinstance(name, str) else None
    if cls is None:
        raise ConfigError(f"{path}: expected a `type`, got {show(name)}; {nearest(str(name), table())}")
    fields = {k: v for k, v in data.items() if k != "type"}
    if _is_chain(cls):
        return _chain(fields, path, depth)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for key in fields:
        if key not in known:
            raise ConfigError(f"{path}: {name} has no field {key!r}; {nearest(str(key), known)}")
    values = {k: _from_data(v, f"{path}.{k}", depth + 1) for k, v in fields.items()}
    for key, value in values.items():
        wanted = _hints(cls).get(key, Any)
        if not _fits(value, wanted):
            raise ConfigError(f"{path}.{key}: {name} expects {_say(wanted)}, got {show(value)}")
    return _made(cls, (), values, path)


def _chain(fields: Mapping[str, Any], path: str, depth: int) -> Any:
    from dlkit.nn import Chain, Layer

    if extra := fields.keys() - {"layers"}:
        raise ConfigError(f"{path}: Chain has no field {min(extra)!r}; did you mean 'layers'?")
    entries = fields.get("layers")
    if not isinstance(entries, list | tuple):
        raise ConfigError(f"{path}.layers: expected a list of tables with a `type`, got {show(entries)}")
    unnamed, named = [], {}
    for i, entry in enumerate(entries):
        here = f"{path}.layers[{i}]"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{here}: expected a table with a `type`, got {show(entry)}")
        layer = _from_data({k: v for k, v in entry.items() if k != "name"}, here, depth + 1)
        if not isinstance(layer, Layer):
            raise ConfigError(f"{here}: expected a layer, got {layer!r}")
        if "name" not in entry:
            if named:
                raise ConfigError(f"{here}: a layer without a name stands after one with a name: name it too")
            unnamed.append(layer)
        else:
            name = entry["name"]
            if not isinstance(name, str) or not name.isidentifier() or name in named:
                raise ConfigError(f"{here}.name: expected a new name such as 'head', got {show(name)}")
            named[name] = layer
    return _made(Chain, tuple(unnamed), named, path)


def _made(cls: Any, args: tuple[Any, ...], values: Mapping[str, Any], path: str) -> Any:
    try:
        return cls(*args, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {cls.__name__}: {str(error).removeprefix(cls.__name__).lstrip('.: ')}") from None


@functools.cache
def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):  # an annotation that only a type checker understands
        return {}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value may stand in a field: exact for plain types, generous where the annotation says little."""
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is typing.Annotated:
        return _fits(value, args[0])
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if wanted is None or wanted is types.NoneType:
        return value is None
    if origin is tuple or wanted is tuple:
        if not isinstance(value, tuple) or not args:
            return isinstance(value, tuple)
        if args[-1] is Ellipsis:
            return all(_fits(v, args[0]) for v in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if wanted is bool:
        return isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is str:
        return isinstance(value, str)
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return isinstance(value, wanted)
    base = origin if isinstance(origin, type) else wanted
    if isinstance(base, type) and any(issubclass(cls, base) for cls in table().values()) and base is not object:
        return isinstance(value, base)
    return True


def _say(wanted: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", tuple: "a list"}
    return words.get(wanted) or str(getattr(wanted, "__name__", wanted)).replace("typing.", "")
