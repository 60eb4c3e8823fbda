"""What a command may do with the run that is there already: go on with it, refuse, or clear it away."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit.cli.runs import RESOLVED, is_run
from dlkit.config import Config, ConfigError, diff

__all__ = ["Progress", "changes", "check_removable", "progress", "remove", "watch"]

# What may change while a run goes on: how long and where it runs, what is written; not what a step learns.
FREE = (
    "train.epochs", "train.eval_batch_size", "train.log_every", "train.checkpoints", "train.platform",
    "train.tensorboard", "train.plots",
)  # fmt: skip
STEPS = ("checkpoints", "model")
RECORDS = (
    "metrics.jsonl", RESOLVED, "result.json", "example.png", "learning_curves.png", "confusion_matrix.png",
    "misclassified.png", "reconstructions.png", "samples.png", "manifold.png", "latent.png",
    "tokenizer.json", "sample.txt", "attention.png",
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """How far the newest checkpoint of a run is."""

    step: int
    epochs: int
    stopped_because: str | None
    for_good: bool

    def is_complete(self, epochs: int) -> bool:
        """Whether nothing is left to train for this number of epochs."""
        return self.for_good or self.epochs >= epochs


def progress(folder: Path) -> Progress | None:
    """Where the run in a folder stands; None if no step of it was saved.

    Raises:
      CheckpointError: there are checkpoints, and each is damaged.
    """
    from dlkit import train

    path = train.latest(folder / "checkpoints")
    if path is None:
        return None
    about = train.read(path).metadata
    stopped = about["stopped"]
    return Progress(about["step"], len(about["history"]), stopped["because"], stopped["for_good"])


def changes(old: Config, new: Config, folder: Path) -> list[str]:
    """What changed since the run began, of the keys that may change.

    Raises:
      ConfigError: another key changed too, so that going on would not give the run that either config describes.
    """
    lines = [line for line in diff(old, new) if not line.startswith("run.")]
    refused = [line for line in lines if not _is_free(line.split(":")[0])]
    if refused:
        shown = "\n".join(f"  {line}" for line in refused)
        raise ConfigError(
            f"there is a run in {folder}, and the config has changed since it began:\n{shown}\n"
            f"Save the new run elsewhere (run.name=other), or begin again with --restart"
        )
    return lines


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def check_removable(folder: Path) -> None:
    """That `remove` would take away a run and nothing else.

    Raises:
      ConfigError: the folder holds something, but no run.
    """
    if folder.exists() and not is_run(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--restart removes only a run, and {str(folder)!r} is none: it has no {RESOLVED} of a run")


def remove(folder: Path) -> None:
    """Remove what a run saves, by name, and nothing else."""
    check_removable(folder)
    for name in STEPS:
        _remove_all(folder / name, ("step_*", ".tmp_step_*", ".trash_*", ".replaced_step_*"))
    _remove_all(folder / "tensorboard", ("events.*",))
    for name in RECORDS:
        if not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)


def _remove_all(folder: Path, patterns: Sequence[str]) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def watch() -> Any:
    """A callback that knows afterwards whether a step ran (`began`), and whether the run `failed`."""
    from dlkit.train import Callback

    class Watch(Callback):
        began: int | None = None
        failed = False

        def on_start(self, run: Any) -> None:
            self.began = run.step

        def on_end(self, run: Any, result: Any) -> None:
            self.failed = run.failed

    return Watch()
