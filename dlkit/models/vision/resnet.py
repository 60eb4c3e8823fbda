"""Residual networks for pictures of 224 x 224 (He, Zhang, Ren and Sun, "Deep residual learning", 2015, 1512.03385)."""

from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctest)

from dlkit import nn
from dlkit.models.vision.names import named
from dlkit.nn import initializers

__all__ = ["resnet", "resnet_names"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet(
    depth: int = 50, classes: int = 1000, *, blocks: Sequence[int] | None = None, width: int = 64, channels: int = 3
) -> nn.Chain:
    """ResNet-18, 34, 50, 101, 152: a 7 x 7 convolution, max pooling, four stages of blocks, mean, an affine map.

    `[B, H, W, channels]` in, `[B, classes]` out, for any H and W; each stage but the first halves the picture, which
    the stem has made a quarter as wide. `nn.BasicBlock` at 18 and 34, `nn.Bottleneck` (the stride in the 3 x 3
    convolution, "v1.5", as in torchvision) from 50 on. Shortcuts are option B.

    Args:
      depth: 18, 34, 50, 101 or 152, which says what the blocks are and how many.
      classes: the number of outputs.
      blocks: blocks of each stage in place of those of `depth`.
      width: channels of the stem; the stages have 1, 2, 4, 8 times as many (4 times that, outside of bottlenecks).
      channels: those of the picture.

    Parameters, with 1000 classes: 11,689,512; 21,797,672; 25,557,032; 44,549,160; 60,192,808. Paths: `conv`, `norm`,
    `stage1/block1/...`, `head`; `resnet_names` says what they are in torchvision.

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(resnet(18).init, jax.random.key(0)))
    11689512

    Raises:
      ValueError: another depth.
    """
    if depth not in BLOCKS:
        raise ValueError(f"resnet has the depths {', '.join(map(str, BLOCKS))}, got {depth}; give blocks= for others")
    c_in, stages = width, {}
    for i, n in enumerate(BLOCKS[depth] if blocks is None else blocks):
        made = {}
        for j in range(n):
            stride = 2 if i and not j else 1
            inner = width * 2**i
            made[f"block{j + 1}"] = (
                nn.BasicBlock(c_in, inner, stride) if depth < 50 else nn.Bottleneck(c_in, 4 * inner, stride)
            )
            c_in = inner if depth < 50 else 4 * inner
        stages[f"stage{i + 1}"] = nn.Chain(**made)
    stem = nn.Conv(channels, width, 7, stride=2, padding=3, bias=False, w_init=initializers.he_normal())
    return nn.Chain(
        conv=stem, norm=nn.BatchNorm(width), relu=nn.Relu(), pool=nn.MaxPool(3, 2, padding=1), **stages,
        mean=nn.GlobalAvgPool(), head=nn.Linear(c_in, classes),
    )  # fmt: skip


def resnet_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of a `resnet`: by path, with "/" for the root in front.

    >>> resnet_names(resnet(18))["stage2/block1/residual/shortcut/norm"]
    '/layer2.0.downsample.1'
    """
    at = r"stage(\d)/block(\d+)/residual"
    return named(
        model,
        {
            "conv": "conv1", "norm": "bn1", "head": "fc",
            rf"{at}/body/conv(\d)": "layer{0}.{b}.conv{2}", rf"{at}/body/norm(\d)": "layer{0}.{b}.bn{2}",
            rf"{at}/shortcut/conv": "layer{0}.{b}.downsample.0", rf"{at}/shortcut/norm": "layer{0}.{b}.downsample.1",
        },
    )  # fmt: skip
