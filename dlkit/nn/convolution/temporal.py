"""Temporal convolutional networks: causal, dilated, residual."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401

from dlkit.nn.checks import check_rate, describe
from dlkit.nn.combinators import Chain, Residual
from dlkit.nn.convolution.conv import Conv
from dlkit.nn.dropout_family import SpatialDropout
from dlkit.nn.initializers import Initializer, he_normal
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.normalization.parametrize import WeightNorm
from dlkit.nn.piecewise import Relu
from dlkit.nn.recipe import Recipe

__all__ = ["TCN", "TCNBlock"]


@dataclass(frozen=True)
class TCNBlock(Recipe):
    """`relu(shortcut(x) + drop(relu(conv(drop(relu(conv(x)))))))`, two causal convolutions in time, `dilation` apart.

    x `[..., T, c_in]`, y `[..., T, c_out]`; y at time t depends on x at `t, t - dilation, ...`, back to
    `2 (kernel - 1) dilation` times before, and on nothing after t. The convolutions are weight-normalized unless
    `weight_norm=False`, `drop` is a `SpatialDropout(rate)` over time, the shortcut x itself, or a convolution of size 1
    where the channels differ.

    Parameters: `residual/body/conv1`, `conv2` (each `layer/w`, `layer/b`, `magnitude`; `w`, `b` without the norm), and
    `residual/shortcut/w`, `b`. The authors' code drops single elements where their text says channels.

    >>> from dlkit.nn import EVAL
    >>> layer = TCNBlock(3, 8, kernel=3, dilation=2)
    >>> layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((2, 10, 3)), EVAL)[0].shape
    (2, 10, 8)

    Raises:
      ValueError: a rate outside [0, 1]; x without `c_in` channels.

    Reference: Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks for
    sequence modeling, 2018, arXiv:1803.01271, section 3.3.
    """

    c_in: int
    c_out: int
    kernel: int = 3
    dilation: int = 1
    rate: float = 0.0
    weight_norm: bool = True
    activation: Pure[Any] = Relu()
    w_init: Initializer = he_normal()

    def __post_init__(self) -> None:
        check_rate(self)

    def build(self) -> Chain:
        parts: dict[str, Layer] = {}
        for i, c_in in enumerate((self.c_in, self.c_out), 1):
            conv = Conv(c_in, self.c_out, (self.kernel,), padding="CAUSAL", dilation=self.dilation, w_init=self.w_init)
            parts[f"conv{i}"] = WeightNorm(conv) if self.weight_norm else conv
            parts[f"act{i}"] = self.activation
            if self.rate:
                parts[f"drop{i}"] = SpatialDropout(self.rate, dims=1)
        shortcut = None if self.c_in == self.c_out else Conv(self.c_in, self.c_out, (1,), w_init=self.w_init)
        return Chain(residual=Residual(Chain(**parts), shortcut), act=self.activation)


@dataclass(frozen=True)
class TCN(Recipe):
    """A `TCNBlock` for each of `channels`, the dilation doubling from 1: x `[..., T, c_in]`, y `[..., T, c_last]`.

    y at time t depends on x from `t - 2 (kernel - 1) (2^L - 1)` to t, L the number of blocks: `TCN.receptive_field`
    times in all. Fields as in the block. Parameters: `block1`, `block2`, ...

    >>> from dlkit.nn import EVAL
    >>> layer = TCN(3, (8, 8, 16), kernel=3)
    >>> y, _ = layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((2, 40, 3)), EVAL)
    >>> y.shape, layer.receptive_field
    ((2, 40, 16), 29)

    Raises:
      ValueError: no channels; a rate outside [0, 1]; x without `c_in` channels.

    Reference: that of `TCNBlock`.
    """

    c_in: int
    channels: tuple[int, ...]
    kernel: int = 3
    rate: float = 0.0
    weight_norm: bool = True
    activation: Pure[Any] = Relu()
    w_init: Initializer = he_normal()

    def __post_init__(self) -> None:
        check_rate(self)
        if not self.channels:
            raise ValueError(f"{describe(self)}: expected at least one number of channels, such as channels=(32, 32)")

    @property
    def receptive_field(self) -> int:
        """How many times of x, the present one included, a y depends on."""
        return 1 + 2 * (self.kernel - 1) * (2 ** len(self.channels) - 1)

    def build(self) -> Chain:
        blocks, c_in = {}, self.c_in
        for i, c_out in enumerate(self.channels):
            blocks[f"block{i + 1}"] = TCNBlock(
                c_in, c_out, self.kernel, 2**i, self.rate, self.weight_norm, self.activation, self.w_init
            )
            c_in = c_out
        return Chain(**blocks)
