"""A run while it trains: what callbacks see, and what a checkpoint holds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from dlkit.data import Arrays, Loader
from dlkit.nn import Layer
from dlkit.train import checkpoint
from dlkit.train.callbacks import Callback
from dlkit.train.ledger import Ledger
from dlkit.train.state import TrainState
from dlkit.train.task import Task
from dlkit.wording import counted

__all__ = ["Result", "Run", "load_model"]


@dataclass(frozen=True, eq=False)
class Result:
    """What training ended with."""

    state: TrainState  # the last one, or what a callback chose (`EarlyStopping(restore_best=True)`)
    history: tuple[dict[str, Any], ...]  # one row an epoch
    best: dict[str, Any]  # the row of the epoch with the lowest valid/loss (train/loss without validation)
    last: dict[str, Any]  # the row of the last epoch; empty if none was finished
    stopped_because: str
    run_dir: Path | None = None


class Run:
    """The loop's position and its parts.

    For callbacks: `task`, `optimizer`, `loader`, `valid`, `state` (donated to the next step: copy what you keep),
    `batch` (the last one), `step` (updates done), `epoch` (finished ones), `index` (batches done of the current one),
    `steps_per_epoch`, `epochs`, `total_steps`, `history`, `run_dir`, `bad_step`, `started`, `resumed_from`.
    """

    def __init__(
        self,
        task: Task,
        optimizer: Any,
        loader: Loader,
        *,
        valid: Arrays | None,
        epochs: int,
        max_steps: int | None,
        callbacks: Sequence[Callback],
        run_dir: Path | None,
        log_every: int,
    ) -> None:
        self.task, self.optimizer, self.loader, self.valid = task, optimizer, loader, valid
        self.epochs, self.max_steps, self.log_every, self.run_dir = epochs, max_steps, log_every, run_dir
        self.steps_per_epoch = len(loader)
        self.total_steps = min(epochs * self.steps_per_epoch, max_steps or 2**62)
        self.callbacks = list(callbacks)
        self.state: Any = None
        self.batch: Any = None
        self.ledger: Any = None
        self.step = self.epoch = self.index = 0
        self.history: list[dict[str, Any]] = []
        self.stopped_because: str | None = None
        self.stopped_for_good = False  # by a callback; more epochs do not go on
        self.failed = False
        self.warned = False  # of a loss that is not finite
        self.resumed_from: Path | None = None
        self.started = time.perf_counter()

    @property
    def bad_step(self) -> int | None:
        """The first step, counted from 1, whose loss was not finite, as far as fetched; else None."""
        return self.ledger.bad if isinstance(self.ledger, Ledger) else None

    def stop(self, reason: str, *, failed: bool = False) -> None:
        """End training after this step (or epoch). The first reason counts; what has `failed` is not saved."""
        if self.stopped_because is None:
            self.stopped_because, self.stopped_for_good, self.failed = reason, True, failed

    def check_limits(self) -> None:
        """Stop where the number of steps or epochs is reached."""
        if self.stopped_because is not None:
            return
        if self.epoch >= self.epochs:
            self.stopped_because = counted(self.epochs, "epoch")
        elif self.max_steps is not None and self.step >= self.max_steps:
            self.stopped_because = f"max_steps={self.max_steps}"

    def emit(self, *, keep: int = 0) -> dict[str, Any] | None:
        """Fetch rows and hand those of log points to the callbacks; returns the epoch's, if there is one."""
        found = None
        for kind, row in self.ledger.rows(keep=keep):
            if kind == "epoch":
                found = row
                continue
            for callback in self.callbacks:
                callback.on_log(self, row)
        return found

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        if self.run_dir is None:
            raise ValueError("nothing can be saved without a place: fit(..., run_dir=...)")
        return self.run_dir / "checkpoints"

    def names(self) -> list[tuple[str, Callback]]:
        """The callbacks with their names in a checkpoint: the class, numbered from its second on."""
        counts: dict[str, int] = {}
        named = []
        for callback in self.callbacks:
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, 0) + 1
            named.append((kind if counts[kind] == 1 else f"{kind}{counts[kind]}", callback))
        return named

    def save(self) -> Path:
        """Write a checkpoint of everything that the rest of the run depends on.

        Raises:
          CheckpointError: it could not be written.
          ValueError: the run has no `run_dir`.
        """
        folder = self.folder
        self.emit()
        held = self.ledger.held()
        arrays = {name: callback.arrays() for name, callback in self.names()}
        tree = {"train": self.state, "sums": held, "callbacks": {n: a for n, a in arrays.items() if a is not None}}
        metadata = {
            "loader": self.loader.state(self.epoch, self.index),
            "step": self.step,
            "history": self.history,
            "row": self.history[-1] if self.history and self.index == 0 else None,
            "callbacks": {name: callback.state() for name, callback in self.names()},
            "sums": {name: held[name] is not None for name in ("epoch", "interval", "growing")},
            "bad": self.ledger.bad,
            "stopped": {"because": self.stopped_because, "for_good": self.stopped_for_good},
        }
        return checkpoint.save(folder, self.step, tree, metadata)

    def load(self, saved: checkpoint.Saved, like: TrainState, shapes: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
          CheckpointError: it does not fit the model, the optimizer or the metrics.
          ValueError: it was made with another seed, batch size, dataset, ...; the message names which.
        """
        about = saved.metadata
        self.epoch, self.index = self.loader.check_state(about["loader"])
        templates = {}
        for name, callback in self.names():
            if name in about["callbacks"]:
                callback.load_state(about["callbacks"][name])
                templates[name] = callback.arrays_like(like)
        template = {
            "train": like,
            "sums": self.ledger.held_like(about["sums"], shapes),
            "callbacks": {name: t for name, t in templates.items() if t is not None},
        }
        grows = [f"sums/*/{name}/**" for name, metric in self.ledger.table.items() if not metric.fixed_size]
        tree = saved.into(template, ignore=["callbacks/**"], any_shape=grows)
        for name, callback in self.names():
            if name in tree["callbacks"]:
                callback.load_arrays(tree["callbacks"][name])
        self.state = tree["train"]
        self.ledger.load(tree["sums"])
        self.ledger.bad = about["bad"]
        self.step, self.history = about["step"], list(about["history"])
        self.resumed_from = saved.path
        if about["stopped"]["for_good"]:
            self.stopped_because, self.stopped_for_good = about["stopped"]["because"], True

    def result(self) -> Result:
        """What training ended with."""
        state = self.state
        for callback in self.callbacks:
            state = callback.final_state(self, state)
        key = "valid/loss" if self.valid is not None else "train/loss"
        numbers = [row for row in self.history if row.get(key) == row.get(key) is not None]
        best = min(numbers, key=lambda row: row[key], default={})
        last = self.history[-1] if self.history else {}
        return Result(state, tuple(self.history), dict(best), dict(last), str(self.stopped_because), self.run_dir)


def load_model(run_dir: str | Path, model: Layer[Any, Any], which: str = "final") -> tuple[Any, Any]:
    """The parameters and the state of a model that `fit(run_dir=...)` has trained: `(params, state)`.

    Args:
      run_dir: as given to `fit`.
      model: the definition that was trained.
      which: `final` for what `fit` returned; `last` for the newest checkpoint, of a run that has not ended too.

    Raises:
      CheckpointError: there is none (yet), it is damaged, or it is that of another model.
    """
    if which not in ("final", "last"):
        raise ValueError(f"which must be 'final' or 'last', got {which!r}")
    folder = Path(run_dir) / ("model" if which == "final" else "checkpoints")
    saved = checkpoint.newest(folder)
    if saved is None:
        hint = "; its newest checkpoint is which='last'" if which == "final" else ""
        raise checkpoint.CheckpointError(f"{run_dir} holds no {which} model: has the run ended?{hint}")
    params, state = jax.eval_shape(model.init, jax.random.key(0)), jax.eval_shape(model.init_state)
    if which == "final":
        tree = saved.into({"params": params, "state": state})
        return tree["params"], tree["state"]
    held = TrainState(None, params, state, None, None)  # pyright: ignore[reportArgumentType]
    rest = ["train/step", "train/key", "train/opt_state/**", "sums/**", "callbacks/**"]
    tree = saved.into({"train": held}, ignore=rest)
    return tree["train"].params, tree["train"].state
