"""Ctrl-C and SIGTERM while training: finish the step, save, and say how to go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Interrupted", "Signals", "catch_signals"]


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after its state was saved.

    Call `fit` again with the same arguments to go on: the result has the bits of a run that was never stopped. It is a
    `KeyboardInterrupt`, so that `except Exception` does not swallow it.
    """

    def __init__(self, signum: int, step: int, path: Path) -> None:
        self.signal = signal.Signals(signum)
        self.step = step
        self.path = path
        super().__init__(
            f"stopped by {self.signal.name} after step {step}; saved as {path}: call fit again with the same "
            f"arguments to go on"
        )

    @property
    def exit_code(self) -> int:
        """What a process that ends because of this returns: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + int(self.signal)


class Signals:
    """Which signal came, if any."""

    def __init__(self) -> None:
        self.received: int | None = None


@contextmanager
def catch_signals(active: bool) -> Iterator[Signals]:
    """Note the first SIGINT or SIGTERM instead of dying of it; on a second one do what the process did before.

    The handlers from before are back when the block ends. Outside of the main thread, and with `active=False`, nothing
    is touched.
    """
    noted = Signals()
    if not active or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before: dict[int, Any] = {}

    def give_back() -> None:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def note(signum: int, frame: Any) -> None:
        if noted.received is None:
            noted.received = signum
            return
        give_back()
        signal.raise_signal(signum)

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, note)
        yield noted
    finally:
        give_back()
