"""`dlkit plot`: the pictures of a run, drawn again."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from dlkit.cli.report import say

__all__ = ["Plot"]


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves, the confusion matrix and the misclassified examples of a run, as PNG files in it."""

    run_: Annotated[Positional[str], arg(metavar="RUN", name="run")]
    """The directory of a run, such as runs/digits_cnn (or the config that made it)."""

    def run(self) -> int:
        from dlkit.cli.draw import draw, predictions, rebuilds
        from dlkit.cli.draw_codes import draw_codes
        from dlkit.cli.runs import locate, restored
        from dlkit.cli.setup import prepare
        from dlkit.config.errors import ConfigError

        folder, config = locate(self.run_)
        with prepare(config.train.platform, config.train.matmul_precision):
            from dlkit import train
            from dlkit.config.assemble import assemble

            parts = assemble(config)
            params, state, _ = restored(folder, parts.task.model)
            rows = train.read_rows(folder / "metrics.jsonl", "epoch") if (folder / "metrics.jsonl").exists() else []
            outputs = None if parts.test is None else predictions(parts, params, state)
            made = draw(folder, rows, outputs, parts.test, config.loss.name)
            if rebuilds(parts):
                made += draw_codes(folder, parts.task.model, params, state, parts.test)
        if not made:
            raise ConfigError(f"there is nothing to draw in {str(folder)!r} yet: no epoch is finished")
        say("\n".join(map(str, made)))
        return 0
