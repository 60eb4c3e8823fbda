"""Where a run lies, and what is in it."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlkit.config import Config, load
from dlkit.config.errors import ConfigError
from dlkit.config.resolved import HEAD

__all__ = ["is_run", "locate", "read_config", "restored", "run_folder"]

RESOLVED = "config.toml"


def read_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a file, or that of the run in a directory."""
    place = Path(path)
    return load(place / RESOLVED if place.is_dir() else place, overrides)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run: the resolved config that `dlkit train` writes."""
    try:
        with (folder / RESOLVED).open(encoding="utf-8", errors="replace") as file:
            return file.read(len(HEAD)) == HEAD
    except OSError:
        return False


def run_folder(config: Config, path: str, given: str | None = None, overrides: Sequence[str] = ()) -> Path:
    """Where the run is saved.

    As the command line says (`--run-dir`, `run.name=`), else where the run lies whose folder or resolved config `path`
    is, else as the config says, else after the file's name.
    """
    if given is not None:
        return Path(given)
    place = Path(path)
    if not any(override.strip().startswith("run.") for override in overrides):
        if place.is_dir():
            return place
        if place.name == RESOLVED and is_run(place.parent):
            return place.parent
    return Path(config.run.directory) / (config.run.name or place.stem)


def locate(run: str) -> tuple[Path, Config]:
    """The directory and the configuration of a run, from its directory or from the config that made it.

    Raises:
      ConfigError: there is no run.
    """
    place = Path(run)
    if not place.exists() and place.suffix != ".toml":
        raise ConfigError(f"there is no run {run!r}: {_runs_nearby(place)}")
    folder = place if place.is_dir() else run_folder(load(place), run)
    if not (folder / RESOLVED).is_file():
        hint = f"train it with `dlkit train {run}`" if place.is_file() else "expected the directory of a run, runs/NAME"
        raise ConfigError(f"there is no run in {str(folder)!r}: {hint}")
    return folder, load(folder / RESOLVED)


def _runs_nearby(place: Path) -> str:
    """What runs there are in the folder where this one was looked for."""
    try:
        found = sorted(other.name for other in place.parent.iterdir() if is_run(other))
    except OSError:
        found = []
    if not found:
        return "expected the directory of a run, runs/NAME, that `dlkit train CONFIG` has made, or that config"
    shown = ", ".join(str(place.parent / name) for name in found[:8]) + (", ..." if len(found) > 8 else "")
    near = difflib.get_close_matches(place.name, found, n=1)
    return f"did you mean {str(place.parent / near[0])!r}?" if near else f"here are {shown}"


def restored(folder: Path, model: Any) -> tuple[Any, Any, str]:
    """`(params, state, which)`: the final model of a run; of an unfinished one, that of its newest checkpoint.

    Raises:
      CheckpointError: the run has not saved anything, or what is saved is damaged or that of another model.
    """
    from dlkit import train

    if train.latest(folder / "model") is not None:
        return *train.load_model(folder, model), f"{folder}: the final model"
    return *train.load_model(folder, model, which="last"), f"{folder}: the newest checkpoint (the run is not finished)"
