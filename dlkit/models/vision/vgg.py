"""AlexNet and VGG: convolutions and max pooling, then three affine maps."""

from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctests)

from dlkit import nn
from dlkit.models.vision.names import named
from dlkit.nn import initializers

__all__ = ["alexnet", "alexnet_names", "vgg", "vgg_names"]

CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
HE = initializers.he_normal()


def _classifier(d: int, hidden: int, classes: int, dropout: float) -> dict[str, nn.Layer[Any, Any]]:
    # torch flattens channels first; in that order the first affine map's rows are those of published weights.
    parts: dict[str, nn.Layer[Any, Any]] = {"permute": nn.Permute((2, 0, 1)), "flatten": nn.Flatten()}
    parts |= {"linear1": nn.Linear(d, hidden, w_init=HE), "relu_a": nn.Relu(), "dropout1": nn.Dropout(dropout)}
    parts |= {"linear2": nn.Linear(hidden, hidden, w_init=HE), "relu_b": nn.Relu(), "dropout2": nn.Dropout(dropout)}
    return parts | {"head": nn.Linear(hidden, classes)}


def vgg(
    depth: int = 16,
    classes: int = 1000,
    *,
    norm: bool = False,
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    hidden: int = 4096,
    grid: int = 7,
    dropout: float = 0.5,
    channels: int = 3,
) -> nn.Chain:
    """VGG-11, 13, 16, 19: five stages of 3 x 3 convolutions, each ending in max pooling, and three affine maps.

    `[B, H, W, channels]` in, `[B, classes]` out; H and W of at least 32. The last pictures are brought to `grid` x
    `grid` places by adaptive mean pooling, as in torchvision (a 224 x 224 picture has 7 x 7 of its own).

    Args:
      depth: 11, 13, 16 or 19 layers with weights.
      classes: the number of outputs.
      norm: a `BatchNorm` behind every convolution (which keeps its bias, as in torchvision).
      widths: channels of the five stages.
      hidden: units of the first two affine maps; each is followed by `dropout`.
      grid: places of the last picture on each axis.
      channels: those of the picture.

    Parameters, with 1000 classes: 132,863,336 (11), 133,047,848 (13), 138,357,544 (16), 143,667,240 (19); 132,868,840
    (11 with norms). Paths: `conv1_1` is the first convolution of the first stage, as in the paper; `linear1`,
    `linear2`, `head`.

    >>> len(vgg_names(vgg(11))), vgg_names(vgg(11))["conv3_1"]
    (11, '/features.6')

    Raises:
      ValueError: another depth, or not five widths.

    Reference: Simonyan and Zisserman, Very deep convolutional networks, 2014, arXiv:1409.1556.
    """
    if depth not in CONVS:
        raise ValueError(f"vgg has the depths {', '.join(map(str, CONVS))}, got {depth}")
    if len(widths) != 5:
        raise ValueError(f"vgg has five stages and wants a width for each, got {tuple(widths)}")
    parts: dict[str, nn.Layer[Any, Any]] = {}
    c_in = channels
    for i, (n, c_out) in enumerate(zip(CONVS[depth], widths, strict=True), 1):
        for j in range(1, n + 1):
            parts[f"conv{i}_{j}"] = nn.Conv(c_in, c_out, 3, padding=1, w_init=HE)
            if norm:
                parts[f"norm{i}_{j}"] = nn.BatchNorm(c_out)
            parts[f"relu{i}_{j}"] = nn.Relu()
            c_in = c_out
        parts[f"pool{i}"] = nn.MaxPool(2)
    parts["mean"] = nn.AdaptiveAvgPool(grid)
    return nn.Chain(**parts, **_classifier(grid * grid * c_in, hidden, classes, dropout))


def vgg_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of a `vgg`: by path, with "/" for the root in front."""
    places = {name: f"features.{i}" for i, name in enumerate(model.names)}
    return named(
        model,
        {
            "linear1": "classifier.0", "linear2": "classifier.3", "head": "classifier.6",
            "(.*)": lambda path: places[path],
        },
    )  # fmt: skip


def alexnet(
    classes: int = 1000,
    *,
    widths: Sequence[int] = (64, 192, 384, 256, 256),
    hidden: int = 4096,
    grid: int = 6,
    dropout: float = 0.5,
    channels: int = 3,
) -> nn.Chain:
    """AlexNet in one column: five convolutions, three max poolings, three affine maps.

    `[B, H, W, channels]` in (H and W of at least 63), `[B, classes]` out. The widths are those of Krizhevsky's second
    paper (2014, arXiv:1404.5997), as in torchvision; the first (2012) had two columns and local response
    normalization. Parameters, with 1000 classes: 61,100,840.

    >>> alexnet_names(alexnet())["conv2"]
    '/features.3'

    Raises:
      ValueError: not five widths.

    Reference: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional networks, 2012.
    """
    if len(widths) != 5:
        raise ValueError(f"alexnet has five convolutions and wants a width for each, got {tuple(widths)}")
    a, b, c, d, e = widths
    head = _classifier(grid * grid * e, hidden, classes, dropout)
    # Dropout stands in front of the first two affine maps here, not behind them as in VGG.
    front = {"permute": head["permute"], "flatten": head["flatten"], "dropout1": head["dropout1"]}
    rest = {name: head[name] for name in ("linear1", "relu_a", "dropout2", "linear2", "relu_b", "head")}
    return nn.Chain(
        conv1=nn.Conv(channels, a, 11, stride=4, padding=2, w_init=HE), relu1=nn.Relu(), pool1=nn.MaxPool(3, 2),
        conv2=nn.Conv(a, b, 5, padding=2, w_init=HE), relu2=nn.Relu(), pool2=nn.MaxPool(3, 2),
        conv3=nn.Conv(b, c, 3, padding=1, w_init=HE), relu3=nn.Relu(),
        conv4=nn.Conv(c, d, 3, padding=1, w_init=HE), relu4=nn.Relu(),
        conv5=nn.Conv(d, e, 3, padding=1, w_init=HE), relu5=nn.Relu(), pool5=nn.MaxPool(3, 2),
        mean=nn.AdaptiveAvgPool(grid), **front, **rest,
    )  # fmt: skip


def alexnet_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of an `alexnet`: by path, with "/" for the root in front."""
    places = {1: 0, 2: 3, 3: 6, 4: 8, 5: 10}
    return named(
        model,
        {
            r"conv(\d)": lambda i: f"features.{places[int(i)]}",
            "linear1": "classifier.1", "linear2": "classifier.4", "head": "classifier.6",
        },
    )  # fmt: skip
