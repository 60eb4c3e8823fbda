"""MobileNet v2: inverted residuals (Sandler, Howard, Zhu, Zhmoginov and Chen 2018, arXiv:1801.04381)."""

from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctest)

from dlkit import nn
from dlkit.models.vision.names import named
from dlkit.nn import initializers

__all__ = ["mobilenet_v2", "mobilenet_v2_names"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths: as in the authors' code."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def mobilenet_v2(
    classes: int = 1000,
    *,
    width: float = 1.0,
    stages: Sequence[tuple[int, int, int, int]] = STAGES,
    dropout: float = 0.2,
    channels: int = 3,
) -> nn.Chain:
    """A 3 x 3 convolution, 17 inverted residuals (`nn.InvertedResidual`), a 1 x 1 convolution, mean, an affine map.

    `[B, H, W, channels]` in, `[B, classes]` out; the picture is halved five times.

    Args:
      classes: the number of outputs.
      width: a factor of all channels, which are then rounded to multiples of 8.
      stages: rows (expansion, channels, blocks, stride of the first block).
      dropout: in front of the affine map.
      channels: those of the picture.

    Parameters, with 1000 classes: 3,504,872. Paths: `stem/conv`, `block1/...` to `block17/...`, `last/conv`, `head`.

    >>> mobilenet_v2_names(mobilenet_v2())["block2/expand"]
    '/features.2.conv.0.0'
    """
    he = initializers.he_normal()
    c_in = _rounded(32 * width)
    parts: dict[str, nn.Layer[Any, Any]] = {
        "stem": nn.Chain(
            conv=nn.Conv(channels, c_in, 3, stride=2, padding=1, bias=False, w_init=he),
            norm=nn.BatchNorm(c_in), relu=nn.Relu6(),
        )
    }  # fmt: skip
    for expansion, c, n, stride in stages:
        c_out = _rounded(c * width)
        for j in range(n):
            block = nn.InvertedResidual(c_in, c_out, 1 if j else stride, expansion)
            parts[f"block{len(parts)}"] = block
            c_in = c_out
    last = _rounded(1280 * max(1.0, width))
    parts["last"] = nn.Chain(
        conv=nn.Conv(c_in, last, 1, bias=False, w_init=he), norm=nn.BatchNorm(last), relu=nn.Relu6()
    )
    return nn.Chain(**parts, mean=nn.GlobalAvgPool(), dropout=nn.Dropout(dropout), head=nn.Linear(last, classes))


def mobilenet_v2_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of a `mobilenet_v2`: by path, with "/" for the root in front."""
    last = sum(name.startswith("block") for name in model.names) + 1

    def place(i: str, layer: str) -> str:
        wide = model[f"block{i}"].expansion != 1  # else there is no expansion, and all stand one place earlier
        names = {"expand": "0.0", "norm1": "0.1", "depthwise": "1.0", "norm2": "1.1", "project": "2", "norm3": "3"}
        thin = {"depthwise": "0.0", "norm2": "0.1", "project": "1", "norm3": "2"}
        return f"features.{i}.conv.{(names if wide else thin)[layer]}"

    return named(
        model,
        {
            "stem/conv": "features.0.0", "stem/norm": "features.0.1",
            "last/conv": f"features.{last}.0", "last/norm": f"features.{last}.1",
            r"block(\d+)/(?:body/)?(\w+)": place, "head": "classifier.1",
        },
    )  # fmt: skip
