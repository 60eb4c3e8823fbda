"""Channels weighed: by what the whole picture holds, or by a learned number each."""

from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.nn.activations import Sigmoid
from dlkit.nn.checks import check_axis, check_float, check_space
from dlkit.nn.initializers import Constant, Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.linear import Linear
from dlkit.nn.mode import fold_name
from dlkit.nn.piecewise import Relu

__all__ = ["LayerScale", "SqueezeExcite"]


@dataclass(frozen=True)
class SqueezeExcite(Pure[Any]):
    """`y = x * gate(expand(act(reduce(mean(x)))))`: each channel weighed by what the whole picture holds.

    x and y `[..., *spatial, d]`, the mean over the `dims` spatial axes. `d_hidden` is the width between: the paper has
    `d / 16`, torchvision's EfficientNet `c_in / 4` of the block. Parameters: `reduce` (`w` `[d, d_hidden]`, `b`; fc1 in
    torchvision), `expand` (`w` `[d_hidden, d]`, `b`; fc2).

    >>> layer = SqueezeExcite(16, 4)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((2, 8, 8, 16))).shape
    (2, 8, 8, 16)

    Raises:
      ValueError: x whose last axis is not `d`, or with fewer than `dims + 1` axes.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Hu, Shen and Sun, Squeeze-and-excitation networks, 2017, arXiv:1709.01507.
    """

    d: int
    d_hidden: int
    activation: Pure[Any] = Relu()
    gate: Pure[Any] = Sigmoid()
    dims: int = 2
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def parts(self) -> dict[str, Layer | tuple[Layer, ...]]:
        return {
            "reduce": Linear(self.d, self.d_hidden, w_init=self.w_init, b_init=self.b_init),
            "activation": self.activation,
            "expand": Linear(self.d_hidden, self.d, w_init=self.w_init, b_init=self.b_init),
            "gate": self.gate,
        }

    def __call__(self, params: Any, x: Array) -> Float[Array, "*lead {self.d}"]:
        check_space(self, x, "dims")
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["reduce"]["w"])
        y = x.mean(tuple(range(-self.dims - 1, -1)), keepdims=True)
        for name, part in self.children().items():
            y = part(params[name], y)  # pyright: ignore[reportCallIssue]
        return x * y


class LayerScaleParams(TypedDict):
    scale: Float[Array, "d"]


@dataclass(frozen=True)
class LayerScale(Pure[LayerScaleParams]):
    """`y = scale x`, a learned number for each channel, small at first: the end of a residual branch, x `[..., d]`.

    Parameter: `scale` `[d]` from 1e-5, as in CaiT's small models and timm; ConvNeXt starts from 1e-6.

    >>> layer = LayerScale(2, Constant(0.5))
    >>> layer(layer.init(jax.random.key(0)), jnp.array([2.0, 4.0]))
    Array([1., 2.], dtype=float32)

    Raises:
      ValueError: the last axis of x is not `d`.
      TypeError: x is not floating point, or not of the scale's dtype.

    Reference: Touvron et al., Going deeper with image transformers, 2021, arXiv:2103.17239.
    """

    d: int
    scale_init: Initializer = Constant(1e-5)

    def init(self, key: Any) -> LayerScaleParams:
        return {"scale": self.scale_init(fold_name(key, "scale"), (self.d,))}

    def __call__(self, params: LayerScaleParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["scale"])
        return x * jnp.reshape(params["scale"], (1,) * (x.ndim - 1) + (self.d,))
