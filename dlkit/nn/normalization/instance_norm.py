"""Instance normalization: every channel of every example by itself."""

import math
from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, check_space, describe
from dlkit.nn.initializers import Initializer, Ones, Zeros
from dlkit.nn.layer import Pure
from dlkit.nn.normalization.norms import REAL, NormParams, init_norm

__all__ = ["InstanceNorm"]


@dataclass(frozen=True)
class InstanceNorm(Pure[NormParams]):
    """`y = (x - mean) / sqrt(var + eps) * scale + shift`, statistics of each channel of each example over space.

    x `[..., *spatial, d]` with `dims` spatial axes, 1 to 3; the axes in front are free and share nothing. Training and
    evaluation are the same. A `GroupNorm` with `groups=d`.

    Parameters: none, as in torch; with `affine=True`, `scale` `[d]` from 1 and `shift` `[d]` from 0, as flax and haiku
    have them by default. torch's `track_running_stats` is not offered: statistics that are remembered are `BatchNorm`'s
    business. Computed in float32 or wider; y has the dtype of x. eps is 1e-5 as in torch and haiku; flax has 1e-6.

    >>> layer = InstanceNorm(4)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((5, 8, 8, 4))).shape
    (5, 8, 8, 4)

    Raises:
      ValueError: `dims` outside 1 to 3; x whose last axis is not `d`, with fewer axes than `dims + 1`, or with one
        spatial position, where every output would be `shift`.
      TypeError: x is not floating point.

    Reference: Ulyanov, Vedaldi and Lempitsky, Instance normalization, 2016, arXiv:1607.08022.
    """

    d: int
    eps: float = 1e-5
    affine: bool = False
    dims: int = 2
    scale_init: Initializer = Ones()
    shift_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        if not 1 <= self.dims <= 3:
            raise ValueError(f"{describe(self)}: expected 1, 2 or 3 spatial axes")

    def init(self, key: Any) -> NormParams:
        return init_norm(key, self)

    def __call__(self, params: NormParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        check_space(self, x, "dims")
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because=REAL)
        if (positions := math.prod(x.shape[-self.dims - 1 : -1])) < 2:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected at least 2 positions in its {self.dims} spatial "
                f"axes because the statistics are taken over them, got {positions}"
            )
        return functional.instance_norm(
            x, params.get("scale"), params.get("shift"), eps=self.eps, batch_axes=x.ndim - 1 - self.dims
        )
