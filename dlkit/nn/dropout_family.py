"""The relatives of dropout: whole channels, other noise, squares of a feature map, weights instead of activations.

None has parameters or state of its own; in evaluation all give `y = x`. Each draws from `mode.rng("dropout")`.
"""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_float, check_rank, check_rate, check_space, describe
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode
from dlkit.nn.normalization.parametrize import held_weight, run_with

__all__ = [
    "AlphaDropout",
    "DropBlock",
    "DropConnect",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout",
]

NOISE = "it is multiplied by random numbers"


def _space(layer: Any, x: Array, dims: int) -> tuple[int, ...]:
    """The spatial axes in front of the channels."""
    return tuple(range(-check_space(layer, x, "dims") - 1, -1))


@dataclass(frozen=True)
class SpatialDropout(Layer[Any, None]):
    """In training each channel of each example is 0 with probability `rate`, else divided by `1 - rate`.

    x `[..., *spatial, C]` with `dims` spatial axes, which share a draw: neighbouring positions of a feature map say
    much the same, so dropping them one by one takes little away. torch: `Dropout1d` to `Dropout3d`; Keras:
    `SpatialDropout1D` to `3D`; flax: `broadcast_dims`.

    >>> from dlkit.nn import training
    >>> y, _ = SpatialDropout(0.5).apply({}, None, jnp.ones((2, 4, 4, 3)), training(jax.random.key(0)))
    >>> bool((y == y[:, :1, :1]).all())
    True

    Raises:
      ValueError: `rate` outside [0, 1]; x with fewer than `dims + 1` axes; training without a key, unless `rate` is 0.
      TypeError: x is not floating point.

    Reference: Tompson et al., Efficient object localization using convolutional networks, 2015, arXiv:1411.4280.
    """

    rate: float
    dims: int = 2

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because=NOISE)
        key = mode.rng("dropout") if self.rate > 0 else None
        return functional.dropout(key, x, self.rate, broadcast_axes=_space(self, x, self.dims)), None


@dataclass(frozen=True)
class AlphaDropout(Layer[Any, None]):
    """Dropout for SELU networks: dropped values become -1.758, then all are scaled and shifted to mean 0, variance 1.

    `y = a (x m - 1.758 (1 - m)) + b` (`functional.alpha_dropout`), as in torch and Keras. The mean and the variance
    over many elements are kept, where x has mean 0 and variance 1, but not the expectation of each.

    >>> from dlkit.nn import training
    >>> y, _ = AlphaDropout(0.5).apply({}, None, jnp.zeros(1000), training(jax.random.key(0)))
    >>> len(set(y.tolist()))
    2

    Raises:
      ValueError: `rate` outside [0, 1]; training without a key, unless `rate` is 0.
      TypeError: x is not floating point.

    Reference: Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks, 2017, arXiv:1706.02515.
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because=NOISE)
        key = mode.rng("dropout") if self.rate > 0 else None
        return functional.alpha_dropout(key, x, self.rate), None


@dataclass(frozen=True)
class FeatureAlphaDropout(Layer[Any, None]):
    """`AlphaDropout` of whole channels: x `[..., *spatial, C]`, the `dims` spatial axes share a draw. torch has it too.

    >>> from dlkit.nn import training
    >>> layer = FeatureAlphaDropout(0.5)
    >>> y, _ = layer.apply({}, None, jnp.ones((2, 4, 4, 3)), training(jax.random.key(0)))
    >>> bool((y == y[:, :1, :1]).all())
    True

    Raises:
      ValueError: `rate` outside [0, 1]; x with fewer than `dims + 1` axes; training without a key, unless `rate` is 0.
      TypeError: x is not floating point.
    """

    rate: float
    dims: int = 2

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because=NOISE)
        key = mode.rng("dropout") if self.rate > 0 else None
        return functional.alpha_dropout(key, x, self.rate, broadcast_axes=_space(self, x, self.dims)), None


@dataclass(frozen=True)
class GaussianDropout(Layer[Any, None]):
    """In training `y = x (1 + sigma n)`, n standard normal, `sigma^2 = rate / (1 - rate)`; as in Keras.

    The expectation is x, and the variance that of `Dropout(rate)`.

    >>> from dlkit.nn import training
    >>> y, _ = GaussianDropout(0.5).apply({}, None, jnp.ones(10_000), training(jax.random.key(0)))
    >>> bool(abs(y.mean() - 1) < 0.05), bool(abs(y.std() - 1) < 0.05)
    (True, True)

    Raises:
      ValueError: `rate` outside [0, 1); training without a key, unless `rate` is 0.
      TypeError: x is not floating point.

    Reference: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014, 10.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"GaussianDropout wants a rate in [0, 1), got {self.rate}: the variance is rate/(1-rate)")

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because=NOISE)
        key = mode.rng("dropout") if self.rate > 0 else None
        return functional.gaussian_dropout(key, x, self.rate), None


