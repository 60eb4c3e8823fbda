"""Normalization layers without memory: over the features of each example, whatever the rest of the batch is."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, check_space, describe
from dlkit.nn.initializers import Initializer, Ones, Zeros
from dlkit.nn.layer import Pure
from dlkit.nn.mode import fold_name

__all__ = ["GroupNorm", "LayerNorm", "NormParams", "RMSNorm", "init_norm"]

REAL = "its mean and variance are taken"


class NormParams(TypedDict):
    scale: NotRequired[Float[Array, "d"]]
    shift: NotRequired[Float[Array, "d"]]


def init_norm(key: Any, layer: Any, *, shift: bool = True) -> Any:
    """`scale` and `shift` `[d]` of a layer that is affine, drawn by its `scale_init` and `shift_init`."""
    if not layer.affine:
        return {}
    params = {"scale": layer.scale_init(fold_name(key, "scale"), (layer.d,))}
    if shift:
        params["shift"] = layer.shift_init(fold_name(key, "shift"), (layer.d,))
    return params


@dataclass(frozen=True)
class LayerNorm(Pure[NormParams]):
    """`y = (x - mean) / sqrt(var + eps) * scale + shift`, mean and (biased) variance over the last axis: `[..., d]`.

    Parameters: `scale` `[d]` from 1 and `shift` `[d]` from 0, unless `affine=False`; without `shift` at `shift=False`
    (torch: `bias=False`). Computed in float32 or wider; y has the dtype of x. eps is 1e-5 as in torch, equinox and
    haiku; flax has 1e-6, Keras 1e-3.

    >>> layer = LayerNorm(3)
    >>> layer(layer.init(jax.random.key(0)), jnp.array([[1.0, 2.0, 3.0]])).round(3)
    Array([[-1.225,  0.   ,  1.225]], dtype=float32)

    Raises:
      ValueError: the last axis of x is not `d`.
      TypeError: x is not floating point.

    Reference: Ba, Kiros and Hinton, Layer normalization, 2016, arXiv:1607.06450.
    """

    d: int
    eps: float = 1e-5
    affine: bool = True
    shift: bool = True
    scale_init: Initializer = Ones()
    shift_init: Initializer = Zeros()

    def init(self, key: Any) -> NormParams:
        return init_norm(key, self, shift=self.shift)

    def __call__(self, params: NormParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because=REAL)
        return functional.layer_norm(x, params.get("scale"), params.get("shift"), eps=self.eps)


@dataclass(frozen=True)
class RMSNorm(Pure[NormParams]):
    """`y = x / sqrt(mean(x^2) + eps) * scale`, the mean over the last axis: `[..., d]`.

    Parameter: `scale` `[d]` from 1, unless `affine=False`. Computed in float32 or wider; y has the dtype of x. eps is
    1e-5 as in equinox and haiku; flax and Keras have 1e-6, torch the machine epsilon of the dtype.

    >>> layer = RMSNorm(2, eps=0.0)
    >>> layer(layer.init(jax.random.key(0)), jnp.array([[1.0, 7.0]])) * 5
    Array([[1., 7.]], dtype=float32)

    Raises:
      ValueError: the last axis of x is not `d`.
      TypeError: x is not floating point.

    Reference: Zhang and Sennrich, Root mean square layer normalization, 2019, arXiv:1910.07467.
    """

    d: int
    eps: float = 1e-5
    affine: bool = True
    scale_init: Initializer = Ones()

    def init(self, key: Any) -> NormParams:
        return init_norm(key, self, shift=False)

    def __call__(self, params: NormParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because=REAL)
        return functional.rms_norm(x, params.get("scale"), eps=self.eps)


@dataclass(frozen=True)
class GroupNorm(Pure[NormParams]):
    """`y = (x - mean) / sqrt(var + eps) * scale + shift`, statistics over space and one group of `d / groups` channels.

    x `[..., *spatial, d]` with `dims` spatial axes: 2 for images, 1 for sequences, 0 for vectors; the axes in front are
    free and share nothing. `groups=1` is a layer norm over space and channels, `groups=d` instance normalization.

    Parameters: `scale` `[d]` from 1 and `shift` `[d]` from 0, unless `affine=False`. Computed in float32 or wider; y
    has the dtype of x. eps is 1e-5 as in torch and equinox; flax has 1e-6, Keras 1e-3. torch and flax take all axes
    between the batch and the channels as space.

    >>> layer = GroupNorm(groups=2, d=4)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((5, 8, 8, 4))).shape
    (5, 8, 8, 4)

    Raises:
      ValueError: groups that do not divide `d`; x whose last axis is not `d`, or with fewer axes than `dims + 1`.
      TypeError: x is not floating point.

    Reference: Wu and He, Group normalization, 2018, arXiv:1803.08494.
    """

    groups: int
    d: int
    eps: float = 1e-5
    affine: bool = True
    dims: int = 2
    scale_init: Initializer = Ones()
    shift_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        if self.groups < 1 or self.d % self.groups:
            raise ValueError(f"{describe(self)}: expected groups that divide d={self.d}")

    def init(self, key: Any) -> NormParams:
        return init_norm(key, self)

    def __call__(self, params: NormParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        check_space(self, x, "dims", fix="set dims to the number of spatial axes")
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because=REAL)
        scale, shift = params.get("scale"), params.get("shift")
        return functional.group_norm(x, self.groups, scale, shift, eps=self.eps, batch_axes=x.ndim - 1 - self.dims)
