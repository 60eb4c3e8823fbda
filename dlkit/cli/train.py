"""`dlkit train`: from a config to a trained model, its test accuracy and its pictures."""

import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from dlkit.cli.report import after, header, instead, say, table
from dlkit.wording import counted

__all__ = ["Train"]

FAILED = 1


@dataclass(frozen=True)
class Train:
    """Train the model that a config describes. The same command again resumes what was interrupted.

    Ctrl-C saves and says how to go on. The run is saved in runs/NAME: the resolved config, metrics, checkpoints, the
    trained model, pictures.
    """

    config: Annotated[Positional[str], arg(metavar="CONFIG")]
    """A TOML file such as configs/digits_cnn.toml, or the directory of a run."""
    overrides: Annotated[Positional[tuple[str, ...]], arg(metavar="[KEY=VALUE ...]", help_behavior_hint="")] = ()
    """Values to change, such as train.epochs=60 optimizer.learning_rate=1e-3."""
    run_dir: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Where to save the run, instead of run.directory/run.name of the config."""
    restart: bool = False
    """Remove what the run has saved so far, and begin again."""
    show_config: bool = False
    """Print the resolved config, every default included, as TOML, and train nothing."""

    def run(self) -> int:
        from dlkit.cli import resume
        from dlkit.cli.runs import RESOLVED, is_run, read_config, run_folder
        from dlkit.cli.setup import prepare
        from dlkit.config import dump, load, save

        config = read_config(self.config, self.overrides)
        if self.show_config:
            say(dump(config).rstrip())
            return 0
        folder = run_folder(config, self.config, self.run_dir, self.overrides)
        if self.restart:
            resume.check_removable(folder)
        there = None if self.restart or not is_run(folder) else resume.progress(folder)
        changed = [] if there is None else resume.changes(load(folder / RESOLVED), config, folder)
        with prepare(config.train.platform, config.train.matmul_precision):
            from dlkit.config.assemble import assemble

            parts = assemble(config)
            say(header(parts, self.config, folder, self._overridden(config)))
            if self.restart:
                resume.remove(folder)
            if there is not None:
                say(self._about(there, config.train.epochs, folder))
            if changed:
                say("The config has changed since it began:\n" + "\n".join(f"  {line}" for line in changed) + "\n")
            folder.mkdir(parents=True, exist_ok=True)
            if there is None:
                save(config, folder / RESOLVED)
            if parts.tokenizer is not None:
                parts.tokenizer.save(folder)
            return self._train(parts, folder, changed)

    def _overridden(self, config: Any) -> list[str]:
        """What the command line changes in the config; as it stands there, where the file alone is no config."""
        from dlkit.cli.runs import read_config
        from dlkit.config import ConfigError, diff

        try:
            return diff(read_config(self.config), config) if self.overrides else []
        except ConfigError:
            return list(self.overrides)

    def _again(self) -> str:
        """The command that goes on with this run."""
        where = [] if self.run_dir is None else ["--run-dir", self.run_dir]
        return shlex.join(["dlkit", "train", self.config, *self.overrides, *where])

    def _about(self, there: Any, epochs: int, folder: Path) -> str:
        """What is left to do for a run that is there already."""
        if not there.is_complete(epochs):
            return f"There is a run in {folder}, {counted(there.step, 'update')} long: going on with it."
        why = there.stopped_because if there.for_good else f"{there.epochs} of {counted(epochs, 'epoch')} trained"
        how = "train anew under another name (run.name=longer) or from the start (--restart)"
        if not there.for_good:
            how = f"ask for more (train.epochs={2 * there.epochs}), or {how}"
        return f"The run in {folder} has ended: {why}; nothing to train. To go on, {how}."

    def _train(self, parts: Any, folder: Path, changed: list[str]) -> int:
        from dlkit import train
        from dlkit.cli import resume
        from dlkit.cli.draw import draw, predictions, rebuilds, save_example
        from dlkit.cli.draw_codes import draw_codes
        from dlkit.cli.runs import RESOLVED
        from dlkit.cli.text import ending
        from dlkit.config import save
        from dlkit.config.errors import ConfigError

        started = time.perf_counter()
        watch = resume.watch()
        callbacks = [*parts.callbacks(), train.Console(show_header=False), watch]
        options = parts.fit_options()

        def record(step: int) -> None:  # only what was trained: a change that no step has seen is not written
            if changed and watch.began is not None and step > watch.began:
                save(parts.config, folder / RESOLVED, changed)

        try:
            result = train.fit(
                parts.task, parts.optimizer, parts.training, callbacks=callbacks, run_dir=folder, **options
            )
        except train.Interrupted as stop:
            record(stop.step)
            say(f"\nstopped by {stop.signal.name} after update {stop.step:,}; saved. To go on:\n  {self._again()}")
            return stop.exit_code
        except (ValueError, train.CheckpointError) as error:
            if watch.began is not None or not (folder / "checkpoints").is_dir():
                raise
            raise ConfigError(
                f"the run in {folder} cannot go on: {error}\n"
                f"Save the new run elsewhere (run.name=other), or begin again with --restart"
            ) from None
        if watch.failed:
            return self._lost(result.stopped_because, folder)
        seconds = time.perf_counter() - started
        record(int(result.state.step))
        outputs = None
        about: dict[str, Any] = {"best": result.best, "stopped_because": result.stopped_because}
        if parts.test is not None:
            params, state, size = result.state.params, result.state.state, parts.eval_batch_size
            values = train.evaluate(parts.task, params, state, parts.test, batch_size=size)
            other = f" of {parts.training.name}, not {asked}" if (asked := instead(parts)) else ""
            say(f"\ntest set{other}, {counted(len(parts.test), 'example')}\n{table(values)}\n")
            plain = {k: v if isinstance(v, int | float) else v.tolist() for k, v in values.items()}
            about = {"test": plain} | about
            outputs = predictions(parts, params, state)
        if parts.tokenizer is not None:
            told, about["text"] = ending(parts, result.state.params, folder)
            say(f"\n{told}\n")
        if len(about) > 2 and (watch.began is not None or not (folder / "result.json").is_file()):
            text = json.dumps(about | {"seconds": seconds}, indent=1) + "\n"
            (folder / "result.json").write_text(text, encoding="utf-8")
        if parts.config.train.plots:
            draw(folder, result.history, outputs, parts.test, parts.config.loss.name)
            if rebuilds(parts):
                draw_codes(folder, parts.task.model, result.state.params, result.state.state, parts.test)
        say(after(folder, self.config, self.overrides, save_example(folder, parts.test), parts.config.train.epochs))
        return 0

    def _lost(self, reason: str, folder: Path) -> int:
        """Say that a run was lost to NaN, and what there is to go on from."""
        from dlkit import train

        path = train.latest(folder / "checkpoints")
        kept = "no checkpoint was saved before" if path is None else f"the newest checkpoint, of before: {path}"
        say(
            f"\nstopped: {reason}\n{kept}\n"
            f"Try a smaller optimizer.learning_rate, or optimizer.clip_norm=1.0, with --restart or run.name=other"
        )
        return FAILED
