"""From what the device added up to rows: fetched one interval late, merged on the host, exact over an epoch."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dlkit.train.sums import NEVER, Packing, Piece, merge_host, merge_many
from dlkit.train.task import Task

__all__ = ["Ledger", "row_of"]

_OF_OPTIMIZER = ("learning_rate", "grad_norm", "update_norm", "loss_scale")


class Cut(NamedTuple):
    step: int
    epoch: int  # from 1
    piece: Any
    growing: list[Any]
    log: bool  # a log point
    end: bool  # the end of an epoch
    at: float  # when


class Ledger:
    """Sums of the current epoch and interval. Nothing is fetched before the piece after it has begun."""

    def __init__(self, task: Task, packing: Packing, zeros: Any) -> None:
        self.task, self.table, self.packing = task, task.table(), packing
        self.zeros = zeros  # a packed piece of no steps, on the device, shared: a piece is not donated
        self.piece = zeros
        self.growing: list[Any] = []
        self.cuts: deque[Cut] = deque()
        self.epoch_sums: Any = None
        self.interval_sums: Any = None
        self.last: dict[str, Any] = {}
        self.bad: int | None = None  # the first step (from 1) whose loss was not finite
        self.timed: tuple[int, float] | None = None  # the last log point

    def cut(self, step: int, epoch: int, *, log: bool = False, end: bool = False) -> None:
        """End a piece here."""
        self.cuts.append(Cut(step, epoch, self.piece, self.growing, log, end, time.perf_counter()))
        self.piece, self.growing = self.zeros, []

    def rows(self, *, keep: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows (`log` or `epoch`) of all cuts but the last `keep`, in order; their numbers are fetched here."""
        while len(self.cuts) > keep:
            cut = self.cuts.popleft()
            packed, growing = jax.device_get((cut.piece, cut.growing))
            piece: Piece = self.packing.unpack(packed)
            sums = None
            if piece.count:
                sums = {**piece.sums, **(merge_many(self.table, growing) or {})}
                if piece.bad != NEVER and self.bad is None:
                    self.bad = int(piece.bad) + 1
            self.epoch_sums = merge_host(self.table, self.epoch_sums, sums)
            self.interval_sums = merge_host(self.table, self.interval_sums, sums)
            about = {"epoch": cut.epoch, "step": cut.step}
            if cut.log:
                values = self.task.result({**self.interval_sums, **piece.last})
                yield "log", about | row_of(values, "train/") | self._speed(cut)
                self.interval_sums = None
            if cut.end:
                last = piece.last if piece.count else self.last
                values = self.task.result({**self.epoch_sums, **last})
                yield "epoch", about | row_of(values, "train/")
                self.epoch_sums = None
            self.last = piece.last

    def _speed(self, cut: Cut) -> dict[str, float]:
        before, self.timed = self.timed, (cut.step, cut.at)
        if before is None or cut.at <= before[1]:
            return {}
        return {"time/steps_per_second": (cut.step - before[0]) / (cut.at - before[1])}

    def held(self) -> dict[str, Any]:
        """What a checkpoint keeps: everything but the cuts, which must have been fetched."""
        growing = merge_many(self.table, jax.device_get(self.growing))
        host = jax.tree.map(np.asarray, {"epoch": self.epoch_sums, "interval": self.interval_sums, "growing": growing})
        return {"piece": self.piece, **host}

    def held_like(self, flags: Mapping[str, bool], shapes: Mapping[str, Any]) -> dict[str, Any]:
        """A template for what `held` returned, given which of its parts there were."""
        sums = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), {n: shapes[n] for n in self.table})
        growing = {name: sums[name] for name, metric in self.table.items() if not metric.fixed_size}
        host = {"epoch": sums, "interval": sums, "growing": growing}
        return {"piece": self.zeros, **{name: value if flags[name] else None for name, value in host.items()}}

    def load(self, held: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.piece, self.epoch_sums, self.interval_sums = held["piece"], held["epoch"], held["interval"]
        self.growing = [] if held["growing"] is None else [held["growing"]]


def row_of(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Values by name as part of a row: numbers, and arrays as nested lists. What the optimizer says has no prefix."""
    row = {}
    for name, value in values.items():
        plain = value if isinstance(value, int | float) else np.asarray(value).tolist()
        row[name if name.startswith(_OF_OPTIMIZER) else prefix + name] = plain
    return row
