"""Blocks of convolutional networks: residual, bottleneck, inverted residual, ConvNeXt.

Images are `[..., H, W, C]`. In the tables below, what torchvision calls the same arrays.
"""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401

from dlkit.nn.activations import Gelu
from dlkit.nn.checks import describe
from dlkit.nn.combinators import Chain, Residual
from dlkit.nn.convolution.conv import Conv
from dlkit.nn.convolution.excite import LayerScale, SqueezeExcite
from dlkit.nn.initializers import Constant, Initializer, he_normal, lecun_normal
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.linear import Linear
from dlkit.nn.normalization.batch_norm import BatchNorm
from dlkit.nn.normalization.norms import LayerNorm
from dlkit.nn.piecewise import Relu, Relu6
from dlkit.nn.recipe import Recipe
from dlkit.nn.stochastic_depth import DropPath

__all__ = ["BasicBlock", "Bottleneck", "ConvNeXtBlock", "InvertedResidual"]


def _conv(c_in: int, c_out: int, kernel: int, w_init: Initializer, stride: int = 1, groups: int = 1) -> Conv:
    # Half a kernel on each side, as in the papers: "SAME" with stride 2 would pad more on one side.
    padding = kernel // 2
    return Conv(c_in, c_out, kernel, stride=stride, padding=padding, groups=groups, bias=False, w_init=w_init)


def _projection(block: Any) -> Layer | None:
    """None where x fits the output as it is; a convolution of size 1 with a batch norm where it does not."""
    if block.shortcut is not None:
        return block.shortcut
    if (block.stride, block.c_in) == (1, block.c_out):
        return None
    return Chain(conv=_conv(block.c_in, block.c_out, 1, block.w_init, block.stride), norm=BatchNorm(block.c_out))


@dataclass(frozen=True)
class BasicBlock(Recipe):
    """`relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))`, both convolutions 3 x 3: the block of ResNet-18 and 34.

    x `[..., H, W, c_in]`, y `[..., H / stride, W / stride, c_out]`; the first convolution has the stride. The shortcut
    is x itself where the shapes allow, else a 1 x 1 convolution with a batch norm (the paper's option B), or the layer
    `shortcut`, such as `models.PadShortcut` (option A).

    Parameters, and torchvision's names of them: `residual/body/conv1/w` (conv1.weight), `norm1/scale`, `norm1/shift`
    (bn1.weight, bias), `conv2`, `norm2`, `residual/shortcut/conv/w`, `norm` (downsample.0, 1).

    >>> from dlkit.nn import EVAL
    >>> layer = BasicBlock(8, 16, stride=2)
    >>> x = jnp.ones((2, 8, 8, 8))
    >>> layer.apply(layer.init(jax.random.key(0)), layer.init_state(), x, EVAL)[0].shape
    (2, 4, 4, 16)

    Reference: He, Zhang, Ren and Sun, Deep residual learning, 2015, arXiv:1512.03385.
    """

    c_in: int
    c_out: int
    stride: int = 1
    shortcut: Layer | None = None
    w_init: Initializer = he_normal()

    def build(self) -> Chain:
        body = Chain(
            conv1=_conv(self.c_in, self.c_out, 3, self.w_init, self.stride), norm1=BatchNorm(self.c_out), relu=Relu(),
            conv2=_conv(self.c_out, self.c_out, 3, self.w_init), norm2=BatchNorm(self.c_out),
        )  # fmt: skip
        return Chain(residual=Residual(body, _projection(self)), relu=Relu())


@dataclass(frozen=True)
class Bottleneck(Recipe):
    """Convolutions 1 x 1 to `c_out / 4` channels, 3 x 3, 1 x 1 to `c_out`, around a shortcut: ResNet-50 and deeper.

    `y = relu(shortcut(x) + bn(conv(relu(bn(conv(relu(bn(conv(x)))))))))`, x `[..., H, W, c_in]`, y `[..., H / stride,
    W / stride, c_out]`. The 3 x 3 convolution has the stride, as in torchvision and in "ResNet v1.5"; in the paper the
    first 1 x 1 has it. `c_out` counts the outputs (torchvision's `planes` is `c_out / 4`). `groups` makes a ResNeXt,
    `width` sets the inner channels (`c_out / 4` if 0). The shortcut is that of `BasicBlock`.

    Parameters, and torchvision's names of them: `residual/body/conv1/w` (conv1.weight), `norm1` (bn1), `conv2`,
    `norm2`, `conv3`, `norm3`, `residual/shortcut/conv/w`, `norm` (downsample.0, 1).

    >>> from dlkit.nn import EVAL
    >>> layer = Bottleneck(8, 16, stride=2)
    >>> x = jnp.ones((2, 8, 8, 8))
    >>> layer.apply(layer.init(jax.random.key(0)), layer.init_state(), x, EVAL)[0].shape
    (2, 4, 4, 16)

    Raises:
      ValueError: no `width`, and `c_out` is not a multiple of 4.

    Reference: He, Zhang, Ren and Sun, Deep residual learning, 2015, arXiv:1512.03385.
    """

    c_in: int
    c_out: int
    stride: int = 1
    groups: int = 1
    width: int = 0
    shortcut: Layer | None = None
    w_init: Initializer = he_normal()

    def __post_init__(self) -> None:
        if self.width == 0 and self.c_out % 4:
            raise ValueError(f"{describe(self)}: expected c_out to be a multiple of 4, or a width")

    def build(self) -> Chain:
        width = self.width or self.c_out // 4
        body = Chain(
            conv1=_conv(self.c_in, width, 1, self.w_init), norm1=BatchNorm(width), relu1=Relu(),
            conv2=_conv(width, width, 3, self.w_init, self.stride, self.groups), norm2=BatchNorm(width), relu2=Relu(),
            conv3=_conv(width, self.c_out, 1, self.w_init), norm3=BatchNorm(self.c_out),
        )  # fmt: skip
        return Chain(residual=Residual(body, _projection(self)), relu=Relu())


