"""The masked convolution of autoregressive image models."""

import math
from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import describe
from dlkit.nn.convolution.conv import ConvParams, Kernel, Size
from dlkit.nn.initializers import Initializer, Zeros, lecun_normal
from dlkit.nn.linear import init_affine

__all__ = ["MaskedConv"]


@dataclass(frozen=True)
class MaskedConv(Kernel[ConvParams]):
    """A convolution that sees only what comes before in raster order: x `[..., *spatial, c_in]`, y `[..., *spatial,
    c_out]`.

        y = b + conv(x, m w),    m[k, i, o] = 1 where place k comes before the center; at the center, 1 where
        color(i) < color(o)  (mask "A": the first layer, which must not see the pixel that it predicts)
        color(i) <= color(o) (mask "B": the layers behind it)

    Channels belong to `colors` equal blocks, in order: with `colors=3` red sees no color of its own pixel, green sees
    red, blue sees both. Kernel sizes are odd and the borders zero, so that the size stays. A stack of one "A" and any
    number of "B" predicts each pixel from those before it (with a kernel of 3 or more above, it never sees a wedge to
    the right: the blind spot that the gated PixelCNN removes).

    Parameters: `w` `[*kernel, c_in, c_out]`, of which the masked part is never used, `b` `[c_out]` unless `bias=False`.
    Weights start with variance 1 / (number of inputs not masked), biases at 0. flax and haiku: `mask` of their Conv.

    >>> layer = MaskedConv(1, 8, kernel=5, mask="A")
    >>> params = layer.init(jax.random.key(0))
    >>> layer(params, jnp.ones((2, 8, 8, 1))).shape
    (2, 8, 8, 8)

    Raises:
      ValueError: another mask, even sizes, channels that `colors` does not divide, or nothing left to see.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: van den Oord, Kalchbrenner and Kavukcuoglu, Pixel recurrent neural networks, 2016, arXiv:1601.06759.
    """

    c_in: int
    c_out: int
    kernel: Size
    mask: str = "B"
    colors: int = 1
    bias: bool = True
    dims: int = 2
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        shape = self.kernel_shape
        if not 1 <= len(shape) <= 3 or any(k < 1 or k % 2 == 0 for k in shape):
            raise ValueError(f"{describe(self)}: expected a kernel of 1, 2 or 3 odd sizes, which have a center")
        if self.mask not in ("A", "B"):
            raise ValueError(f"{describe(self)}: expected mask 'A' (without the center) or 'B' (with it)")
        if self.colors < 1 or self.c_in % self.colors or self.c_out % self.colors:
            raise ValueError(f"{describe(self)}: expected colors that divide c_in={self.c_in} and c_out={self.c_out}")
        if not self.seen().any():
            raise ValueError(f"{describe(self)}: no input is left; expected a kernel larger than 1 with mask 'A'")

    def seen(self) -> np.ndarray:
        """The mask m, `[*kernel, c_in, c_out]`."""
        shape = self.kernel_shape
        source, target = (np.arange(c) * self.colors // c for c in (self.c_in, self.c_out))
        center = source[:, None] < target if self.mask == "A" else source[:, None] <= target
        flat = np.zeros((math.prod(shape), self.c_in, self.c_out), bool)
        flat[: math.prod(shape) // 2] = True
        flat[math.prod(shape) // 2] = center
        return flat.reshape(*shape, self.c_in, self.c_out)

    def init(self, key: Any) -> ConvParams:
        links = int(self.seen().sum())
        return init_affine(
            key, self, (*self.kernel_shape, self.c_in, self.c_out), (links / self.c_out, links / self.c_in)
        )

    def __call__(self, params: ConvParams, x: Array) -> Float[Array, "*out {self.c_out}"]:
        self.check_input(x, self.c_in, "c_in", params["w"])
        w = jnp.where(jnp.asarray(self.seen()), params["w"], jnp.zeros((), params["w"].dtype))
        return functional.conv(x, w, params.get("b"))
