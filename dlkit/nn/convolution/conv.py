"""The convolutional layer, in one, two and three dimensions."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypeAlias, TypedDict, TypeVar

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, check_space, describe
from dlkit.nn.initializers import Initializer, Zeros, compute_fans, lecun_normal
from dlkit.nn.layer import Pure
from dlkit.nn.linear import init_affine

__all__ = ["Conv", "ConvParams", "Kernel", "Padding", "Size", "check_groups"]

P = TypeVar("P")
Size: TypeAlias = int | tuple[int, ...]
Padding: TypeAlias = str | int | tuple[int | tuple[int, int], ...]


class ConvParams(TypedDict):
    w: Float[Array, "*kernel c_in_per_group c_out"]
    b: NotRequired[Float[Array, "c_out"]]


class Kernel(Pure[P]):
    """Base of the layers that move a `kernel` over `dims` spatial axes."""

    kernel: Size
    dims: int

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The size of the kernel on each spatial axis."""
        return (self.kernel,) * self.dims if isinstance(self.kernel, int) else tuple(self.kernel)

    def check_input(self, x: Any, c: int, field: str, like: Any) -> None:
        """Raise unless x is `[..., *spatial, c]`, `field` the name of c, and of the dtype of the weight `like`."""
        check_space(self, x, "kernel")
        check_axis(self, x, -1, c, f"{field}={c}")
        check_float(self, x, like)

    def check_kernel(self) -> None:
        if not 1 <= len(self.kernel_shape) <= 3 or min(self.kernel_shape) < 1:
            raise ValueError(f"{describe(self)}: expected a kernel of 1, 2 or 3 sizes of at least 1")


def check_groups(layer: Any) -> None:
    if layer.groups < 1 or layer.c_in % layer.groups or layer.c_out % layer.groups:
        raise ValueError(f"{describe(layer)}: expected groups that divide c_in={layer.c_in} and c_out={layer.c_out}")


@dataclass(frozen=True)
class Conv(Kernel[ConvParams]):
    """A convolution (cross-correlation) over the last axes: x `[..., *spatial, c_in]`, y `[..., *out, c_out]`.

        y[n, o] = b[o] + sum over k, i of  x[n stride + k dilation - low, i] w[k, i, o]

    `kernel` is an int, the same for all `dims` spatial axes, or a tuple, which then says how many there are (1 to 3).
    `stride` and `dilation` are an int or one a spatial axis. `padding` is "SAME", "VALID", or in numbers what torch
    means: an int, an int an axis, or a pair (low, high) an axis; at a stride above 1, "SAME" pads as XLA does, which is
    not torch's `padding=kernel // 2`; "CAUSAL", in one dimension, is all in front, so that no output sees later inputs.
    `padding_mode` says what is outside: "zeros", "reflect", "replicate" or "circular" (torch's argument; for others put
    a `Pad` in front). With `groups`, each group of outputs sees its own slice of the inputs; `groups=c_in` is a
    depthwise convolution.

    Parameters: `w` `[*kernel, c_in / groups, c_out]` (torch: `[c_out, c_in / groups, *kernel]`), `b` `[c_out]` unless
    `bias=False`. Weights start with variance `1 / fan_in`, `fan_in = prod(kernel) c_in / groups`, biases at 0, as in
    flax; torch starts both as U(-1/sqrt(fan_in), 1/sqrt(fan_in)) (`init_preset`).

    >>> layer = Conv(3, 8, kernel=3, stride=2)
    >>> params = layer.init(jax.random.key(0))
    >>> params["w"].shape, layer(params, jnp.ones((2, 32, 32, 3))).shape
    ((3, 3, 3, 8), (2, 16, 16, 8))

    Raises:
      ValueError: sizes below 1, groups that do not divide the channels; x without `c_in` channels or too small.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998.
    """

    c_in: int
    c_out: int
    kernel: Size
    stride: Size = 1
    padding: Padding = "SAME"
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    dims: int = 2
    padding_mode: str = "zeros"
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        self.check_kernel()
        check_groups(self)
        if self.padding_mode not in (modes := ("zeros", "reflect", "replicate", "circular")):
            raise ValueError(f"{describe(self)}: expected padding_mode to be one of {', '.join(map(repr, modes))}")

    def init(self, key: Any) -> ConvParams:
        shape = (*self.kernel_shape, self.c_in // self.groups, self.c_out)
        return init_affine(key, self, shape, compute_fans(shape, self.groups))

    def __call__(self, params: ConvParams, x: Array) -> Float[Array, "*out {self.c_out}"]:
        self.check_input(x, self.c_in, "c_in", params["w"])
        return functional.conv(
            x,
            params["w"],
            params.get("b"),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_mode=self.padding_mode,
        )
