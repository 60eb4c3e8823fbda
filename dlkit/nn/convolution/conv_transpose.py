"""The transposed convolution as a layer, in one, two and three dimensions."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.convolution.conv import Kernel, Padding, Size, check_groups
from dlkit.nn.initializers import Initializer, Zeros, compute_fans, lecun_normal
from dlkit.nn.mode import fold_name

__all__ = ["ConvTranspose", "ConvTransposeParams"]


class ConvTransposeParams(TypedDict):
    w: Float[Array, "*kernel c_out_per_group c_in"]
    b: NotRequired[Float[Array, "c_out"]]


@dataclass(frozen=True)
class ConvTranspose(Kernel[ConvTransposeParams]):
    """The transposed convolution: x `[..., *spatial, c_in]`, y `[..., *out, c_out]`, larger by the stride.

        y[m, o] = b[o] + sum over n, k, i with  m = n stride + k dilation - low  of  x[n, i] w[k, o, i]
        out = (size - 1) stride - low - high + (kernel - 1) dilation + 1 + output_padding

    It is the linear map whose matrix is the transpose of that of `Conv(c_out, c_in, ...)` with the same numbers: its
    gradient with respect to its input, as torch means it. `kernel`, `stride`, `dilation`, `groups` and `dims` are those
    of `Conv`. `padding` is that of the convolution transposed and makes the output smaller; "SAME" gives `size stride`.
    `output_padding` lengthens the high end, to choose among the sizes that a strided convolution maps to one.

    Parameters: `w` `[*kernel, c_out / groups, c_in]` (torch: `[c_in, c_out / groups, *kernel]`; Keras as here; flax
    `[*kernel, c_in, c_out]` and not flipped unless `transpose_kernel=True`), `b` `[c_out]` unless `bias=False`. Weights
    start with variance `1 / fan_in`, `fan_in = prod(kernel) c_in / (groups prod(stride))`, the terms that one output
    sums on average, so that inputs of variance 1 give outputs of variance 1. flax, Keras and torch leave out the
    stride, and torch counts `c_out` in place of `c_in` (`init_preset`).

    A kernel that the stride does not divide makes a checkerboard (Odena et al., 2016): kernel 4 at stride 2 does not.

    >>> layer = ConvTranspose(8, 3, kernel=4, stride=2)
    >>> params = layer.init(jax.random.key(0))
    >>> params["w"].shape, layer(params, jnp.ones((2, 16, 16, 8))).shape
    ((4, 4, 3, 8), (2, 32, 32, 3))

    Raises:
      ValueError: sizes below 1, groups that do not divide the channels, an output padding that is below neither stride
      nor dilation, an empty output; x without `c_in` channels.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv:1603.07285.
    """

    c_in: int
    c_out: int
    kernel: Size
    stride: Size = 1
    padding: Padding = "SAME"
    output_padding: Size = 0
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    dims: int = 2
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        self.check_kernel()
        check_groups(self)

    def init(self, key: Any) -> ConvTransposeParams:
        shape = (*self.kernel_shape, self.c_out // self.groups, self.c_in)
        fans = compute_fans(shape, self.groups, transposed=True, stride=self.stride)
        params: ConvTransposeParams = {"w": self.w_init(fold_name(key, "w"), shape, fans=fans)}
        if self.bias:
            params["b"] = self.b_init(fold_name(key, "b"), (self.c_out,), fans=fans)
        return params

    def __call__(self, params: ConvTransposeParams, x: Array) -> Float[Array, "*out {self.c_out}"]:
        self.check_input(x, self.c_in, "c_in", params["w"])
        return functional.conv_transpose(
            x,
            params["w"],
            params.get("b"),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
