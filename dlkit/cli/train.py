"""`dlkit train`: from a config to a trained model, its test accuracy and its pictures."""

import json
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from dlkit.cli.report import after, header, say, table

__all__ = ["Train"]

RECORDS = (
    "checkpoints", "model", "tensorboard", "metrics.jsonl", "config.toml", "result.json", "example.png",
    "learning_curves.png", "confusion_matrix.png", "misclassified.png",
)  # fmt: skip


@dataclass(frozen=True)
class Train:
    """Train the model that a config describes. The same command again resumes what was interrupted.

    Ctrl-C saves and says how to go on. The run is saved in runs/NAME: the resolved config, metrics, checkpoints, the
    trained model, pictures.
    """

    config: Annotated[Positional[str], arg(metavar="CONFIG")]
    """A TOML file such as configs/digits_cnn.toml, or the directory of a run."""
    overrides: Annotated[Positional[tuple[str, ...]], arg(metavar="[KEY=VALUE ...]")] = ()
    """Values to change, such as train.epochs=60 optimizer.learning_rate=1e-3."""
    run_dir: Annotated[str | None, arg(metavar="DIR")] = None
    """Where to save the run, instead of run.directory/run.name of the config."""
    restart: bool = False
    """Remove what the run has saved so far, and begin again."""

    def run(self) -> int:
        from dlkit.cli.runs import RESOLVED, read_config, run_folder
        from dlkit.cli.setup import prepare
        from dlkit.config import diff, load, save

        config = read_config(self.config, self.overrides)
        folder = run_folder(config, self.config, self.run_dir)
        named = config.run.model_copy(update={"directory": str(folder.parent), "name": folder.name})
        config = config.model_copy(update={"run": named})
        if self.restart:
            _remove(folder)
        old = load(folder / RESOLVED) if (folder / RESOLVED).is_file() else None
        changed = [] if old is None else [line for line in diff(old, config) if not line.startswith("run.")]
        with prepare(config.train.platform, config.train.matmul_precision):
            from dlkit.config.assemble import assemble

            parts = assemble(config)
            say(header(parts, self.config, folder))
            if old is not None:
                say(f"There is a run in {folder}: going on with it.")
            if changed:
                say("The config has changed since it began:\n" + "\n".join(f"  {line}" for line in changed) + "\n")
            folder.mkdir(parents=True, exist_ok=True)
            if old is None:
                save(config, folder / RESOLVED)
            return self._train(parts, folder, changed)

    def _again(self) -> str:
        """The command that goes on with this run."""
        where = [] if self.run_dir is None else ["--run-dir", self.run_dir]
        return shlex.join(["dlkit", "train", self.config, *self.overrides, *where])

    def _train(self, parts: Any, folder: Path, changed: list[str]) -> int:
        from dlkit import train
        from dlkit.cli.draw import draw, save_example
        from dlkit.cli.runs import RESOLVED
        from dlkit.config import save
        from dlkit.config.errors import ConfigError

        started = time.perf_counter()
        callbacks = [*parts.callbacks(), train.Console(show_header=False)]
        options = parts.fit_options()
        try:
            result = train.fit(
                parts.task, parts.optimizer, parts.training, callbacks=callbacks, run_dir=folder, **options
            )
        except train.Interrupted as stop:
            save(parts.config, folder / RESOLVED)
            say(f"\nstopped by {stop.signal.name} after update {stop.step:,}; saved. To go on:\n  {self._again()}")
            return stop.exit_code
        except (ValueError, train.CheckpointError) as error:
            if not changed:
                raise
            raise ConfigError(
                f"the run in {folder} cannot go on with the changed config: {error}\n"
                f"Save the new run elsewhere (run.name=other), or begin again with --restart"
            ) from None
        seconds = time.perf_counter() - started
        save(parts.config, folder / RESOLVED)
        outputs = None
        if parts.test is not None:
            params, state, size = result.state.params, result.state.state, parts.eval_batch_size
            values = train.evaluate(parts.task, params, state, parts.test, batch_size=size)
            say(f"\ntest set, {len(parts.test):,} examples, in {seconds:.1f} s\n{table(values)}\n")
            plain = {k: v if isinstance(v, int | float) else v.tolist() for k, v in values.items()}
            record = {"test": plain, "best": result.best, "stopped_because": result.stopped_because, "seconds": seconds}
            (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            outputs = train.predict(parts.task.model, params, state, parts.test["x"], batch_size=size)
        if parts.config.train.plots:
            draw(folder, result.history, outputs, parts.test, parts.config.loss.name)
        say(after(folder, self.config, self.overrides, save_example(folder, parts.test)))
        return 0


def _remove(folder: Path) -> None:
    """Remove what a run saves, by name, and nothing else."""
    for name in RECORDS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
