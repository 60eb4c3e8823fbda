"""pydantic's errors as sentences: which key of which section, what was expected and given, what was perhaps meant."""

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from dlkit.config.errors import choice, nearest
from dlkit.config.parts import FOLDER_PATTERN, NAME_PATTERN

__all__ = ["explain", "line_of", "wants_string", "where"]

Path = tuple[str | int, ...]

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "finite_number": "a finite number",
}
ALLOWED = {
    NAME_PATTERN: "letters (a-z, A-Z), digits, '_', '-' and '.', the first a letter, a digit or '_'",
    FOLDER_PATTERN: "all but control characters such as line breaks",
}
_GIVEN = {bool: "boolean", int: "integer", float: "float", str: "string", list: "list", tuple: "list", dict: "table"}


def explain(error: ValidationError, model: type[BaseModel], data: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The path and the sentence of each thing that is wrong, without repetitions."""
    found: dict[Path, tuple[bool, str]] = {}
    for one in error.errors(include_url=False):
        path = _path(one["loc"], data)
        word = one.get("ctx", {}).get("discriminator", "").strip("'")
        if one["type"] == "union_tag_invalid" and _holds(_at(path, data), word):
            path = (*path, word)  # pydantic blames the table, but it is the word in it that is not known
        typed = one["type"] in _WANTED
        # A union reports each branch: what is out of bounds says more than what is of another type, and of the types
        # the last branch is the widest.
        if path not in found or found[path][0] or not typed:
            found[path] = typed, _sentence(one, path, model, data)
    meant = {(*path[:-1], m[1]) for path, (_, s) in found.items() if (m := re.search(r"did you mean '(\w+)'", s))}
    short = {path for path in found if any(p[: len(path)] == path and len(p) > len(path) for p in found)}
    skipped = {p for p in found if (p in meant and found[p][1].startswith("missing")) or p in short}
    return [(path, sentence) for path, (_, sentence) in found.items() if path not in skipped]


def wants_string(error: ValidationError, data: Mapping[str, Any]) -> set[Path]:
    """The paths of values that are no strings where strings are wanted."""
    return {_path(one["loc"], data) for one in error.errors(include_url=False) if one["type"] == "string_type"}


def _path(loc: Path, data: Any) -> Path:
    # Pydantic puts the chosen branch of a union into the location: those words are no keys of the file.
    path: list[str | int] = []
    for i, part in enumerate(loc):
        if _holds(data, part):
            data = data[part]
        elif not (isinstance(data, Mapping) and i == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def _at(path: Path, data: Any) -> Any:
    for part in path:
        data = data[part] if _holds(data, part) else None
    return data


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)


def _sentence(one: Any, path: Path, model: type[BaseModel], data: Mapping[str, Any]) -> str:
    kind, given, context = one["type"], one["input"], one.get("ctx", {})
    if kind == "extra_forbidden":
        keys = list(_keys(path[:-1], model, data))
        elsewhere = [p for p in _everywhere(model) if p.split(".")[-1] == path[-1] and p.count(".") != len(path) - 1]
        hint = nearest(str(path[-1]), keys)
        if elsewhere and not hint.startswith("did"):
            hint = f"there is one at {elsewhere[0]}; {hint}"
        return f"unknown key; {hint}"
    if kind == "missing":
        return "missing: this key has no default"
    if kind == "union_tag_not_found":
        return f"expected a table with `name`, one of {context.get('expected_tags', '').replace(chr(39), '')}"
    if kind == "union_tag_invalid":
        known = re.findall(r"'([^']+)'", context.get("expected_tags", ""))
        tag = context.get("tag", given)
        return choice(known, repr(tag), str(tag))
    if kind == "literal_error":
        known = re.findall(r"'([^']+)'", str(context.get("expected", "")))
        return choice(known, show(given), str(given))
    if kind in _WANTED:
        return f"expected {_WANTED[kind]}, got {show(given)}"
    if kind == "string_pattern_mismatch":
        allowed = ALLOWED.get(context.get("pattern", ""), f"what fits {context.get('pattern')}")
        return f"got {show(given)}, which has a character that is not allowed here: allowed are {allowed}"
    if kind in ("too_short", "too_long"):
        least = context.get("min_length", context.get("max_length"))
        return f"expected {'at least' if kind == 'too_short' else 'at most'} {least} entries, got {show(given)}"
    message = one["msg"].replace("Input should be", "expected a value").replace("Value error, ", "")
    return f"{message}, got {show(given)}"


def show(value: Any) -> str:
    """A value with its TOML type, cut where it is long."""
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    if isinstance(value, bool):
        text = str(value).lower()
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"the {_GIVEN.get(type(value), type(value).__name__)} {text}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType, tuple):
        for arg in get_args(annotation):
            yield from _models(arg)


def _section(path: Path, model: type[BaseModel], data: Any) -> list[type[BaseModel]]:
    """The records that may stand at `path`: one, or all of a union whose name is not known."""
    candidates = [model]
    for part in path:
        data = data[part] if _holds(data, part) else None
        if not isinstance(part, int):
            fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
            candidates = [m for f in fields for m in _models(f.annotation)]
        if isinstance(data, Mapping) and "name" in data:
            named = [
                c
                for c in candidates
                if "name" in c.model_fields and data["name"] in get_args(c.model_fields["name"].annotation)
            ]
            candidates = named or candidates
    return candidates


def _keys(path: Path, model: type[BaseModel], data: Any) -> Iterator[str]:
    yield from dict.fromkeys(key for c in _section(path, model, data) for key in c.model_fields)


def _everywhere(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield f"{prefix}{key}"
        for inner in _models(field.annotation):
            yield from _everywhere(inner, f"{prefix}{key}.")


def where(path: Path) -> str:
    """`optimizer.schedule.name`, `metrics[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part)[:100]}" if text else str(part)[:100]
    return text or "the whole file"


def line_of(text: str, path: Path) -> int | None:
    """The line of the file that sets the key at `path`, or that opens the section it is missing from."""
    section: tuple[str, ...] = ()
    opened = None
    keys = tuple(str(p) for p in path if not isinstance(p, int))
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if header := re.match(r"\[+\s*([\w.\-\"' ]+?)\s*\]+", stripped):
            section = tuple(part.strip(" \"'") for part in header[1].split("."))
            if keys[: len(section)] == section:
                opened = number
        elif match := re.match(r"([\w.\-\"' ]+?)\s*=", stripped):
            whole = (*section, *(part.strip(" \"'") for part in match[1].split(".")))
            if whole == keys[: len(whole)]:
                return number
    return opened
