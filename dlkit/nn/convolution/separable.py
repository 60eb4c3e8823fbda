"""Convolutions that do not mix channels, and those that mix them afterwards: depthwise and separable."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, describe
from dlkit.nn.convolution.conv import Conv, ConvParams, Kernel, Padding, Size
from dlkit.nn.initializers import Initializer, Zeros, compute_fans, lecun_normal
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.linear import init_affine

__all__ = ["DepthwiseConv", "SeparableConv"]


@dataclass(frozen=True)
class DepthwiseConv(Kernel[ConvParams]):
    """Each channel convolved on its own, with `multiplier` kernels: x `[..., *spatial, c]`, y `[..., *out, c
    multiplier]`.

        y[n, c multiplier + j] = b[..] + sum over k of  x[n stride + k dilation - low, c] w[k, 0, c multiplier + j]

    It is `Conv(c, c * multiplier, kernel, groups=c)`, parameters and their starting values included, and has the other
    fields of `Conv` but `padding_mode` (put a `Pad` in front). `w` is `[*kernel, 1, c multiplier]` (torch: `[c
    multiplier, 1, *kernel]`; Keras: `[*kernel, c, multiplier]`, in the same order), `b` `[c multiplier]`.

    >>> layer = DepthwiseConv(3, kernel=3, multiplier=2)
    >>> params = layer.init(jax.random.key(0))
    >>> params["w"].shape, layer(params, jnp.ones((2, 8, 8, 3))).shape
    ((3, 3, 1, 6), (2, 8, 8, 6))

    Raises:
      ValueError: sizes or a multiplier below 1; x without `c` channels or too small.
      TypeError: x is not floating point, or not of the weights' dtype.
    """

    c: int
    kernel: Size
    multiplier: int = 1
    stride: Size = 1
    padding: Padding = "SAME"
    dilation: Size = 1
    bias: bool = True
    dims: int = 2
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        self.check_kernel()
        if self.c < 1 or self.multiplier < 1:
            raise ValueError(f"{describe(self)}: expected at least 1 channel and a multiplier of at least 1")

    def init(self, key: Any) -> ConvParams:
        shape = (*self.kernel_shape, 1, self.c * self.multiplier)
        return init_affine(key, self, shape, compute_fans(shape, self.c))

    def __call__(self, params: ConvParams, x: Array) -> Float[Array, "*out {self.c*self.multiplier}"]:
        self.check_input(x, self.c, "c", params["w"])
        return functional.conv(
            x,
            params["w"],
            params.get("b"),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.c,
        )


@dataclass(frozen=True)
class SeparableConv(Pure[Any]):
    """A depthwise convolution, then a 1x1 one that mixes the channels: x `[..., *spatial, c_in]`, y `[..., *out,
    c_out]`.

        y = b + (x depthwise-convolved with multiplier kernels a channel) w_pointwise

    `kernel`, `stride`, `padding`, `dilation` and `dims` are those of the depthwise part. With `multiplier=1` it costs
    `1 / c_out + 1 / prod(kernel)` of `Conv(c_in, c_out, kernel)`. There is nothing between the two parts and one bias,
    at the end, as in Keras; MobileNet's block has normalization and an activation between them: `Chain(DepthwiseConv,
    BatchNorm, Relu6, Conv(kernel=1), ...)`.

    Parameters: `depthwise/w` `[*kernel, 1, c_in multiplier]`, `pointwise/w` `[1.., c_in multiplier, c_out]`,
    `pointwise/b` `[c_out]` unless `bias=False`. Each starts with variance `1 / fan_in` (Keras: Glorot's uniform).

    >>> layer = SeparableConv(3, 8, kernel=3, stride=2)
    >>> params = layer.init(jax.random.key(0))
    >>> params["depthwise"]["w"].shape, params["pointwise"]["w"].shape, layer(params, jnp.ones((2, 8, 8, 3))).shape
    ((3, 3, 1, 3), (1, 1, 3, 8), (2, 4, 4, 8))

    Raises:
      ValueError: sizes or a multiplier below 1; x without `c_in` channels or too small.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Chollet, Xception: Deep learning with depthwise separable convolutions, 2016, arXiv:1610.02357.
    """

    c_in: int
    c_out: int
    kernel: Size
    multiplier: int = 1
    stride: Size = 1
    padding: Padding = "SAME"
    dilation: Size = 1
    bias: bool = True
    dims: int = 2
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> dict[str, Layer | tuple[Layer, ...]]:
        depthwise = DepthwiseConv(
            self.c_in,
            self.kernel,
            self.multiplier,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            bias=False,
            dims=self.dims,
            w_init=self.w_init,
        )
        pointwise = Conv(
            self.c_in * self.multiplier,
            self.c_out,
            kernel=(1,) * len(depthwise.kernel_shape),
            padding="VALID",
            bias=self.bias,
            w_init=self.w_init,
            b_init=self.b_init,
        )
        return {"depthwise": depthwise, "pointwise": pointwise}

    def __call__(self, params: Any, x: Array) -> Float[Array, "*out {self.c_out}"]:
        parts: Any = self.parts()
        check_axis(self, x, -1, self.c_in, f"c_in={self.c_in}")
        return parts["pointwise"](params["pointwise"], parts["depthwise"](params["depthwise"], x))
