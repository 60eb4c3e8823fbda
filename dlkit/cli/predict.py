"""`dlkit predict`: image files in, probabilities out."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from dlkit.cli.report import say
from dlkit.wording import percent

__all__ = ["Predict", "probabilities"]


@dataclass(frozen=True)
class Predict:
    """Say what a trained model sees in pictures: PNG or JPEG files in, probabilities out.

    A picture is converted to grey (or RGB, as the model was trained), resized to the model's input by averaging over
    areas and scaled to [0, 1]. The digits datasets are white on black: give --invert for dark ink on light paper.
    """

    run_: Annotated[Positional[str], arg(metavar="RUN", name="run")]
    """The directory of a run, such as runs/digits_cnn (or the config that made it)."""
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE ...", help_behavior_hint="(required)")]
    """PNG or JPEG files."""
    invert: bool = False
    """The pictures are dark on light."""
    json: bool = False
    """Print JSON: a list with an object for each picture."""

    def run(self) -> int:
        from dlkit.cli.pictures import read_picture
        from dlkit.cli.runs import locate, restored
        from dlkit.cli.setup import prepare
        from dlkit.config import build
        from dlkit.config.errors import ConfigError
        from dlkit.config.model_parts import REBUILD

        if not self.images:
            raise ConfigError("predict wants at least one picture: dlkit predict RUN IMAGE ...")
        folder, config = locate(self.run_)
        if config.data.name in ("text", "pairs"):
            raise ConfigError(f"this run is of {config.data.name}, not of pictures: dlkit generate continues text")
        shape = build.input_shape(config)
        if config.model.name in REBUILD:
            raise ConfigError(f"this run is of a {config.model.name}, which knows no classes; dlkit plot draws it")
        if shape is None:
            raise ConfigError("this model does not say what its input is: set model.input in its config")
        pictures = np.stack([read_picture(path, shape, invert=self.invert) for path in self.images])
        if config.data.name in ("mnist", "cifar10"):  # trained on bytes, which it rescales itself
            pictures = (pictures * 255).round().astype(np.uint8)
        with prepare(config.train.platform, config.train.matmul_precision):
            from dlkit import train
            from dlkit.config.assemble import task_of

            model = task_of(config).model
            params, state, _ = restored(folder, model)
            outputs = np.asarray(train.predict(model, params, state, pictures), np.float64)
        said = probabilities(outputs, config.loss.name)
        word = "scores" if said is None else "probabilities"
        values = outputs if said is None else said
        found = [_entry(path, row, word) for path, row in zip(self.images, values, strict=True)]
        if self.json:
            say(json.dumps(found, indent=1))
            return 0
        for path, entry, picture in zip(self.images, found, pictures, strict=True):
            say(_text(path, entry, word))
            if not self.invert and picture.mean() > 0.5 * (255 if picture.dtype == np.uint8 else 1):
                say("  note: the picture is light: if it shows dark strokes on light paper, add --invert")
        if said is None:
            say(f"\nThe model was trained with {config.loss.name}: these are scores, not probabilities.")
        return 0


def probabilities(outputs: Any, loss: str) -> Any:
    """The probabilities `[N, C]` that outputs mean under a loss; None where they are scores."""
    if loss in ("cross_entropy", "focal"):
        exp = np.exp(outputs - outputs.max(-1, keepdims=True))
        return exp / exp.sum(-1, keepdims=True)
    return 1 / (1 + np.exp(-outputs)) if loss == "binary_cross_entropy" else None


def _entry(path: str, row: Any, word: str) -> dict[str, Any]:
    values = np.ravel(row)
    return {"image": path, "class": int(values.argmax()), word: {str(k): float(v) for k, v in enumerate(values)}}


def _text(path: str, entry: dict[str, Any], word: str) -> str:
    ranked = sorted(entry[word].items(), key=lambda item: -item[1])[:5]
    rows = []
    for name, value in ranked:
        if word == "probabilities":
            rows.append(f"  {name:>3}  {percent(value):>8}  {'#' * round(30 * value)}")
        else:
            rows.append(f"  {name:>3}  {value:8.3f}")
    return "\n".join([f"{path}: {entry['class']}", *(row.rstrip() for row in rows)])
