"""`dlkit eval`: loss and metrics of a trained model."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from dlkit.cli.report import say, table
from dlkit.wording import counted

__all__ = ["Eval"]


@dataclass(frozen=True)
class Eval:
    """Evaluate a trained model: its loss and metrics on the test set, or another part of its data."""

    run_: Annotated[Positional[str], arg(metavar="RUN", name="run")]
    """The directory of a run, such as runs/digits_cnn (or the config that made it)."""
    split: Literal["test", "valid", "train"] = "test"
    """The part of the data."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from dlkit.cli.runs import locate, restored
        from dlkit.cli.setup import prepare
        from dlkit.config.errors import ConfigError

        folder, config = locate(self.run_)
        with prepare(config.train.platform, config.train.matmul_precision):
            from dlkit import train
            from dlkit.config.assemble import assemble

            parts = assemble(config)
            chosen = {"test": parts.test, "valid": parts.valid, "train": parts.training}[self.split]
            if chosen is None:
                raise ConfigError(f"the config of this run leaves no {self.split} set: choose another with --split")
            params, state, source = restored(folder, parts.task.model)
            size = parts.eval_batch_size
            values = train.evaluate(parts.task, params, state, chosen, batch_size=size)
        if self.json:
            plain = {k: v if isinstance(v, int | float) else v.tolist() for k, v in values.items()}
            say(json.dumps({"run": str(folder), "split": self.split, "examples": len(chosen), **plain}, indent=1))
        else:
            say(f"{source}\n{self.split} set, {counted(len(chosen), 'example')}\n{table(values)}")
        return 0