@dataclass(frozen=True)
class InvertedResidual(Recipe):
    """Narrow, wide, narrow: a 1 x 1 convolution to `expansion c_in` channels, a depthwise one, a 1 x 1 to `c_out`.

    `y = bn(project(act(bn(depthwise(act(bn(expand(x))))))))`, plus x where stride is 1 and `c_in = c_out`; nothing
    nonlinear at the narrow end. x `[..., H, W, c_in]`, y `[..., H / stride, W / stride, c_out]`. At `expansion=1` there
    is no `expand`. With `squeeze` above 0, a `SqueezeExcite` of so many hidden channels stands before `project`, and
    with `Silu()` for the activation it is the MBConv of EfficientNet. `rate` is that of a `DropPath` at the end of a
    branch that is added.

    Parameters, and torchvision's names in MobileNetV2: `expand/w` (conv.0.0.weight), `norm1` (conv.0.1), `depthwise/w`
    (conv.1.0), `norm2` (conv.1.1), `project/w` (conv.2), `norm3` (conv.3); under `body/` where x is added.

    >>> from dlkit.nn import EVAL
    >>> layer = InvertedResidual(8, 16, stride=2)
    >>> x = jnp.ones((2, 8, 8, 8))
    >>> layer.apply(layer.init(jax.random.key(0)), layer.init_state(), x, EVAL)[0].shape
    (2, 4, 4, 16)

    Reference: Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, 2018, arXiv:1801.04381.
    """

    c_in: int
    c_out: int
    stride: int = 1
    expansion: int = 6
    kernel: int = 3
    activation: Pure[Any] = Relu6()
    squeeze: int = 0
    rate: float = 0.0
    w_init: Initializer = he_normal()

    def build(self) -> Layer:
        d, parts = self.c_in * self.expansion, {}
        if self.expansion != 1:
            parts |= {
                "expand": _conv(self.c_in, d, 1, self.w_init), "norm1": BatchNorm(d), "act1": self.activation,
            }  # fmt: skip
        parts |= {
            "depthwise": _conv(d, d, self.kernel, self.w_init, self.stride, d), "norm2": BatchNorm(d),
            "act2": self.activation,
        }  # fmt: skip
        if self.squeeze:
            parts["excite"] = SqueezeExcite(d, self.squeeze, self.activation)
        parts |= {"project": _conv(d, self.c_out, 1, self.w_init), "norm3": BatchNorm(self.c_out)}
        added = (self.stride, self.c_in) == (1, self.c_out)
        if added and self.rate:
            parts["drop_path"] = DropPath(self.rate)
        body = Chain(**parts)
        return Residual(body) if added else body


@dataclass(frozen=True)
class ConvNeXtBlock(Recipe):
    """`y = x + scale * project(gelu(expand(norm(depthwise(x)))))`: a depthwise convolution, a norm, an MLP a position.

    x and y `[..., H, W, d]`. The convolution is `kernel x kernel` (7) and has a bias, the norm a `LayerNorm` with eps
    1e-6, the MLP `expansion d` hidden units, `scale` a `LayerScale` from 1e-6. `rate` is that of a `DropPath`.

    Parameters, and torchvision's names: `body/depthwise` (block.0), `norm` (block.2), `expand` (block.3), `project`
    (block.5), `scale/scale` (layer_scale).

    >>> from dlkit.nn import EVAL
    >>> layer = ConvNeXtBlock(8)
    >>> layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((2, 8, 8, 8)), EVAL)[0].shape
    (2, 8, 8, 8)

    Reference: Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545.
    """

    d: int
    kernel: int = 7
    expansion: int = 4
    rate: float = 0.0
    scale_init: Initializer = Constant(1e-6)
    w_init: Initializer = lecun_normal()

    def build(self) -> Residual:
        parts: dict[str, Layer] = {
            "depthwise": Conv(self.d, self.d, self.kernel, padding=self.kernel // 2, groups=self.d, w_init=self.w_init),
            "norm": LayerNorm(self.d, eps=1e-6),
            "expand": Linear(self.d, self.expansion * self.d, w_init=self.w_init),
            "gelu": Gelu(),
            "project": Linear(self.expansion * self.d, self.d, w_init=self.w_init),
            "scale": LayerScale(self.d, self.scale_init),
        }
        if self.rate:
            parts["drop_path"] = DropPath(self.rate)
        return Residual(Chain(**parts))
