"""Where a dataset's files are looked for."""

import os
from pathlib import Path

__all__ = []


def places(folder: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """`root`, where it is given, then `$DLKIT_DATA/folder` and `$DLKIT_DATA`."""
    data = os.environ.get("DLKIT_DATA")
    return [*([] if root is None else [Path(root)]), *([Path(data) / folder, Path(data)] if data else [])]


def find(name: str, folder: str, root: str | os.PathLike[str] | None = None, *, what: str = "", fix: str = "") -> Path:
    """The file `name` in the first of `places(folder, root)` that has it.

    Args:
      what: how a message calls the file, by default its name.
      fix: what to do about it, the message's last line.

    Raises:
      FileNotFoundError: no place has it; the message lists them.
    """
    looked = places(folder, root)
    for place in looked:
        if (place / name).is_file():
            return place / name
    shown = "".join(f"\n  {place}" for place in looked) or " no folder: DLKIT_DATA is not set"
    raise FileNotFoundError(f"{what or name} was looked for in{shown}{fix and chr(10) + fix}")
