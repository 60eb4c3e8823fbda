"""Saving a run while it trains, and deciding which of its checkpoints stay."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.train import files
from dlkit.train.callbacks import Callback, direction_of, value_in
from dlkit.train.files import CheckpointError, CheckpointWarning

if TYPE_CHECKING:
    from dlkit.train.run import Run

__all__ = ["Checkpointer", "kept", "retain"]


def kept(
    values: Mapping[int, float | None],
    *,
    keep_last: int,
    keep_best: int,
    direction: str,
    keep_every: int | None = None,
) -> set[int]:
    """Which steps stay: the last `keep_last`, the best `keep_best` and those that `keep_every` divides.

    `values` are the monitored values by step, None where there is none. Among equal values the earlier step is better;
    NaN is worse than any number; a step without a value is never among the best.

    >>> sorted(kept({10: 0.5, 20: 0.3, 30: float("nan"), 40: 0.3}, keep_last=1, keep_best=1, direction="min"))
    [20, 40]
    """
    ranked = [step for step in sorted(values) if values[step] is not None]
    sign = 1 if direction == "min" else -1

    def order(step: int) -> tuple[bool, float]:
        value = values[step]
        assert value is not None
        return math.isnan(value), 0.0 if math.isnan(value) else sign * value

    stay = set(sorted(values)[max(0, len(values) - keep_last) :])
    stay |= set(sorted(ranked, key=order)[:keep_best])
    return stay | {step for step in values if keep_every and step % keep_every == 0}


def retain(directory: str | Path, monitor: str | None, **rules: Any) -> list[Path]:
    """Apply `kept` to a directory and remove the other checkpoints; those that cannot be read are left alone."""
    found, values = files.steps(directory), {}
    for step, path in found.items():
        try:
            row = files.loose(files.read_manifest(path)["metadata"]).get("row") or {}
        except (CheckpointError, KeyError, AttributeError):
            continue
        value = row.get(monitor)
        values[step] = float(value) if isinstance(value, int | float) else None
    gone = [found[step] for step in sorted(values.keys() - kept(values, **rules))]
    for path in gone:
        files.remove_step(path)
    return gone


@dataclass(eq=False)
class Checkpointer(Callback):
    """Save the run, and keep its last, its best and every so many checkpoints in `run_dir/checkpoints`.

    After each save exactly these remain: the last `keep_last`, the best `keep_best` by `monitor`, and those whose step
    `keep_every` divides. A new one is complete before an old one goes. The run is always saved when it ends or is
    interrupted. `fit(run_dir=...)` adds one with these defaults if there is none among the callbacks.

    Args:
      keep_last: at least 1.
      keep_best: 0 for none.
      monitor: a key of the epochs' rows; None for `valid/loss`, or `train/loss` in a run without validation.
      direction: `min` or `max`; None to tell from the name.
      every_epochs: save after each so many epochs; None for never.
      every_steps: and after each so many steps.
      keep_every: keep the checkpoints whose step this divides.
      on_error: `stop` raises when a save fails; `warn` warns and trains on.

    Raises:
      ValueError: an argument out of range. In `fit`: there is no `run_dir`, or the monitor is not in the rows
        (after the first epoch, with the nearest names).
    """

    keep_last: int = 2
    keep_best: int = 1
    monitor: str | None = None
    direction: str | None = None
    every_epochs: int | None = 1
    every_steps: int | None = None
    keep_every: int | None = None
    on_error: str = "stop"
    _rules: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _due: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        every = [self.every_epochs, self.every_steps, self.keep_every]
        if self.keep_last < 1 or self.keep_best < 0 or any(n is not None and n < 1 for n in every):
            raise ValueError(f"{self}: expected keep_last >= 1, keep_best >= 0, and every ... >= 1 or None")
        if self.on_error not in ("stop", "warn"):
            raise ValueError(f"on_error must be 'stop' or 'warn', got {self.on_error!r}")

    def on_start(self, run: "Run") -> None:
        if run.run_dir is None:
            raise ValueError("a Checkpointer needs a place: fit(..., run_dir=...)")
        if self.monitor is None:
            self.monitor = "valid/loss" if run.valid is not None else "train/loss"
        direction = direction_of(self.monitor, self.direction) if self.keep_best else "min"
        self._rules = {
            "keep_last": self.keep_last, "keep_best": self.keep_best,
            "direction": direction, "keep_every": self.keep_every,
        }  # fmt: skip

    def on_step(self, run: "Run") -> None:
        if self.every_steps is not None and run.step % self.every_steps == 0:
            if run.index == run.steps_per_epoch:
                self._due = True  # after the epoch's validation, so that resuming does not lose it
            else:
                self.save(run)

    def on_epoch(self, run: "Run", row: Mapping[str, Any]) -> None:
        if self.keep_best and self.monitor is not None:
            value_in(row, self.monitor)  # a misspelt name would keep no best checkpoint, and say nothing
        often = self.every_epochs is not None and run.epoch % self.every_epochs == 0
        if self._due or often or run.stopped_because is not None:
            self.save(run)

    def save(self, run: "Run") -> Path | None:
        """Save now, and remove what need not stay. None if it failed and `on_error` is `warn`."""
        self._due = False
        if run.failed:  # what is lost to NaN must not push out what is not
            return None
        try:
            path = run.save()
        except CheckpointError as error:
            if self.on_error == "stop":
                raise
            warnings.warn(f"{error}; training goes on", CheckpointWarning, stacklevel=2)
            return None
        self.tidy(path)
        return path

    def tidy(self, path: Path) -> None:
        """Remove the checkpoints beside `path` that need not stay."""
        retain(path.parent, self.monitor, **self._rules)


def best_step(directory: str | Path, monitor: str, direction: str | None = None) -> Path | None:
    """The best of the checkpoints in a directory by the epochs' `monitor`; None if none has a value."""
    found, values = files.steps(directory), {}
    for step, path in found.items():
        row = files.loose(files.read_manifest(path)["metadata"]).get("row") or {}
        if isinstance(row.get(monitor), int | float):
            values[step] = float(row[monitor])
    stay: Sequence[int] = sorted(kept(values, keep_last=0, keep_best=1, direction=direction_of(monitor, direction)))
    return found[stay[0]] if stay else None
