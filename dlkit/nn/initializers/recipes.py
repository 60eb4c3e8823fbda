"""The initializers that have names: each says which fan, which factor, which distribution."""

import math
from typing import Literal

from dlkit.nn.initializers.distributions import Normal, VarianceScaling

__all__ = [
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "scaled_residual",
    "torch_bias",
    "torch_weight",
    "xavier_normal",
    "xavier_uniform",
]

HeMode = Literal["fan_in", "fan_out", "fan_avg"]


def lecun_normal(*, truncated: bool = True) -> VarianceScaling:
    """Variance `1 / fan_in`: a linear layer keeps the variance of its input. The default of dlkit and of flax.

    The normal is truncated at two standard deviations of the uncut one, as in jax and Keras, unless `truncated=False`.
    haiku's default is this without the correction for the tails: its standard deviation is 0.88 times ours.

    >>> lecun_normal()
    VarianceScaling(scale=1.0, mode='fan_in', distribution='truncated_normal')

    Reference: LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.6.
    """
    return VarianceScaling(1.0, "fan_in", _normal(truncated))


def lecun_uniform() -> VarianceScaling:
    """`U(-a, a)` with `a = sqrt(3 / fan_in)`: variance `1 / fan_in`. LeCun et al. 1998.

    >>> lecun_uniform()
    VarianceScaling(scale=1.0, mode='fan_in', distribution='uniform')
    """
    return VarianceScaling(1.0, "fan_in", "uniform")


def xavier_normal(gain: float = 1.0, *, truncated: bool = True) -> VarianceScaling:
    """Variance `2 gain^2 / (fan_in + fan_out)`: between what keeps activations and what keeps gradients level.

    The normal is truncated as in jax and Keras (`glorot_normal`); torch's `xavier_normal_(gain)` and the paper do not
    truncate: `truncated=False`. The variance is the same.

    >>> xavier_normal(truncated=False)
    VarianceScaling(scale=1.0, mode='fan_avg', distribution='normal')

    Reference: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    """
    return VarianceScaling(gain**2, "fan_avg", _normal(truncated))


def xavier_uniform(gain: float = 1.0) -> VarianceScaling:
    """`U(-a, a)` with `a = gain sqrt(6 / (fan_in + fan_out))`: variance `2 gain^2 / (fan_in + fan_out)`.

    torch's `xavier_uniform_(gain)`, jax's and Keras' `glorot_uniform` (Keras' default). Glorot and Bengio 2010.

    >>> xavier_uniform()
    VarianceScaling(scale=1.0, mode='fan_avg', distribution='uniform')
    """
    return VarianceScaling(gain**2, "fan_avg", "uniform")


def he_normal(mode: HeMode = "fan_in", negative_slope: float = 0.0, *, truncated: bool = True) -> VarianceScaling:
    """Variance `2 / ((1 + negative_slope^2) fan)`: a ReLU keeps half of the variance, a leaky one a little more.

    `mode="fan_in"` keeps activations level, `"fan_out"` gradients. Truncated as in jax and Keras; torch's
    `kaiming_normal_(a=negative_slope, mode=mode)` and the paper do not truncate: `truncated=False`.

    >>> he_normal("fan_out")
    VarianceScaling(scale=2.0, mode='fan_out', distribution='truncated_normal')

    Reference: He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015, arXiv:1502.01852.
    """
    return VarianceScaling(2.0 / (1 + negative_slope**2), mode, _normal(truncated))


def he_uniform(mode: HeMode = "fan_in", negative_slope: float = 0.0) -> VarianceScaling:
    """`U(-a, a)` with `a = sqrt(6 / ((1 + negative_slope^2) fan))`: the variance of `he_normal`.

    torch's `kaiming_uniform_(a=negative_slope, mode=mode)`. He et al. 2015.

    >>> he_uniform()
    VarianceScaling(scale=2.0, mode='fan_in', distribution='uniform')
    """
    return VarianceScaling(2.0 / (1 + negative_slope**2), mode, "uniform")


def scaled_residual(depth: int, std: float = 0.02) -> Normal:
    """`N(0, (std / sqrt(2 depth))^2)`: for the last weights of each residual branch of `depth` transformer blocks.

    Each block adds two branches to the stream, so the `2 depth` of them together add the variance of one.

    >>> scaled_residual(8).std
    0.005

    Raises:
      ValueError: depth below 1.

    Reference: Radford et al., Language models are unsupervised multitask learners (GPT-2), 2019, section 2.3.
    """
    if depth < 1:
        raise ValueError(f"scaled_residual wants a depth of at least 1, got {depth}")
    return Normal(std / math.sqrt(2 * depth))


def torch_weight() -> VarianceScaling:
    """`U(-a, a)` with `a = 1 / sqrt(fan_in)`: what torch gives the weights of linear and convolutional layers.

    There it is written `kaiming_uniform_(a=sqrt(5))`, which is this: variance `1 / (3 fan_in)`, a third of LeCun's.

    >>> round(torch_weight().scale, 6) == round(he_uniform(negative_slope=math.sqrt(5)).scale, 6)
    True
    """
    return VarianceScaling(1 / 3, "fan_in", "uniform")


def torch_bias() -> VarianceScaling:
    """`U(-a, a)` with `a = 1 / sqrt(fan_in)`, the fan of the *weight*: what torch gives biases. Layers pass that fan.

    >>> import jax
    >>> torch_bias()(jax.random.key(0), (3,), fans=(100, 3)).shape
    (3,)
    """
    return VarianceScaling(1 / 3, "fan_in", "uniform")


def _normal(truncated: bool) -> Literal["normal", "truncated_normal"]:
    return "truncated_normal" if truncated else "normal"


glorot_normal, glorot_uniform = xavier_normal, xavier_uniform
kaiming_normal, kaiming_uniform = he_normal, he_uniform
