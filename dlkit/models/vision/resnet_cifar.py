"""Residual networks for 32 x 32 pictures (He, Zhang, Ren, Sun, "Deep residual learning", 2015, arXiv:1512.03385)."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import initializers

__all__ = ["PadShortcut", "block", "resnet20"]


@dataclass(frozen=True)
class PadShortcut(nn.Pure[Any]):
    """The shortcut without parameters, the paper's option A: every `stride`-th pixel, and zeros for the new channels.

    `[B, H, W, c_in]` to `[B, H / stride, W / stride, c_out]`; half of the zeros before the old channels, half after.

    >>> PadShortcut(2, 4, 2)({}, jnp.ones((1, 8, 8, 2))).shape
    (1, 4, 4, 4)

    Raises:
      ValueError: there are fewer channels after than before.
    """

    c_in: int
    c_out: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.c_out < self.c_in:
            raise ValueError(f"PadShortcut adds channels, it cannot go from {self.c_in} to {self.c_out}")

    def __call__(self, params: Any, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h2 w2 c_out"]:
        before = (self.c_out - self.c_in) // 2
        x = x[..., :: self.stride, :: self.stride, :]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, self.c_out - self.c_in - before)])


def block(c_in: int, c_out: int, stride: int = 1) -> nn.BasicBlock:
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), `[B, H, W, c_in]` to `[B, H / stride, W / stride, c_out]`.

    `nn.BasicBlock` with the shortcut of option A. Parameters: `9 c_in c_out + 9 c_out^2 + 4 c_out`.

    >>> block(16, 16)
    BasicBlock(c_in=16, c_out=16)
    """
    shortcut = None if (stride, c_in) == (1, c_out) else PadShortcut(c_in, c_out, stride)
    return nn.BasicBlock(c_in, c_out, stride, shortcut)


def resnet20(classes: int = 10) -> nn.Chain:
    """ResNet-20: a convolution, three stages of three blocks with 16, 32, 64 channels, mean over the picture, a map.

    `[B, 32, 32, 3]` in, `[B, classes]` out. Shortcuts are option A of the paper (`PadShortcut`), so the network has
    269,722 parameters with 10 classes, the paper's 0.27M; projections (option B) would make it 272,474.

    >>> import jax
    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(resnet20().init, jax.random.key(0)))
    269722
    """
    stages = {}
    c_in = 16
    for i, c_out in enumerate((16, 32, 64), 1):
        blocks = [block(c_in, c_out, 1 if i == 1 else 2), block(c_out, c_out), block(c_out, c_out)]
        stages[f"stage{i}"] = nn.Chain(**{f"block{j}": b for j, b in enumerate(blocks, 1)})
        c_in = c_out
    return nn.Chain(
        conv=_conv(3, 16), norm=nn.BatchNorm(16), relu=nn.Relu(), **stages,
        pool=nn.GlobalAvgPool(), head=nn.Linear(64, classes),
    )  # fmt: skip


def _conv(c_in: int, c_out: int, stride: int = 1) -> nn.Layer[Any, Any]:
    # One pixel on each side, as in the paper: "SAME" with stride 2 would pad on one side only.
    return nn.Conv(c_in, c_out, 3, stride=stride, padding=1, bias=False, w_init=initializers.he_normal())
