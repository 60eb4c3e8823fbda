"""Writing the rows of a run to files: JSON lines, and events for TensorBoard."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.train.callbacks import Callback
from dlkit.train.files import CheckpointWarning

if TYPE_CHECKING:
    from dlkit.train.run import Run

__all__ = ["JsonLines", "TensorBoard", "read_rows"]


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become the strings `nan`, `inf` and `-inf`."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [_strict(v) for v in value] if isinstance(value, list | tuple) else value


def read_rows(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; of one kind, `steps` or `epoch`, or all. A last line cut short is left out."""
    rows = []
    with open(path, encoding="utf-8") as handle:
        for line in handle:
            if line.endswith("\n"):
                row = json.loads(line, parse_constant=float)
                rows.append({k: float(v) if v in ("nan", "inf", "-inf") else v for k, v in row.items()})
    return [row for row in rows if kind is None or row.get("kind") == kind]


@dataclass(eq=False)
class JsonLines(Callback):
    """One JSON object a line in `run_dir/metrics.jsonl`: `kind` is `steps` for a log point, `epoch` for an epoch.

    After a run is resumed each step stands there once and none is missing: lines that are newer than the checkpoint are
    cut off and written again, so the file equals that of a run that was never stopped, byte by byte. `times=True` adds
    the keys in `time/` (steps per second, seconds), which no two runs share.

    `fit(run_dir=...)` adds one if there is none among the callbacks.
    """

    path: str | Path | None = None
    times: bool = False
    _file: Any = field(default=None, init=False, repr=False)
    _end: int = field(default=0, init=False, repr=False)

    def on_start(self, run: "Run") -> None:
        if self.path is None and run.run_dir is None:
            raise ValueError("JsonLines needs a place: JsonLines(path), or fit(..., run_dir=...)")
        path = Path(self.path) if self.path is not None else run.run_dir / "metrics.jsonl"  # pyright: ignore[reportOptionalOperand]
        path.parent.mkdir(parents=True, exist_ok=True)
        keep = self._end if run.step else 0
        self._file = open(path, "ab")  # noqa: SIM115  (open for the run)
        if self._file.tell() < keep:
            warnings.warn(f"{path} is shorter than when the checkpoint was made", CheckpointWarning, stacklevel=2)
        else:
            self._file.truncate(keep)
            self._file.seek(0, os.SEEK_END)

    def _write(self, kind: str, row: Mapping[str, Any]) -> None:
        kept = {k: _strict(v) for k, v in row.items() if self.times or not k.startswith("time/")}
        self._file.write(json.dumps({"kind": kind, **kept}).encode() + b"\n")
        self._file.flush()

    def on_log(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write("steps", row)

    def on_epoch(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write("epoch", row)

    def on_close(self, run: "Run") -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def state(self) -> dict[str, Any]:
        if self._file is not None:
            os.fsync(self._file.fileno())  # what the checkpoint counts on must be on the disk before it
            self._end = self._file.tell()
        return {"end": self._end}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._end = int(state["end"])


@dataclass(eq=False)
class TensorBoard(Callback):
    """Events for TensorBoard in `run_dir/tensorboard`, through tensorboardX. A resumed run hides what it repeats.

    Raises:
      ImportError: tensorboardX is missing. ValueError: no `directory` and no `run_dir`.
    """

    directory: str | Path | None = None
    _writer: Any = field(default=None, init=False, repr=False)

    def on_start(self, run: "Run") -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError('TensorBoard events need tensorboardX: pip install -e ".[train]"') from error
        if self.directory is None and run.run_dir is None:
            raise ValueError("TensorBoard needs a place: TensorBoard(directory), or fit(..., run_dir=...)")
        place = Path(self.directory) if self.directory is not None else run.run_dir / "tensorboard"  # pyright: ignore[reportOptionalOperand]
        self._writer = SummaryWriter(str(place), purge_step=run.step + 1 if run.step else None)

    def _write(self, row: Mapping[str, Any], prefix: str) -> None:
        for key, value in row.items():
            if key not in ("step", "epoch") and isinstance(value, int | float):
                self._writer.add_scalar(prefix + key, value, row["step"])

    def on_log(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write(row, "steps/")

    def on_epoch(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write(row, "epoch/")

    def on_close(self, run: "Run") -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
