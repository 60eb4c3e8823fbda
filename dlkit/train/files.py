"""Directories that are complete or absent: `step_00000100/` with its files and `manifest.json`. Standard library only.

A step is written under a temporary name beside its place, every file and the directory are flushed to the disk, and
one rename makes it appear. The manifest holds the SHA-256 and the size of each file, and its own. Removing is a rename
first, too. So a process that is killed at any moment leaves whole steps, and names that start with a dot, which the
next save clears away.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["CheckpointError", "CheckpointWarning", "clean", "read_manifest", "read_step", "remove_step", "steps"]

MANIFEST = "manifest.json"
NAME = re.compile(r"step_(\d{8,})\Z")
REPLACED = re.compile(r"\.replaced_step_(\d{8,})\Z")
MAX_MANIFEST = 256 << 20


class CheckpointError(Exception):
    """A checkpoint cannot be written, read or used. The message names the step, the file and what is wrong."""


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over, or could not be removed."""


def canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass") + b"\n"


def strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become `{"float": "nan"}`, and `inf` and `-inf`."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    if isinstance(value, dict):
        return {key: strict(v) for key, v in value.items()}
    return [strict(v) for v in value] if isinstance(value, list | tuple) else value


def loose(value: Any) -> Any:
    """What `strict` was given. The `NaN` that earlier versions wrote is read, too."""
    if isinstance(value, dict):
        if value.keys() == {"float"} and value["float"] in ("nan", "inf", "-inf"):
            return float(value["float"])
        return {key: loose(v) for key, v in value.items()}
    return [loose(v) for v in value] if isinstance(value, list) else value


def steps(directory: str | Path) -> dict[int, Path]:
    """The steps in a directory, by number, oldest first; whether they are whole is not looked at."""
    found: dict[int, Path] = {}
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for pattern in (REPLACED, NAME):  # a step that was being replaced counts where its successor did not appear
        for name in names:
            if match := pattern.match(name):
                found[int(match[1])] = Path(directory) / name
    return dict(sorted(found.items()))


def write_step(directory: str | Path, step: int, files: Mapping[str, bytes], about: Mapping[str, Any]) -> Path:
    """Write one step; when this returns, it is on the disk, whole.

    Raises:
      CheckpointError: the system refused; earlier steps are as they were.
    """
    root, name = Path(directory), f"step_{step:08d}"
    place, temporary = root / name, root / f".tmp_{name}_{os.urandom(4).hex()}"
    try:
        _make_directories(root)
        clean(root)
        os.mkdir(temporary)
        entries = {}
        for file, content in files.items():
            _write(temporary / file, content)
            entries[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        inner = {"files": entries, "step": step, **about}
        digest = hashlib.sha256(canonical(inner)).hexdigest()
        _write(temporary / MANIFEST, canonical({"manifest": inner, "sha256": digest}))
        _flush_directory(temporary)
        if os.path.lexists(place):
            os.rename(place, root / f".replaced_{name}")
        os.rename(temporary, place)
        _flush_directory(root)
    except OSError as error:
        clean(root)
        raise CheckpointError(f"saving step {step} in {root} failed: {error}") from error
    clean(root)
    return place


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a step, its own digest verified; the other files are not read.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    path = Path(path)
    raw = _read(path, MANIFEST, limit=MAX_MANIFEST)
    try:
        outer = json.loads(raw)
        inner, digest = outer["manifest"], outer["sha256"]
        whole = hashlib.sha256(canonical(inner)).hexdigest() == digest and canonical(outer) == raw
        entries = {file: (entry["bytes"], entry["sha256"]) for file, entry in inner["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: {MANIFEST} in {path} is damaged: {error}") from None
    match = NAME.match(path.name) or REPLACED.match(path.name)
    if not whole:
        raise CheckpointError(f"{path.name}: {MANIFEST} in {path} is damaged: its SHA-256 is not the one that it holds")
    if match and int(match[1]) != inner.get("step"):
        raise CheckpointError(f"{path.name}: {MANIFEST} in {path} is that of step {inner.get('step')}")
    return inner | {"files": entries}


def read_step(path: str | Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the files of a step, every byte verified before any is used.

    Raises:
      CheckpointError: a file is missing, damaged, of another size, or one too many.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}: expected the directory of a checkpoint, such as step_00000100")
    manifest = read_manifest(path)
    try:
        found = set(os.listdir(path))
    except OSError as error:
        raise CheckpointError(f"{path.name}: {path} cannot be read: {error}") from None
    if extra := found - manifest["files"].keys() - {MANIFEST}:
        raise CheckpointError(
            f"{path.name}: {sorted(extra)[0]} in {path} is one file too many: it was not saved with it"
        )
    files = {}
    for file, (size, digest) in manifest["files"].items():
        content = _read(path, file, limit=size)
        if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
            got = f"{len(content)} bytes" if len(content) != size else "other bytes of that number"
            raise CheckpointError(f"{path.name}: {file} in {path} is damaged: saved were {size} bytes, found {got}")
        files[file] = content
    return manifest, files


def remove_step(path: str | Path) -> None:
    """Remove a step: first its name, at once, then its files."""
    path = Path(path)
    trash = path.with_name(f".trash_{path.name.lstrip('.')}_{os.urandom(4).hex()}")
    try:
        os.rename(path, trash)
        _remove(trash)
    except OSError as error:
        warnings.warn(f"the old checkpoint {path} could not be removed: {error}", CheckpointWarning, stacklevel=2)


def clean(directory: str | Path) -> None:
    """Finish what a killed process left: put a replaced step back if its successor is missing, remove the rest.

    What the system refuses to remove stays: it is in nobody's way.
    """
    root = Path(directory)
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            match = REPLACED.match(name)
            if match and not os.path.lexists(root / f"step_{match[1]}"):
                with contextlib.suppress(OSError):
                    os.rename(root / name, root / f"step_{match[1]}")
            elif match or name.startswith((".tmp_step_", ".trash_step_", ".trash_replaced_step_")):
                _remove(root / name, ignore=True)


def _make_directories(path: Path) -> None:
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = path.parent
    for one in reversed(missing):
        os.mkdir(one)
        _flush_directory(one.parent)


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_directory(path: Path) -> None:
    if os.name != "posix":  # elsewhere a directory cannot be opened, and a rename is kept by the file system
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path, file: str, limit: int) -> bytes:
    if "/" in file or "\\" in file or file in ("", ".", ".."):
        raise CheckpointError(f"{path.name}: {MANIFEST} in {path} names the file {file!r}, which is no plain name")
    try:
        with open(path / file, "rb") as handle:
            return handle.read(limit + 1)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: {file} in {path} cannot be read: {error}") from None


def _remove(path: Path, *, ignore: bool = False) -> None:
    """Remove a directory of plain files. Links are removed, never followed."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            for name in os.listdir(path):
                _remove(path / name)
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)
    except OSError:
        if not ignore:
            raise
