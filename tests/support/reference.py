"""Results of heavy reference libraries: computed live where the library is installed, else read from a golden file.

    expected = reference("conv/k3_s2", lambda: {"y": torch.nn.functional.conv2d(...).numpy()})

The function imports the reference library itself and returns a dict of numpy arrays. Everything before the last `/` of
the name is the golden file (`tests/golden/<name>.npz`), the rest the case in it. With the library installed (torch, or
what `needs` names), `pytest --write-golden -n 0 tests/...` writes the files anew; without it, a case that no file holds
fails. DLKIT_NO_TORCH=1 hides all of these libraries.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "golden"
HIDDEN = bool(os.environ.get("DLKIT_NO_TORCH"))
HAVE_TORCH = importlib.util.find_spec("torch") is not None and not HIDDEN
_write: dict[Path, dict[str, np.ndarray]] | None = None  # what a run with --write-golden collects
_cache: dict[Path, dict[str, np.ndarray]] = {}


def start_writing() -> None:
    global _write
    _write = {}


def finish_writing() -> None:
    for path, arrays in (_write or {}).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, **arrays)


def reference(
    name: str, compute: Callable[[], Mapping[str, np.ndarray]], needs: str = "torch"
) -> dict[str, np.ndarray]:
    file, case = name.rsplit("/", 1)
    path = GOLDEN / f"{file}.npz"
    if not HIDDEN and importlib.util.find_spec(needs) is not None:
        result = {key: np.asarray(value) for key, value in compute().items()}
        if _write is not None:
            _write.setdefault(path, {}).update({f"{case}/{key}": value for key, value in result.items()})
        return result
    if path not in _cache:
        with np.load(path, allow_pickle=False) as stored:
            _cache[path] = dict(stored)
    prefix = f"{case}/"
    found = {k[len(prefix) :]: v for k, v in _cache[path].items() if k.startswith(prefix)}
    assert found, f"{path.name} holds no case {case!r}: write it with {needs} installed, pytest --write-golden -n 0"
    return found
