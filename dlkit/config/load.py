"""From a TOML file and `key.path=value` overrides to a `Config`; whatever is wrong becomes one `ConfigError`."""

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlkit.config.errors import ConfigError
from dlkit.config.explain import explain, line_of, wants_string, where
from dlkit.config.schema import Config

__all__ = ["load", "parse"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_VALUES = 50_000
# A dotted key a.b.c...: tomllib takes time that grows with the square of its length.
_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){32}""")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in the TOML file `path`, with `overrides` such as `"train.epochs=3"` on top.

    Nothing in the file is run, imported or looked up in the environment.

    Raises:
      ConfigError: the file cannot be read, is no TOML, or says something that is not in the schema. The message names
        the file and line, the key, what was expected and given, and the nearest valid key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the config {str(path)!r}: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES // 1024} KiB, which no config is")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text (byte {error.start})") from None
    return parse(text, overrides, source=str(path))


def parse(text: str, overrides: Sequence[str] = (), *, source: str = "config") -> Config:
    """As `load`, from the text itself; `source` is what the messages call it."""
    data = _toml(text, source)
    given: dict[tuple[str | int, ...], str] = {}
    for override in overrides:
        given[_override(data, override)] = override
    try:
        return _validated(data, given)
    except ValidationError as error:
        lines = []
        for path, sentence in explain(error, Config, data)[:8]:
            if any(path[: len(o)] == o or o[: len(path)] == path for o in given):
                place = "command line"
            else:
                line = line_of(text, path)
                place = source if line is None else f"{source}:{line}"
            section = f" in [{where(path[:-1])}]" if len(path) > 1 else ""
            lines.append(f"{place}: {where(path)}: {sentence}{section if 'unknown key' in sentence else ''}")
        raise ConfigError("\n".join(lines)) from None


def _validated(data: dict[str, Any], given: Mapping[tuple[str | int, ...], str]) -> Config:
    """The config; an override such as `run.name=2024` is text where text is wanted, though TOML reads a number."""
    try:
        return Config.model_validate(_tuples(data))
    except ValidationError as error:
        meant = [path for path in wants_string(error, data) if path in given]
        if not meant:
            raise
    for path in meant:
        node: Any = data
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = given[path].partition("=")[2].strip()
    return Config.model_validate(_tuples(data))


def _toml(text: str, source: str) -> dict[str, Any]:
    if _LONG_KEY.search(text):
        raise ConfigError(f"{source}: a dotted key of more than 32 parts")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f"{source}:{found[1]}" if found else source
        raise ConfigError(f"{place}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # a number of thousands of digits, a date that does not exist
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    _bounded(data, source)
    return data


def _bounded(data: Any, source: str) -> None:
    level, seen = [data], 0
    for _ in range(MAX_DEPTH):
        level = [v for node in level for v in (node.values() if isinstance(node, Mapping) else node)]
        seen += len(level)
        level = [v for v in level if isinstance(v, Mapping | list)]
        if seen > MAX_VALUES:
            raise ConfigError(f"{source}: more than {MAX_VALUES} values")
        if not level:
            return
    raise ConfigError(f"{source}: nested more than {MAX_DEPTH} levels deep")


def _override(data: dict[str, Any], override: str) -> tuple[str | int, ...]:
    key, equals, value = override.partition("=")
    parts: list[str] = key.strip().split(".")
    if not equals or not all(re.fullmatch(r"[\w-]{1,100}", part) for part in parts) or len(parts) > MAX_DEPTH:
        raise ConfigError(f"command line: expected key.path=value, such as train.epochs=3, got {override[:100]!r}")
    node: Any = data
    path: list[str | int] = []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        step: Any = part
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    f"command line: {where(tuple(path))} has {len(node)} entries, 0 to {len(node) - 1}; got {part!r}"
                )
            step = int(part)
        elif not isinstance(node, dict):
            raise ConfigError(f"command line: {key}: {where(tuple(path))} is a value, not a section")
        path.append(step)
        if last:
            node[step] = _value(value.strip())
        elif isinstance(node, dict):
            node = node.setdefault(step, {})
        else:
            node = node[step]
    return tuple(path)


def _value(text: str) -> Any:
    """The override's value as TOML; what is not TOML is a string as it stands."""
    try:
        parsed = _toml(f"value = {text}", "command line")
    except ConfigError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _tuples(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {k: _tuples(v) for k, v in data.items()}
    if isinstance(data, list):
        return tuple(_tuples(v) for v in data)
    return copy.copy(data)
