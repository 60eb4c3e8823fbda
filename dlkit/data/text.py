"""Text to learn from: tiny-shakespeare, Python's own source, and windows of equal length."""

import os
import sysconfig
from pathlib import Path

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.places import find

__all__ = ["python_source", "tiny_shakespeare", "windows"]

LARGEST = 1 << 28  # bytes of one text: it is held in memory, four bytes a token


def tiny_shakespeare(root: str | os.PathLike[str] | None = None) -> str:
    """The plays of tiny-shakespeare: 1,115,394 characters, 65 different ones (Karpathy, char-rnn, 2015).

    Read from `input.txt` in `root`, `$DLKIT_DATA/tinyshakespeare` or `$DLKIT_DATA`. Nothing is downloaded.

    Raises:
      FileNotFoundError: there is no such file; the message lists the places.
    """
    what, fix = "tiny-shakespeare's input.txt", "Put it there, or give root="
    return read_text(find("input.txt", "tinyshakespeare", root, what=what, fix=fix))


def python_source(characters: int = 1_000_000) -> str:
    """The first `characters` of the source of Python's standard library, module after module by name.

    A text that is at hand wherever Python is; it differs between versions. Modules with other characters than ASCII are
    left out, packages too.

    >>> len(python_source(1000))
    1000

    Raises:
      FileNotFoundError: this Python has no source beside it.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts, size = [], 0
    for path in sorted(folder.glob("[a-z]*.py")):
        raw = path.read_bytes()
        if not raw.isascii():
            continue
        parts.append(raw.decode("ascii").replace("\r\n", "\n"))
        size += len(parts[-1])
        if size >= characters:
            break
    if not parts:
        raise FileNotFoundError(f"there is no source of Python's standard library in {folder}")
    return "".join(parts)[:characters]


def read_text(path: Path) -> str:
    """A file of UTF-8, line ends as `\\n`.

    Raises:
      FileNotFoundError: there is none. ValueError: it is empty, too large, or no UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB: a text is held in memory")
    try:
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text (byte {error.start})") from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def windows(ids: np.ndarray, length: int, stride: int | None = None, *, name: str | None = None) -> Arrays:
    """Pieces of a text: x int32 `[n, length]`, and y `[n, length]`, the token after each.

    Args:
      ids: the text `[N]`.
      stride: from the start of one window to the next, `length` by default: each token is a target once. A smaller one
        shows a token in several places, and takes `length / stride` times the memory.
      name: that of the dataset.

    What does not fill the last window is left out. The windows are rows like any others: `Loader` orders them by
    (seed, epoch, index).

    >>> pieces = windows(np.arange(8), 3)
    >>> pieces.x.tolist(), pieces.y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])

    Raises:
      ValueError: a length or a stride below 1, or a text that is shorter than one window and its last target.
    """
    stride = length if stride is None else stride
    if length < 1 or stride < 1:
        raise ValueError(f"windows got length={length} and stride={stride}: expected at least 1")
    ids = np.asarray(ids, np.int32)
    if ids.ndim != 1 or len(ids) <= length:
        raise ValueError(
            f"windows got a text of shape {list(ids.shape)}: expected at least {length + 1} tokens, a window of "
            f"{length} and the one after"
        )
    seen = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::stride]
    return Arrays(name=name, x=np.ascontiguousarray(seen[:, :-1]), y=np.ascontiguousarray(seen[:, 1:]))
