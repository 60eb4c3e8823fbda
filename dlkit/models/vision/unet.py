"""U-Net: down to a small picture and up again, with what was seen on the way down put beside."""

from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctest)

from dlkit import nn
from dlkit.models.vision.branches import Branches
from dlkit.nn import initializers

__all__ = ["unet"]


def _two(c_in: int, c_out: int, norm: bool) -> dict[str, nn.Layer[Any, Any]]:
    parts: dict[str, nn.Layer[Any, Any]] = {}
    for i in (1, 2):
        he = initializers.he_normal()
        parts[f"conv{i}"] = nn.Conv(c_in if i == 1 else c_out, c_out, 3, padding=1, bias=not norm, w_init=he)
        if norm:
            parts[f"norm{i}"] = nn.BatchNorm(c_out)
        parts[f"relu{i}"] = nn.Relu()
    return parts


def unet(
    channels: int = 1, classes: int = 2, widths: Sequence[int] = (64, 128, 256, 512, 1024), *, norm: bool = False
) -> nn.Chain:
    """A class for every pixel: `[B, H, W, channels]` in, `[B, H, W, classes]` out.

        level(x) = two([x, up(two(... pool(x)))])

    At each level two 3 x 3 convolutions, a max pooling to half the picture, the level below, a 2 x 2 transposed
    convolution back, and two convolutions over both pictures side by side; at the end a 1 x 1 convolution. Pictures are
    padded, so that the output is as large as the input; the paper pads nothing and cuts the pictures that are put
    beside, with as many parameters.

    Args:
      channels: those of the picture.
      classes: the number of outputs at a pixel.
      widths: channels of each level; H and W are multiples of 2^(levels - 1).
      norm: a `BatchNorm` behind each convolution, which takes the place of its bias.

    Parameters: 31,030,658 as it stands. Paths: `down/conv1`, `across/branch2/down/conv1`, ..., `up/conv2`, `head`.

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(unet().init, jax.random.key(0)))
    31030658

    Raises:
      ValueError: no width.

    Reference: Ronneberger, Fischer and Brox, U-Net, 2015, arXiv:1505.04597.
    """
    if not widths:
        raise ValueError("unet wants the channels of at least one level")
    *above, bottom = widths
    c_in = [channels, *above]
    inner = nn.Chain(**_two(c_in[-1], bottom, norm))
    below = bottom
    for level in reversed(range(len(above))):
        c = above[level]
        across = nn.Chain(
            pool=nn.MaxPool(2), inner=inner, expand=nn.ConvTranspose(below, c, 2, stride=2, padding="VALID")
        )
        inner = nn.Chain(
            down=nn.Chain(**_two(c_in[level], c, norm)), across=Branches(nn.Identity(), across),
            up=nn.Chain(**_two(2 * c, c, norm)),
        )  # fmt: skip
        below = c
    return nn.Chain(**inner.parts(), head=nn.Conv(below, classes, 1))  # pyright: ignore[reportArgumentType]
