"""The pictures beside a run: learning curves, confusion matrix, misclassified examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["draw", "predictions", "rebuilds", "save_example"]


def draw(folder: Path, history: Sequence[Mapping[str, Any]], outputs: Any, test: Any, loss: str) -> list[Path]:
    """Draw what this run allows: curves where there is a history, the others where classes are told apart.

    Args:
      folder: the run's directory.
      history: one row an epoch.
      outputs: the model's outputs on the test set `[N, C]`, or None.
      test: the test set, or None.
      loss: the name of the loss, which says whether outputs are logits.
    """
    from dlkit import inspect
    from dlkit.cli.predict import probabilities

    made = []
    if history:
        made.append(inspect.learning_curves(history, folder / "learning_curves.png", title=folder.name))
    if outputs is None or test is None or outputs.ndim != 2 or outputs.shape[1] < 2 or test["y"].dtype.kind not in "iu":
        return made
    targets, predictions, classes = test["y"], outputs.argmax(-1), outputs.shape[1]
    if targets.ndim != 1 or targets.min() < 0 or targets.max() >= classes:
        return made
    names = test.classes if test.classes is not None and len(test.classes) == classes else None
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (targets, predictions), 1)
    title = f"{folder.name}, test set"
    made.append(inspect.confusion_matrix(matrix, names, folder / "confusion_matrix.png", title=title))
    x = test["x"]
    if x.ndim == 4 and x.shape[-1] in (1, 3):
        said = probabilities(outputs, loss)
        path = folder / "misclassified.png"
        made.append(
            inspect.misclassified(x, targets, predictions, said, names, path, title=f"{folder.name}, misclassified")
        )
    return made


def rebuilds(parts: Any) -> bool:
    """Whether the run is of an autoencoder whose pictures can be drawn."""
    return parts.task.targets == "x" and parts.test is not None


def predictions(parts: Any, params: Any, state: Any) -> Any:
    """The model's outputs on the test set; None where they are as large as the data: autoencoders, text."""
    from dlkit import train

    if rebuilds(parts) or parts.tokenizer is not None:
        return None
    names = parts.task.inputs
    x = parts.test[names] if isinstance(names, str) else tuple(parts.test[name] for name in names)
    return train.predict(parts.task.model, params, state, x, batch_size=parts.eval_batch_size)


def save_example(folder: Path, test: Any) -> Path | None:
    """The first example of the test set as a picture of its own, to try `dlkit predict` on; None if it is none."""
    if test is None or test["x"].ndim != 4 or test["x"].shape[-1] not in (1, 3):
        return None
    try:
        from PIL import Image
    except ImportError:
        return None
    x = test["x"][0]
    pixels = x if x.dtype == np.uint8 else (np.clip(x, 0, 1) * 255).round().astype(np.uint8)
    path = folder / "example.png"
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return path
