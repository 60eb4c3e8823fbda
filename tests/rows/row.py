"""A row of the table: a layer, an input, and how its parameter tree looks."""

from typing import Any, NamedTuple

import numpy as np

from dlkit import nn


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class Row(NamedTuple):
    layer: nn.Layer
    x: Any
    params: dict[str, tuple[int, ...]] = {}
    state: dict[str, tuple[int, ...]] = {}
    options: dict[str, Any] = {}  # of check_layer
    composed: bool = False  # of layers that have rows: its properties are thorough
