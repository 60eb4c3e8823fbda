"""The resolved configuration beside a run: every value spelled out, defaults included, so that it repeats the run."""

from pathlib import Path
from typing import Any

from dlkit.config.schema import Config
from dlkit.config.toml import dumps

__all__ = ["diff", "dump", "save"]

HEAD = "# The resolved configuration of this run, defaults included: `dlkit train` with this file repeats it.\n\n"


def dump(config: Config) -> str:
    """The configuration as TOML, with every default; `dlkit.config.parse` reads it back as an equal `Config`."""
    return dumps(config.model_dump(mode="python", exclude_none=True))


def save(config: Config, path: str | Path) -> Path:
    """Write `dump(config)` to `path`; its folder is made where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + dump(config), encoding="utf-8")
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
