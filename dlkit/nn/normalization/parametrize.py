"""Layers whose weight is computed from other parameters: by length and direction, or standardized.

Each wraps a layer that has a parameter `w` (or another leaf, say `leaf="table"`), and gives it a computed one. Output
channels are the last axis of `w`, as in `Linear` and `Conv`; a `ConvTranspose` has them on the one before:
`axis=-2`.
"""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.functional.precision import wide_dtype
from dlkit.nn.checks import describe
from dlkit.nn.combinators import _Combinator
from dlkit.nn.layer import Layer, child_state
from dlkit.nn.mode import Mode, fold_name

__all__ = ["WeightNorm", "WeightStandardized", "held_weight", "run_with"]


def held_weight(wrapper: Any, params: Any) -> Any:
    """The parameter `leaf` among those of the wrapped layer.

    Raises:
      ValueError: the layer has none.
    """
    found: Any = params.get(wrapper.leaf) if isinstance(params, dict) else None
    if not hasattr(found, "shape"):
        has = ", ".join(params) if isinstance(params, dict) and params else "none"
        raise ValueError(
            f"{describe(wrapper)} wraps a {describe(wrapper.layer)} without a parameter {wrapper.leaf!r}: it has "
            f"{has}; name one by `leaf`, or wrap a layer that has a weight of its own"
        )
    axis = getattr(wrapper, "axis", -1)
    if not -found.ndim <= axis < found.ndim:
        raise ValueError(
            f"{describe(wrapper)} wraps a weight of shape {found.shape}: expected axis={axis} to be one of its "
            f"axes, that of the output channels"
        )
    return found


def run_with(wrapper: Any, w: Array, params: Any, state: Any, x: Any, mode: Mode, inputs: Any) -> tuple[Any, Any]:
    """The wrapped layer with `w` in the place of its own weight: its output and its state."""
    held = {**params["layer"], wrapper.leaf: w}
    return wrapper.layer.apply(held, child_state(state, "layer"), x, mode.at("layer"), **inputs)


@dataclass(frozen=True)
class WeightNorm(_Combinator):
    """A layer with `w = magnitude v / |v|`, length and direction of each output channel's weights learned apart.

    Parameters: `layer`, those of the wrapped layer, whose `w` is v; `magnitude` `[c_out]`, which starts as the length
    of v, so that at first the layer computes what it would without. `fold(params)` gives plain parameters of the
    wrapped layer. Scaling v changes nothing, so weight decay belongs on `magnitude` alone.

    torch: `parametrizations.weight_norm` (`original0` is the magnitude, `original1` v; its `dim=0` are the output
    channels, but for transposed convolutions the input channels: `axis=-1` here). flax: `WeightNorm`, whose magnitude
    starts at 1 instead; haiku has none.

    >>> from dlkit import nn
    >>> layer = WeightNorm(nn.Linear(4, 3))
    >>> params = layer.init(jax.random.key(0))
    >>> x = jnp.ones((2, 4))
    >>> bool(jnp.allclose(layer(params, x), layer.layer(params["layer"], x), atol=1e-6))
    True

    Raises:
      ValueError: the layer has no parameter `leaf`, or that no axis `axis`.

    Reference: Salimans and Kingma, Weight normalization, 2016, arXiv:1602.07868.
    """

    layer: Layer
    axis: int = -1
    leaf: str = "w"

    def init(self, key: Any) -> Any:
        params = self.layer.init(fold_name(key, "layer"))
        v = held_weight(self, params)
        square = jnp.square(v.astype(wide_dtype(v.dtype)))
        others = tuple(i for i in range(v.ndim) if i != self.axis % v.ndim)
        return {"layer": params, "magnitude": jnp.sqrt(square.sum(others)).astype(v.dtype)}

    def fold(self, params: Any) -> Any:
        """Parameters of the wrapped layer alone, with which it computes the same."""
        v = held_weight(self, params["layer"])
        return {**params["layer"], self.leaf: functional.weight_norm(v, params["magnitude"], axis=self.axis)}

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        y, after = run_with(self, self.fold(params)[self.leaf], params, state, x, mode, inputs)
        return y, None if after is None else {"layer": after}


@dataclass(frozen=True)
class WeightStandardized(_Combinator):
    """A layer with `(w - mean) / sqrt(var + eps)` in the place of `w`, statistics of each output channel's weights.

    Parameters: `layer`, those of the wrapped layer. Meant for convolutions with a group norm behind them: the weights
    have variance 1, so the output grows with the root of the fan-in. `fold(params)` gives plain parameters of the
    wrapped layer. timm: `StdConv2d`, with the same eps inside the root and the biased variance; in the paper's code
    eps 1e-5 is added to the unbiased deviation. torch, flax, haiku, equinox and Keras have none.

    >>> from dlkit import nn
    >>> layer = WeightStandardized(nn.Conv(4, 8, 3))
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((2, 6, 6, 4))).shape
    (2, 6, 6, 8)

    Raises:
      ValueError: the layer has no parameter `leaf`, or that no axis `axis`.

    Reference: Qiao, Wang, Liu, Shen and Yuille, Micro-batch training with batch-channel normalization and weight
    standardization, 2019, arXiv:1903.10520.
    """

    layer: Layer
    eps: float = 1e-6
    axis: int = -1
    leaf: str = "w"

    def fold(self, params: Any) -> Any:
        """Parameters of the wrapped layer alone, with which it computes the same."""
        w = held_weight(self, params["layer"])
        return {**params["layer"], self.leaf: functional.weight_standardize(w, axis=self.axis, eps=self.eps)}

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        y, after = run_with(self, self.fold(params)[self.leaf], params, state, x, mode, inputs)
        return y, None if after is None else {"layer": after}
