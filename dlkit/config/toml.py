"""TOML text from plain data: small, exact, and read back by `tomllib` as the same values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["dumps", "inline"]

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def dumps(data: Mapping[str, Any]) -> str:
    """`data` as a TOML document; None has no form in TOML, so keys that hold it are left out.

    >>> print(dumps({"seed": 0, "optimizer": {"name": "adam", "schedule": {"name": "cosine"}}}), end="")
    seed = 0
    <BLANKLINE>
    [optimizer]
    name = "adam"
    <BLANKLINE>
    [optimizer.schedule]
    name = "cosine"

    Raises:
      TypeError: a value is not a string, a number, a boolean, a list or a mapping of these.
    """
    return "\n".join(_table(data, ())).lstrip("\n") + "\n"


def inline(data: Mapping[str, Any]) -> str:
    """The same on one line, a table in braces.

    >>> inline({"seed": 0, "schedule": {"name": "cosine"}, "metrics": ({"name": "r2"},)})
    'seed = 0, schedule = { name = "cosine" }, metrics = [{ name = "r2" }]'
    """
    pairs = ((key, _value(value, ", ".join)) for key, value in data.items() if value is not None)
    return ", ".join(f"{_key(key)} = {value}" for key, value in pairs)


def _lines(items: Iterable[str]) -> str:
    return "\n" + "".join(f"  {item},\n" for item in items)


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in data.items() if v is not None and not isinstance(v, Mapping)}
    tables = {k: v for k, v in data.items() if isinstance(v, Mapping)}
    lines = []
    if path and (plain or not tables):
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for key, value in tables.items():
        lines += _table(value, (*path, key))
    return lines


def _key(key: str) -> str:
    return key if key and set(key) <= _BARE else _string(key)


def _string(text: str) -> str:
    shown = "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c) for c in text)
    return f'"{shown}"'


def _value(value: Any, joined: Callable[[Iterable[str]], str] = _lines) -> str:
    """`joined`: how the tables in a list stand."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v, joined)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        tables = any(isinstance(v, Mapping) for v in value)
        return f"[{(joined if tables else ', '.join)(_value(v, joined) for v in value)}]"
    raise TypeError(f"TOML has no form for {value!r} of type {type(value).__name__}")
