"""What a run shows while it trains: a header, then progress, in place on a terminal and as few lines elsewhere."""

import io
import math
import platform
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax

from dlkit.inspect import summary
from dlkit.train.callbacks import Callback, EarlyStopping
from dlkit.version import __version__
from dlkit.wording import counted, number

if TYPE_CHECKING:
    from dlkit.train.run import Run

__all__ = ["Console", "header"]

PERIOD = 0.5  # seconds between updates
WINDOW = 10  # marks, a period apart, over which the speed is taken
LOG_LINES, EPOCH_LINES, TABLE_LINES = 80, 80, 24  # at most, without a terminal: 200 in all with the rest


def header(run: "Run") -> str:
    """Device, versions, parameter table and batch arithmetic, as text."""
    devices = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    n, size, steps = len(run.loader.dataset), run.loader.batch_size, run.steps_per_epoch
    rest = n - (steps - 1) * size
    last = f", the last of {rest}" if 0 < rest < size else ""
    table = str(summary(run.task.model)).splitlines()
    if len(table) > TABLE_LINES:
        cut = len(table) - TABLE_LINES
        table = [*table[: TABLE_LINES - 6], f"... {cut} more lines: dlkit.inspect.summary(model)", *table[-6:]]
    valid = f", validated on {len(run.valid):,}" if run.valid is not None else ""
    lines = [
        f"device      {len(devices)} x {kinds} ({jax.default_backend()})",
        f"versions    dlkit {__version__}, jax {jax.__version__}, python {platform.python_version()}",
        f"precision   matmul {jax.config.jax_default_matmul_precision or 'default'}",  # pyright: ignore[reportAttributeAccessIssue]
        f"data        {n:,} examples{valid}",
        f"batches     {counted(size, 'example')} each: {counted(steps, 'step')} an epoch{last}",
        f"steps       {run.total_steps:,}: {counted(run.epochs, 'epoch')}"
        + (f", resumed at step {run.step:,} from {run.resumed_from}" if run.resumed_from else ""),
        *([f"run         {run.run_dir}"] if run.run_dir else []),
        "",
        *table,
        "",
    ]
    return "\n".join(lines) + "\n"


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def numbers(row: Mapping[str, Any], *, limit: int = 6) -> str:
    """`loss 0.1234  accuracy 97.10 %  valid/loss 0.1100`: the numbers of a row, short."""
    shown = []
    for key, value in row.items():
        if key in ("epoch", "step") or key.startswith("time/") or not isinstance(value, int | float):
            continue
        shown.append(f"{key.removeprefix('train/')} {number(key, value)}")
    return "  ".join(shown[:limit])


@dataclass(eq=False)
class Console(Callback):
    """Show the run: device, versions, parameters and batch arithmetic first, then where it is and how it does.

    On a terminal one line is rewritten in place, at most twice a second, through rich: epoch, step, loss and the other
    metrics of the last log point, steps per second, time left. Elsewhere (a notebook, a pipe, a file) it is plain
    text, at most 200 lines in all: one for each epoch (of more than 80 epochs, evenly spaced ones and the last), and
    between them log points, evenly spaced and at most two a second. Speed and time left are those of the last seconds,
    without the first step, which is compiled.

    Args:
      stream: where to write; None for standard output.
      show_header: whether to begin with the header.

    Raises:
      ImportError: the stream is a terminal and rich is missing.
    """

    stream: Any = None
    show_header: bool = True
    _live: Any = field(default=None, init=False, repr=False)
    _row: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _shown: float = field(default=0.0, init=False, repr=False)
    _begun: tuple[float, int] = field(default=(0.0, 0), init=False, repr=False)
    _next_log: int = field(default=0, init=False, repr=False)
    _marks: Any = field(default_factory=lambda: deque(maxlen=WINDOW), init=False, repr=False)

    def on_start(self, run: "Run") -> None:
        self._out = self.stream if self.stream is not None else sys.stdout
        self._row, self._shown = {}, 0.0
        self._begun = (time.perf_counter(), run.step)
        self._next_log = 0
        self._marks.clear()
        terminal = bool(getattr(self._out, "isatty", io.StringIO().isatty)())
        if self.show_header:
            self._write(header(run))
        if terminal:
            try:
                from rich.console import Console as Terminal
                from rich.live import Live
            except ImportError as error:
                raise ImportError('progress on a terminal needs rich: pip install -e ".[train]"') from error
            self._live = Live(console=Terminal(file=self._out), auto_refresh=False, transient=True)
            self._live.start()

    def on_step(self, run: "Run") -> None:
        now = time.perf_counter()
        if self._live is not None and now - self._shown >= PERIOD:
            self._shown = now
            self._live.update(self.line(run), refresh=True)
        if not self._marks or now - self._marks[-1][0] >= PERIOD:
            self._marks.append((now, run.step))

    def on_log(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._row = dict(row)
        if self._live is not None or run.step % run.steps_per_epoch == 0:  # the epoch's row comes next, and says more
            return
        now = time.perf_counter()
        if run.step >= self._next_log and now - self._shown >= PERIOD:
            self._shown = now
            self._next_log = run.step + -(-(run.total_steps - self._begun[1]) // LOG_LINES)
            self._write(self.line(run) + "\n")

    def on_epoch(self, run: "Run", row: Mapping[str, Any]) -> None:
        planned = -(-run.total_steps // run.steps_per_epoch)
        last = run.epoch >= planned or run.stopped_because is not None
        if self._live is None and not last and run.epoch % -(-planned // EPOCH_LINES):
            return
        now = time.perf_counter()
        if self._live is None:
            self._shown = now
        else:  # the progress line stands under the row, as it is now: epochs may be shorter than its period
            self._live.update(self.line(run))
        self._write(f"epoch {row['epoch']}/{run.epochs}  {numbers(row)}  {clock(now - self._begun[0])}\n")

    def on_end(self, run: "Run", result: Any) -> None:
        self._close()
        seconds = time.perf_counter() - self._begun[0]
        self._write(f"ended after {counted(run.step, 'step')} and {clock(seconds)}: {result.stopped_because}\n")
        for callback in run.callbacks:
            if isinstance(callback, EarlyStopping) and callback.restored_epoch is not None:
                best = f"{callback.monitor} {number(callback.monitor, callback.best)}"
                self._write(f"the weights are those after epoch {callback.restored_epoch}, the best ({best})\n")

    def on_close(self, run: "Run") -> None:
        self._close()

    def line(self, run: "Run") -> str:
        """The progress line: where the run is, the last numbers, the speed and the time left."""
        since, step = self._marks[0] if self._marks else (math.inf, run.step)
        seconds, done = time.perf_counter() - since, run.step - step
        speed = done / seconds if seconds > 0 else 0.0
        left = clock((run.total_steps - run.step) / speed) if speed else "?"
        epoch = min(run.epochs, run.epoch + 1)
        values = numbers(self._row, limit=4)
        return (
            f"epoch {epoch}/{run.epochs}  step {run.step:,}/{run.total_steps:,}  "
            f"{values + '  ' if values else ''}{f'{speed:,.0f}' if speed else '?'} steps/s  {left} left"
        )

    def _write(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text.rstrip("\n"), markup=False, highlight=False)
            return
        self._out.write(text)
        self._out.flush()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
