"""Initializers: how a layer draws its first weights.

An initializer is a frozen dataclass that is called with a key and a shape. It holds no array, so a layer that carries
one still prints, compares, hashes and pickles.

    w = w_init(key, shape, dtype=jnp.float32, fans=None)

`fans = (fan_in, fan_out)` is given by the layers, which know their groups; without it, it is computed from the shape
(`compute_fans`). Numbers are drawn in float32 (float64 for float64) and rounded to `dtype` once.

>>> import jax
>>> w_init = he_normal()
>>> w_init
VarianceScaling(scale=2.0, mode='fan_in', distribution='truncated_normal')
>>> w = w_init(jax.random.key(0), (200, 128))
>>> round(w.std().item(), 3)  # sqrt(2 / 200)
0.1
"""

from dlkit.nn.initializers.base import Initializer, compute_fans
from dlkit.nn.initializers.distributions import (
    Constant,
    Normal,
    Ones,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
    Zeros,
)
from dlkit.nn.initializers.recipes import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    scaled_residual,
    torch_bias,
    torch_weight,
    xavier_normal,
    xavier_uniform,
)
from dlkit.nn.initializers.structured import Dirac, Identity, Orthogonal, Sparse

__all__ = [
    "Constant",
    "Dirac",
    "Identity",
    "Initializer",
    "Normal",
    "Ones",
    "Orthogonal",
    "Sparse",
    "TruncatedNormal",
    "Uniform",
    "VarianceScaling",
    "Zeros",
    "compute_fans",
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
