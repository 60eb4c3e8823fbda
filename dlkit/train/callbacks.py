"""What happens beside the training loop: the hooks, early stopping, and stopping at a loss that is no number."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from dlkit.train.run import Run
    from dlkit.train.state import TrainState

__all__ = ["Callback", "EarlyStopping", "StopOnNan", "direction_of", "value_in"]

Row = Mapping[str, Any]


class Callback:
    """Base of all callbacks: override the hooks that you need.

    A hook gets the run (`run.state`, `run.step`, `run.epoch`, `run.history`, `run.stop(reason)`, `run.save()`, ...) and
    a row: a flat dict with `epoch` (from 1), `step` (updates done), `train/loss`, `train/NAME` and, after an epoch,
    `valid/loss`, `valid/NAME`. Keys in `time/` differ between two equal runs, and stay out of the history.

    A callback that remembers something returns it from `state` (what JSON can write) and `arrays` (a tree of arrays):
    both are part of every checkpoint. `run.state` is donated to the next step: copy what you keep.
    """

    def on_start(self, run: "Run") -> None:
        """Before the first step, or the first one after resuming."""

    def on_step(self, run: "Run") -> None:
        """After every step. Reading an array here waits for the device."""

    def on_log(self, run: "Run", row: Row) -> None:
        """Every `log_every` steps, one interval late: the means over the interval."""

    def on_epoch(self, run: "Run", row: Row) -> None:
        """After every epoch and its validation."""

    def on_end(self, run: "Run", result: Any) -> None:
        """When training has ended and the result is made; not when it was interrupted or failed."""

    def on_close(self, run: "Run") -> None:
        """Last of all, however training ended: close files."""

    def final_state(self, run: "Run", state: "TrainState") -> "TrainState":
        """The state to return instead of the last one."""
        return state

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""

    def arrays(self) -> Any:
        """The arrays that a checkpoint keeps of this callback; None for none."""
        return None

    def arrays_like(self, state: "TrainState") -> Any:
        """A template for what `arrays` returned when the state just loaded was saved."""
        return None

    def load_arrays(self, arrays: Any) -> None:
        """Go on with these arrays."""


_SMALL = re.compile(r"loss|error|perplexity|r?mse|mae|nll|penalty|norm")
_LARGE = re.compile(r"acc|accuracy|f1|auc|precision|recall|r2|top\d*|score")


def direction_of(monitor: str, direction: str | None) -> str:
    """`min` or `max`: as said, or from the words of the metric's name, which `_` and `/` separate.

    >>> direction_of("valid/top5_accuracy", None), direction_of("train/loss", None)
    ('max', 'min')

    Raises:
      ValueError: the name has words of both kinds or of neither, or `direction` is neither.
    """
    if direction is not None and direction not in ("min", "max"):
        raise ValueError(f"monitor {monitor!r}: direction must be 'min' or 'max', got {direction!r}")
    if direction is None:
        words = re.split(r"[_/]", monitor)
        small, large = (any(kind.fullmatch(word) for word in words) for kind in (_SMALL, _LARGE))
        if small == large:
            why = "speaks for both" if small else "does not tell which is better"
            known = ("loss", "error", "accuracy", "perplexity", "precision", "recall", "score", "norm")
            near = [hit for word in words for hit in difflib.get_close_matches(word, known, n=1, cutoff=0.75)]
            hint = f"did you mean {monitor.replace(words[-1], near[-1])!r}? Else " if near and not small else ""
            raise ValueError(f"monitor {monitor!r}: the name {why}: {hint}say direction='min' or direction='max'")
        direction = "min" if small else "max"
    return direction


def value_in(row: Row, monitor: str) -> float:
    """The number called `monitor` in a row.

    Raises:
      ValueError: there is none; the nearest names are offered.
    """
    value = row.get(monitor)
    if not isinstance(value, int | float):
        numbers = [key for key, v in row.items() if isinstance(v, int | float)]
        near = difflib.get_close_matches(monitor, numbers, n=2)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"no number called {monitor!r} after an epoch: there are {', '.join(numbers)}{hint}")
    return float(value)


@dataclass(eq=False)
class EarlyStopping(Callback):
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs in a row.

    An epoch improves if its value is below `best - min_delta` (above `best + min_delta` for direction `max`); NaN never
    does, and the first other value does. Keras: the same, with `restore_best_weights`; a patience of 0 is 1 here.

    Args:
      monitor: a key of the epochs' rows, such as `valid/loss` or `valid/accuracy`.
      patience: at least 1.
      min_delta: not negative.
      direction: `min` or `max`; None to tell from the name's words (`loss`, `error`, ... or `accuracy`, `f1`, ...).
      restore_best: return the parameters and the model's state after the best epoch, to the bit, instead of the last
        ones; `restored_epoch` says which epoch that was. A copy stays on the device and is part of the checkpoints.

    >>> stopping = EarlyStopping("valid/accuracy", patience=2)
    >>> stopping.direction
    'max'

    Raises:
      ValueError: an argument out of range, or a direction that must be said. In `fit`: the rows have no such key.
    """

    monitor: str = "valid/loss"
    patience: int = 5
    min_delta: float = 0.0
    direction: str | None = None
    restore_best: bool = True
    best: float | None = field(default=None, init=False)
    best_epoch: int | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)
    restored_epoch: int | None = field(default=None, init=False)
    _kept: Any = field(default=None, init=False, repr=False)
    _expected: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.direction = direction_of(self.monitor, self.direction)
        if self.patience < 1 or not self.min_delta >= 0:
            raise ValueError(
                f"EarlyStopping wants patience >= 1 and min_delta >= 0, got {self.patience} and {self.min_delta}"
            )

    def on_start(self, run: "Run") -> None:
        if run.step == 0:
            self.best, self.best_epoch, self.waited, self._kept = None, None, 0, None

    def on_epoch(self, run: "Run", row: Row) -> None:
        if self._improves(value_in(row, self.monitor)):
            self.best, self.best_epoch, self.waited = value_in(row, self.monitor), int(row["epoch"]), 0
            if self.restore_best:
                self._kept = jax.tree.map(jnp.copy, {"params": run.state.params, "state": run.state.state})
            return
        self.waited += 1
        if self.waited >= self.patience:
            found = f"best {self.best:.6g} after epoch {self.best_epoch}" if self.best is not None else "never a number"
            run.stop(f"early stopping: {self.monitor} did not improve for {self.waited} epochs ({found})")

    def _improves(self, value: float) -> bool:
        if math.isnan(value) or self.best is None:
            return not math.isnan(value)
        gain = self.best - value if self.direction == "min" else value - self.best
        return gain > self.min_delta

    def final_state(self, run: "Run", state: "TrainState") -> "TrainState":
        self.restored_epoch = None if self._kept is None else self.best_epoch
        if self._kept is None or (self.best_epoch == run.epoch and run.index == 0):
            return state
        kept = jax.tree.map(jnp.copy, self._kept)
        return state._replace(params=kept["params"], state=kept["state"])

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited, "kept": self._kept is not None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]
        self._expected = bool(state["kept"])

    def arrays(self) -> Any:
        return self._kept

    def arrays_like(self, state: "TrainState") -> Any:
        return {"params": state.params, "state": state.state} if self._expected else None

    def load_arrays(self, arrays: Any) -> None:
        self._kept = arrays


@dataclass(eq=False)
class StopOnNan(Callback):
    """Stop at the first log point whose loss, penalty or gradient norm is not finite, and name it and the step.

    The state then is lost to NaN, so it is not saved: the newest checkpoint is that of before. Without this callback
    `fit` warns once and goes on.
    """

    def on_log(self, run: "Run", row: Row) -> None:
        self._check(run, row)

    def on_epoch(self, run: "Run", row: Row) -> None:
        self._check(run, row)

    def _check(self, run: "Run", row: Row) -> None:
        found = non_finite(row)
        if found and run.stopped_because is None:
            run.stop(f"{found} ({row[found]}) is not finite, first in step {run.bad_step or row['step']}", failed=True)


def non_finite(row: Row) -> str | None:
    """The first key of a row whose value must be finite and is not."""
    names = ("loss", "penalty", "grad_norm")
    held = ((k, v) for k, v in row.items() if k.rsplit("/", 1)[-1] in names)
    return next((k for k, v in held if isinstance(v, float) and not math.isfinite(v)), None)
