"""One run in a directory at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked"]

LOCK = ".lock"


@contextlib.contextmanager
def locked(run_dir: Path | None) -> Iterator[None]:
    """Hold `run_dir/.lock` for the length of the block: two runs in one directory would clear away each other's files.

    The lock is that of the system (`flock`): it ends with the process, however that ends, and the file stays. Without
    `fcntl` (Windows), or on a file system that knows no locks, nothing is locked.

    Raises:
      NotADirectoryError: the place is a file.
      BlockingIOError: another run holds it; the message has its process id.
    """
    if run_dir is None:
        yield
        return
    if run_dir.exists() and not run_dir.is_dir():
        raise NotADirectoryError(
            f"run_dir {run_dir} is a file: expected a directory, or a place where there is nothing"
        )
    handle = _acquire(run_dir)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)  # and with it the lock


def _acquire(run_dir: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return None  # nothing can be written here, so nothing can be destroyed: saving will say so
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise BlockingIOError(
            f"run_dir {run_dir} is in use by the process with pid {holder}: wait for it, or choose another run_dir"
        ) from None
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle
