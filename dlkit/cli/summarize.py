"""`dlkit summary`: the arrays of a model and the cost of one forward pass, without running anything."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """Show a model's parameters (paths, shapes, dtypes, bytes) and FLOPs. Nothing is allocated or compiled."""

    config: Annotated[Positional[str], arg(metavar="CONFIG")]
    """A TOML file, or the directory of a run."""
    overrides: Annotated[Positional[tuple[str, ...]], arg(metavar="[KEY=VALUE ...]", help_behavior_hint="")] = ()
    """Values to change, such as model.dropout=0.1."""
    batch: Annotated[int, arg(metavar="N")] = 1
    """Examples in the forward pass whose FLOPs are counted."""

    def run(self) -> int:
        from dlkit.cli.runs import read_config
        from dlkit.config import build
        from dlkit.config.assemble import task_of
        from dlkit.config.errors import ConfigError
        from dlkit.inspect import summary

        if self.batch < 1:
            raise ConfigError(f"--batch: expected at least 1, got {self.batch}")
        config = read_config(self.config, self.overrides)
        shape = build.input_shape(config)
        dtype = np.int32 if config.data.name == "text" else np.float32
        whole = None if shape is None else (self.batch, *shape)
        print(summary(task_of(config).model, whole, dtype=dtype))  # noqa: T201
        return 0
