"""ConvNeXt: a convolutional network in the proportions of a transformer (Liu et al. 2022, arXiv:2201.03545)."""

from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctest)

from dlkit import nn
from dlkit.models.vision.names import named

__all__ = ["convnext", "convnext_names"]


def convnext(
    classes: int = 1000,
    *,
    blocks: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    patch: int = 4,
    drop_path: float = 0.1,
    channels: int = 3,
) -> nn.Chain:
    """ConvNeXt, by default the tiny one: patches, four stages of `nn.ConvNeXtBlock`, mean, a norm, an affine map.

    `[B, H, W, channels]` in, `[B, classes]` out; a patch is `patch` x `patch`, and between stages a norm and a 2 x 2
    convolution halve the picture. Block i of n is left out in training with probability `drop_path i / (n - 1)`. The
    factor of a branch starts at 1e-6, as in the paper, so a new network learns slowly at first.

    Args:
      classes: the number of outputs.
      blocks: blocks of each stage.
      widths: channels of each stage.
      patch: the side of a patch; 1 or 2 suit pictures of 32 x 32.
      drop_path: the probability for the last block.
      channels: those of the picture.

    Parameters, with 1000 classes: 28,589,128. Paths: `patches`, `norm`, `stage1/block1/body/depthwise`, ...,
    `down2/conv`, `last`, `head`.

    >>> convnext_names(convnext())["stage2/block1/body/expand"]
    '/features.3.0.block.3'

    Raises:
      ValueError: not a width for each stage.
    """
    if len(blocks) != len(widths):
        raise ValueError(f"convnext wants a width for each stage, got blocks {tuple(blocks)}, widths {tuple(widths)}")
    parts: dict[str, nn.Layer[Any, Any]] = {
        "patches": nn.Conv(channels, widths[0], patch, stride=patch, padding=0), "norm": nn.LayerNorm(widths[0], 1e-6)
    }  # fmt: skip
    done, n = 0, sum(blocks)
    for i, (count, c) in enumerate(zip(blocks, widths, strict=True)):
        if i:
            conv = nn.Conv(widths[i - 1], c, 2, stride=2, padding=0)
            parts[f"down{i + 1}"] = nn.Chain(norm=nn.LayerNorm(widths[i - 1], 1e-6), conv=conv)
        rates = [drop_path * (done + j) / max(n - 1, 1) for j in range(count)]
        parts[f"stage{i + 1}"] = nn.Chain(**{f"block{j + 1}": nn.ConvNeXtBlock(c, rate=r) for j, r in enumerate(rates)})
        done += count
    return nn.Chain(
        **parts, mean=nn.GlobalAvgPool(), last=nn.LayerNorm(widths[-1], 1e-6), head=nn.Linear(widths[-1], classes)
    )


def convnext_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of a `convnext`: by path, with "/" for the root in front.

    The factors `layer_scale` are modules of their own there, with an array `[d, 1, 1]`: the name is that of the array.
    """
    places = {"depthwise": 0, "norm": 2, "expand": 3, "project": 5}
    return named(
        model,
        {
            "patches": "features.0.0", "norm": "features.0.1", "last": "classifier.0", "head": "classifier.2",
            r"down(\d)/norm": lambda i: f"features.{2 * int(i) - 2}.0",
            r"down(\d)/conv": lambda i: f"features.{2 * int(i) - 2}.1",
            r"stage(\d)/block(\d+)/body/scale":
                lambda i, j: f"features.{2 * int(i) - 1}.{int(j) - 1}.layer_scale",
            r"stage(\d)/block(\d+)/body/(\w+)":
                lambda i, j, leaf: f"features.{2 * int(i) - 1}.{int(j) - 1}.block.{places[leaf]}",
        },
    )  # fmt: skip
