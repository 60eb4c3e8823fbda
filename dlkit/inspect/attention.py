"""What is attended to, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.inspect.plots import _figure, _save

__all__ = ["attention_map"]


def attention_map(
    weights: Any, source: Sequence[str], target: Sequence[str], path: str | Path, *, title: str = "Attention"
) -> Path:
    """Weights `[T, S]` in [0, 1] as grey: a row for each target token, a column for each source token.

    Args:
      weights: `[T, S]`, rows that sum to 1.
      source, target: the tokens, S and T of them.
      path: where the PNG file goes; returned.

    Raises:
      ValueError: the numbers of tokens are not the shape.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != (len(target), len(source)) or not weights.size:
        raise ValueError(
            f"attention_map got weights of shape {list(weights.shape)}, {len(target)} target and {len(source)} source "
            f"tokens: expected [{len(target)}, {len(source)}]"
        )
    figure = _figure(1.5 + 0.5 * len(source), 1.2 + 0.4 * len(target))
    axes = figure.add_subplot()
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=40, ha="left")
    axes.set_yticks(range(len(target)), target)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.set_title(title, loc="left")
    return _save(figure, path)
