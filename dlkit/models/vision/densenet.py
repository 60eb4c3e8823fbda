"""DenseNet: every layer sees all before it (Huang, Liu, van der Maaten and Weinberger 2016, arXiv:1608.06993)."""

from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctest)

from dlkit import nn
from dlkit.models.vision.branches import Branches
from dlkit.models.vision.names import named
from dlkit.nn import initializers

__all__ = ["densenet", "densenet_names"]


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv:
    he = initializers.he_normal()
    return nn.Conv(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False, w_init=he)


def densenet(
    classes: int = 1000,
    *,
    growth: int = 32,
    blocks: Sequence[int] = (6, 12, 24, 16),
    width: int = 64,
    bottleneck: int = 4,
    channels: int = 3,
) -> nn.Chain:
    """DenseNet-BC, by default DenseNet-121: dense blocks with a transition between two of them.

        x = [x, conv3(relu(norm(conv1(relu(norm(x))))))]       a layer of a dense block: `growth` new channels

    `[B, H, W, channels]` in, `[B, classes]` out. A transition halves the channels and, by a mean pooling, the picture.

    Args:
      classes: the number of outputs.
      growth: channels that a layer adds; its 1 x 1 convolution has `bottleneck` times as many.
      blocks: layers of each dense block.
      width: channels of the stem.
      channels: those of the picture.

    Parameters, with 1000 classes: 7,978,856. Paths: `conv`, `norm`, `block1/layer1/branch2/norm1`, ...,
    `transition1/norm`, `last/norm`, `head`.

    >>> densenet_names(densenet())["block1/layer2/branch2/conv2"]
    '/features.denseblock1.denselayer2.conv2'
    """
    parts: dict[str, nn.Layer[Any, Any]] = {
        "conv": _conv(channels, width, 7, 2), "norm": nn.BatchNorm(width), "relu": nn.Relu(),
        "pool": nn.MaxPool(3, 2, padding=1),
    }  # fmt: skip
    c = width
    for i, n in enumerate(blocks, 1):
        layers = {}
        for j in range(1, n + 1):
            inner = bottleneck * growth
            new = nn.Chain(
                norm1=nn.BatchNorm(c), relu1=nn.Relu(), conv1=_conv(c, inner, 1),
                norm2=nn.BatchNorm(inner), relu2=nn.Relu(), conv2=_conv(inner, growth, 3),
            )  # fmt: skip
            layers[f"layer{j}"] = Branches(nn.Identity(), new)
            c += growth
        parts[f"block{i}"] = nn.Chain(**layers)
        if i < len(blocks):
            parts[f"transition{i}"] = nn.Chain(
                norm=nn.BatchNorm(c), relu=nn.Relu(), conv=_conv(c, c // 2, 1), pool=nn.AvgPool(2)
            )
            c //= 2
    parts["last"] = nn.Chain(norm=nn.BatchNorm(c), relu=nn.Relu())
    return nn.Chain(**parts, mean=nn.GlobalAvgPool(), head=nn.Linear(c, classes))


def densenet_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of a `densenet`: by path, with "/" for the root in front."""
    return named(
        model,
        {
            "conv": "features.conv0", "norm": "features.norm0", "last/norm": "features.norm5",
            r"block(\d)/layer(\d+)/branch2/(\w+)": "features.denseblock{0}.denselayer{1}.{2}",
            r"transition(\d)/(\w+)": "features.transition{0}.{1}", "head": "classifier",
        },
    )  # fmt: skip
