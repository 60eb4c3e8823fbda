"""The resolved configuration beside a run: every value spelled out, defaults included, so that it repeats the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlkit.config.schema import Config
from dlkit.config.toml import dumps, inline

__all__ = ["brief", "diff", "dump", "save"]

HEAD = "# The resolved configuration of this run, defaults included"
REPEATS = f"{HEAD}: `dlkit train` with this file repeats it.\n\n"
RESUMED = f"{HEAD}.\n# It went on with changed values, so training from this file need not repeat it:\n"
CHANGE = "#   "


def dump(config: Config) -> str:
    """The configuration as TOML, with every default; `dlkit.config.parse` reads it back as an equal `Config`."""
    return dumps(config.model_dump(mode="python", exclude_none=True))


def brief(config: Config) -> list[str]:
    """The same values, one line a section: `[data] name = "digits", valid = 0.1, test = 0.2`."""
    return _brief(config.model_dump(mode="python", exclude_none=True), "")


def _brief(data: Mapping[str, Any], path: str) -> list[str]:
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping)}
    name = {"name": plain["name"]} if "name" in plain else {}  # goes first
    lines = [f"[{path}] {inline(name | plain)}" if path else inline(plain)] if plain else []
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += _brief(value, f"{path}.{key}" if path else key)
    return lines


def save(config: Config, path: str | Path, changes: Sequence[str] = ()) -> Path:
    """Write `dump(config)` to `path`; its folder is made where it is missing.

    `changes` are what the run went on with (lines of `diff`): the head of the file names them, after those that it
    named before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = REPEATS
    if changes:
        before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        named = [line for line in before if line.startswith(CHANGE)] + [f"{CHANGE}{line}" for line in changes]
        head = RESUMED + "\n".join(named) + "\n\n"
    path.write_text(head + dump(config), encoding="utf-8")
    return path


def diff(old: Config, new: Config) -> list[str]:
    """What changed, one line a key: `train.epochs: 10 -> 20`; a key that is not set is `unset`."""
    before, after = (_flat(c.model_dump(mode="python", exclude_none=True)) for c in (old, new))
    changed = [k for k in dict.fromkeys([*before, *after]) if before.get(k) != after.get(k)]
    return [f"{key}: {_show(before.get(key))} -> {_show(after.get(key))}" for key in changed]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for key, value in data.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}


def _show(value: Any) -> str:
    return "unset" if value is None else repr(list(value) if isinstance(value, tuple) else value)
