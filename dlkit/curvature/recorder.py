"""The way of a training run through the space of parameters, kept for `path_plane`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dlkit.train import Callback

if TYPE_CHECKING:
    from dlkit.train import Run

__all__ = ["PathRecorder"]


@dataclass(eq=False)
class PathRecorder(Callback):
    """A callback that keeps the parameters of a run every so many steps: those of the start and of the end, too.

    They are copied to the host, so a path of T points takes T times the memory of the parameters there.

    Args:
      every: steps between two points.

    Attributes:
      points: trees of numpy arrays. steps: after how many updates each was taken.

    >>> from dlkit import data, losses, nn, optim, train
    >>> x = np.ones((8, 1), np.float32)
    >>> path = PathRecorder(every=2)
    >>> task = train.Task(nn.Linear(1, 1), losses.mse)
    >>> _ = train.fit(task, optim.sgd(0.1), data.Arrays(x=x, y=x), epochs=5, batch_size=8, callbacks=[path])
    >>> path.steps
    [0, 2, 4, 5]

    Raises:
      ValueError: `every` below 1.
    """

    every: int = 1
    points: list[Any] = field(default_factory=list, init=False, repr=False)
    steps: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"PathRecorder: every must be at least 1, got {self.every}")

    def _keep(self, run: "Run") -> None:
        if run.step not in self.steps[-1:]:
            self.points.append(jax.tree.map(lambda leaf: np.array(leaf), run.state.params))
            self.steps.append(run.step)

    def on_start(self, run: "Run") -> None:
        self._keep(run)

    def on_step(self, run: "Run") -> None:
        if run.step % self.every == 0:
            self._keep(run)

    def on_end(self, run: "Run", result: Any) -> None:
        self._keep(run)
