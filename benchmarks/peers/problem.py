"""What every library trains: shapes, data, and one list of initial weights that all of them copy.

Weights stand in the order in which a forward pass meets them, channels last: convolutions `[3, 3, c_in, c_out]`, affine
maps `[d_in, d_out]`, rows in the order height, width, channel behind a flattened picture. Norms start at 1 and 0.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LEARNING_RATE = 1e-3
CLASSES = 10
WIDTHS = (784, 512, 256, CLASSES)
BLOCKS = [(a, b, s) for a, b, s in [(16, 16, 1), (16, 32, 2), (32, 64, 2)] for a, b, s in [(a, b, s)] + [(b, b, 1)] * 2]
CONV_SHAPES = {"cnn": [(1, 32), (32, 64)], "resnet20": [(3, 16)] + [c for a, b, _ in BLOCKS for c in ((a, b), (b, b))]}
HEAD = {"cnn": 14 * 14 * 64, "resnet20": 64}


@dataclass(frozen=True)
class Problem:
    name: str
    title: str
    steps: int  # steps in one timed sample
    x: np.ndarray
    y: np.ndarray
    weights: list[np.ndarray]

    def take(self) -> Callable[[], np.ndarray]:
        """A function that gives the next of the weights at each call."""
        source: Iterator[np.ndarray] = iter(self.weights)
        return lambda: next(source)


def problem(name: str) -> Problem:
    rng = np.random.default_rng(0)
    shape, title, steps = {
        "mlp": ((128, 784), "MLP 784-512-256-10, batch 128", 10),
        "cnn": ((128, 28, 28, 1), "CNN conv32-conv64-pool-dense, 28x28, batch 128", 1),
        "resnet20": ((64, 32, 32, 3), "ResNet-20, 32x32x3, batch 64", 1),
    }[name]
    if name == "mlp":
        affine = list(itertools.pairwise(WIDTHS))
        shapes: list[tuple[int, ...]] = [s for a, b in affine for s in ((a, b), (b,))]
    else:
        bias = name == "cnn"
        convs = [s for a, b in CONV_SHAPES[name] for s in ([(3, 3, a, b), (b,)] if bias else [(3, 3, a, b)])]
        shapes = [*convs, (HEAD[name], CLASSES), (CLASSES,)]
    weights = [(rng.normal(size=s) / np.sqrt(np.prod(s[:-1])) if len(s) > 1 else np.zeros(s)) for s in shapes]
    x = rng.normal(size=shape).astype(np.float32)
    y = rng.integers(0, CLASSES, len(x)).astype(np.int32)
    return Problem(name, title, steps, x, y, [w.astype(np.float32) for w in weights])