@dataclass(frozen=True)
class GaussianNoise(Layer[Any, None]):
    """In training `y = x + std n`, n standard normal; as in Keras.

    >>> from dlkit.nn import EVAL
    >>> GaussianNoise(0.1).apply({}, None, jnp.ones(2), EVAL)[0]
    Array([1., 1.], dtype=float32)

    Raises:
      ValueError: `std` is negative; training without a key, unless `std` is 0.
      TypeError: x is not floating point.

    Reference: Bishop, Training with noise is equivalent to Tikhonov regularization, 1995.
    """

    std: float

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"GaussianNoise wants a standard deviation of at least 0, got {self.std}")

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because="random numbers are added to it")
        return functional.gaussian_noise(mode.rng("dropout") if self.std > 0 else None, x, self.std), None


@dataclass(frozen=True)
class DropBlock(Layer[Any, None]):
    """In training squares of `block x block` positions of each channel are 0, about `rate` of all, the rest is scaled.

    x `[..., H, W, C]`. The scale makes up for what the draw has dropped in the whole batch, so examples are coupled in
    training; the numbers are torchvision's `DropBlock2d` (`functional.drop_block`).

    >>> from dlkit.nn import training
    >>> y, _ = DropBlock(0.2, block=3).apply({}, None, jnp.ones((2, 8, 8, 3)), training(jax.random.key(0)))
    >>> bool(abs(y.mean() - 1) < 1e-5)
    True

    Raises:
      ValueError: `rate` outside [0, 1]; x smaller than a block; training without a key, unless `rate` is 0.
      TypeError: x is not floating point.

    Reference: Ghiasi, Lin and Le, DropBlock, 2018, arXiv:1810.12890.
    """

    rate: float
    block: int = 7

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], None]:
        check_float(self, x, because=NOISE)
        check_rank(self, x, "[..., H, W, C]", 3, "areas of pictures are dropped")
        if min(x.shape[-3:-1]) < self.block:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected H and W of at least {self.block} because "
                f"block={self.block}, got {x.shape[-3]} and {x.shape[-2]}"
            )
        key = mode.rng("dropout") if self.rate > 0 else None
        return functional.drop_block(key, x, self.rate, self.block), None


@dataclass(frozen=True)
class DropConnect(Layer[Any, Any]):
    """A layer each of whose *weights* is 0 in training with probability `rate`, else divided by `1 - rate`.

    Parameters: `layer`, those of the wrapped layer, which has a weight `leaf`. One draw for the whole batch. The
    expectation of a linear layer's output is its output in evaluation. torch and Keras have none; equinox neither.

    >>> from dlkit.nn import EVAL, Linear
    >>> layer = DropConnect(Linear(4, 3), 0.5)
    >>> params = layer.init(jax.random.key(0))
    >>> y, _ = layer.apply(params, None, jnp.ones((2, 4)), EVAL)
    >>> bool((y == layer.layer(params["layer"], jnp.ones((2, 4)))).all())
    True

    Raises:
      ValueError: `rate` outside [0, 1]; the layer has no parameter `leaf`; training without a key, unless `rate` is 0.

    Reference: Wan, Zeiler, Zhang, LeCun and Fergus, Regularization of neural networks using DropConnect, 2013.
    """

    layer: Layer
    rate: float
    leaf: str = "w"

    def __post_init__(self) -> None:
        check_rate(self)

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        key = mode.rng("dropout") if self.rate > 0 else None
        w = functional.dropout(key, held_weight(self, params["layer"]), self.rate)
        y, after = run_with(self, w, params, state, x, mode, inputs)
        return y, None if after is None else {"layer": after}
