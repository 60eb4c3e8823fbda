"""Normalization: subtract a mean, divide by a standard deviation, scale and shift.

All of it is `y = (x - mean) / sqrt(var + eps) * scale + shift`; the functions differ in which axes share a mean and a
variance. `eps` stands inside the root. Statistics are computed in float32 (float64 for float64 inputs) whatever the
dtype of `x`, in two passes: `var = mean((x - mean)^2)`, the biased one. `mean(x^2) - mean^2` would lose all digits
where the mean is large. The result has the dtype of `x`. The default `eps` is 1e-5 everywhere; flax has 1e-6, Keras
1e-3, torch 1e-5 but the dtype's machine epsilon in RMSNorm: set it when you load weights from there.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.normalization.norms_cpu import standardize_channels, standardize_rows
from dlkit.functional.precision import wide_dtype

__all__ = ["batch_norm_stats", "group_norm", "layer_norm", "normalize", "rms_norm", "statistics_count"]


def _axes(who: str, x: Array, axes: int | Sequence[int]) -> tuple[int, ...]:
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    positive = tuple(axis % x.ndim for axis in given if -x.ndim <= axis < x.ndim)
    if len(positive) != len(given) or len(set(positive)) != len(given) or not given:
        raise ValueError(f"{who}: axes is {axes}, but x is {list(x.shape)}; want distinct axes of x, at least one")
    return tuple(sorted(positive))


def _spread(who: str, name: str, p: Array, x: Array, axes: Sequence[int]) -> Array:
    """`p`, which has one axis for each of `axes`, shaped so that it multiplies `x`, in the dtype of the statistics."""
    want = tuple(x.shape[axis] for axis in axes)
    if p.shape != want:
        raise ValueError(f"{who}: {name} is {list(p.shape)}, but x is {list(x.shape)}; want {name} {list(want)}")
    return p.astype(wide_dtype(x.dtype)).reshape([n if i in axes else 1 for i, n in enumerate(x.shape)])


def _check_channels(who: str, x: Array, scale: Array | None, shift: Array | None) -> None:
    for name, p in (("scale", scale), ("shift", shift)):
        if p is not None:
            _spread(who, name, p, x, (x.ndim - 1,))


def _affine(who: str, y: Array, x: Array, scale: Array | None, shift: Array | None, axes: Sequence[int]) -> Array:
    if scale is not None:
        y = y * _spread(who, "scale", scale, x, axes)
    if shift is not None:
        y = y + _spread(who, "shift", shift, x, axes)
    return y.astype(x.dtype)


def _standardize(x: Array, axes: Sequence[int], eps: float) -> Array:
    wide = x.astype(wide_dtype(x.dtype))
    centered = wide - wide.mean(axes, keepdims=True)
    return centered * lax.rsqrt(jnp.square(centered).mean(axes, keepdims=True) + eps)


def _scaled(who: str, x: Array, scale: Array | None, axes: Sequence[int], eps: float, center: bool) -> Array:
    """The first half of a layer norm, or without `center` of an RMS norm, in the dtype of the statistics."""
    spread = None if scale is None else _spread(who, "scale", scale, x, axes)
    if jax.default_backend() == "cpu":
        return standardize_rows(tuple(axes), eps, center, x, spread)
    wide = x.astype(wide_dtype(x.dtype))
    y = _standardize(x, axes, eps) if center else wide * lax.rsqrt(jnp.square(wide).mean(axes, keepdims=True) + eps)
    return y if spread is None else y * spread


def layer_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."] | None = None,
    shift: Float[Array, "..."] | None = None,
    *,
    eps: float = 1e-5,
    axes: int | Sequence[int] = -1,
) -> Float[Array, "*shape"]:
    """`y = (x - mean) / sqrt(var + eps) * scale + shift`, the mean and variance of each example over its feature axes.

    x `[..., D]`, scale and shift `[D]`; with `axes=(-2, -1)`, x `[..., H, W]` and scale `[H, W]`.

    >>> layer_norm(jnp.array([[1.0, 2.0, 3.0]])).round(3)
    Array([[-1.225,  0.   ,  1.225]], dtype=float32)

    Raises:
      ValueError: axes that x has not, or a scale or shift that has not the sizes of those axes.

    Reference: Ba, Kiros and Hinton, Layer normalization, 2016.
    """
    over = _axes("layer_norm", x, axes)
    return _affine("layer_norm", _scaled("layer_norm", x, scale, over, eps, True), x, None, shift, over)


def rms_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."] | None = None,
    *,
    eps: float = 1e-5,
    axes: int | Sequence[int] = -1,
) -> Float[Array, "*shape"]:
    """`y = x / sqrt(mean(x^2) + eps) * scale`: a layer norm that leaves the mean where it is.

    x `[..., D]`, scale `[D]`. torch's default `eps` is the machine epsilon of the dtype.

    >>> rms_norm(jnp.array([3.0, 4.0]), eps=0.0) * 2**0.5
    Array([1.2, 1.6], dtype=float32)

    Raises:
      ValueError: axes that x has not, or a scale that has not the sizes of those axes.

    Reference: Zhang and Sennrich, Root mean square layer normalization, NeurIPS 2019.
    """
    over = _axes("rms_norm", x, axes)
    return _scaled("rms_norm", x, scale, over, eps, False).astype(x.dtype)


def group_norm(
    x: Float[Array, "*shape"],
    groups: int,
    scale: Float[Array, "..."] | None = None,
    shift: Float[Array, "..."] | None = None,
    *,
    eps: float = 1e-5,
    batch_axes: int = 1,
) -> Float[Array, "*shape"]:
    """A layer norm of each example over its spatial axes and one group of `C / groups` neighbouring channels.

    x `[B, *spatial, C]`, scale and shift `[C]`. The first `batch_axes` axes index examples and share nothing.
    `groups=1` is a layer norm over space and channels together; `groups=C` is instance normalization (Ulyanov et al.
    2016).

    >>> group_norm(jnp.arange(8.0).reshape(1, 2, 4), groups=2).shape
    (1, 2, 4)

    Raises:
      ValueError: `groups` does not divide the channels, or a scale or shift that is not `[C]`.

    Reference: Wu and He, Group normalization, ECCV 2018.
    """
    channels = x.shape[-1] if x.ndim else 0
    if groups < 1 or channels % groups or not 0 <= batch_axes < x.ndim:
        raise ValueError(
            f"group_norm: x is {list(x.shape)} with groups={groups}, batch_axes={batch_axes}; want groups that "
            f"divide the {channels} channels of the last axis, and fewer batch axes than axes"
        )
    if jax.default_backend() == "cpu" and batch_axes < x.ndim - 1:
        _check_channels("group_norm", x, scale, shift)
        spatial = tuple(range(batch_axes, x.ndim - 1))
        return standardize_channels(spatial, groups, eps, x, scale, shift)[0].astype(x.dtype)
    split = x.reshape(*x.shape[:-1], groups, channels // groups)
    over = (*range(batch_axes, x.ndim - 1), x.ndim)
    return _affine("group_norm", _standardize(split, over, eps).reshape(x.shape), x, scale, shift, (x.ndim - 1,))


def statistics_count(
    x: Float[Array, "*shape"], axes: int | Sequence[int] | None = None, weight: Float[Array, "..."] | None = None
) -> Float[Array, ""]:
    """How many values (or how much weight) each statistic of `batch_norm_stats` averages: `n` in `n / (n - 1)`.

    >>> statistics_count(jnp.ones((4, 3, 2)), weight=jnp.array([1.0, 1.0, 1.0, 0.0]))
    Array(9., dtype=float32)
    """
    over = _axes("statistics_count", x, range(x.ndim - 1) if axes is None else axes)
    wide = wide_dtype(x.dtype)
    if weight is None:
        return jnp.asarray(math.prod(x.shape[axis] for axis in over), wide)
    rest = math.prod(x.shape[axis] for axis in over if axis >= weight.ndim)
    return weight.astype(wide).sum() * rest


def batch_norm_stats(
    x: Float[Array, "*shape"],
    axes: int | Sequence[int] | None = None,
    weight: Float[Array, "..."] | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The mean and the biased variance over `axes` (default: all but the last), in float32 or wider.

        mean = sum(w x) / sum(w)        var = sum(w (x - mean)^2) / sum(w)

    x `[B, *spatial, C]` gives two arrays `[C]`. `weight` has the leading axes of x, `[B]` or `[B, T]`: a padding row
    of weight 0 takes no part. Where all weights are 0, both are 0. torch normalizes with this variance too, but keeps
    `var n / (n - 1)` as its running variance, `n` from `statistics_count`; flax and Keras keep the biased one.

    >>> mean, var = batch_norm_stats(jnp.array([[0.0], [2.0], [4.0]]))
    >>> mean.item(), round(var.item(), 3)
    (2.0, 2.667)

    Raises:
      ValueError: axes that x has not, or a weight whose axes are not leading axes of x that are reduced.

    Reference: Ioffe and Szegedy, Batch normalization, ICML 2015.
    """
    over = _axes("batch_norm_stats", x, range(x.ndim - 1) if axes is None else axes)
    wide = x.astype(wide_dtype(x.dtype))
    if weight is None:
        mean = wide.mean(over, keepdims=True)
        return mean.squeeze(over), jnp.square(wide - mean).mean(over)
    if weight.shape != x.shape[: weight.ndim] or not set(range(weight.ndim)) <= set(over):
        raise ValueError(
            f"batch_norm_stats: weight is {list(weight.shape)} and x {list(x.shape)}, reduced over axes {over}; want "
            "a weight whose axes are the first axes of x, all of them reduced"
        )
    total = statistics_count(x, over, weight)
    w = weight.astype(wide.dtype).reshape(weight.shape + (1,) * (x.ndim - weight.ndim))
    w = w / jnp.where(total == 0, 1.0, total)
    # A row of weight 0 may hold anything, NaN included, and must not reach the sum as 0 * NaN.
    wide = jnp.where(w == 0, 0.0, wide)
    mean = (w * wide).sum(over, keepdims=True)
    return mean.squeeze(over), (w * jnp.square(wide - mean)).sum(over)


def batch_norm(x: Array, scale: Array | None, shift: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """`normalize(x, mean, var, scale, shift)` with `mean, var = batch_norm_stats(x)`, and both: y, mean, var."""
    if jax.default_backend() == "cpu":
        _check_channels("normalize", x, scale, shift)
        y, mean, var = standardize_channels(tuple(range(x.ndim - 1)), None, eps, x, scale, shift)
        return y.astype(x.dtype), mean.reshape(-1), var.reshape(-1)
    mean, var = batch_norm_stats(x)
    return normalize(x, mean, var, scale, shift, eps=eps), mean, var


def normalize(
    x: Float[Array, "*shape"],
    mean: Float[Array, "..."],
    var: Float[Array, "..."],
    scale: Float[Array, "..."] | None = None,
    shift: Float[Array, "..."] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "*shape"]:
    """`y = (x - mean) / sqrt(var + eps) * scale + shift` with given statistics: the second half of batch
    normalization.

    x `[..., C]`, everything else `[C]`; more generally the shape of the trailing axes of x.

    >>> normalize(jnp.array([[3.0, 5.0]]), jnp.ones(2), jnp.array([4.0, 16.0]), eps=0.0)
    Array([[1., 1.]], dtype=float32)

    Raises:
      ValueError: statistics, a scale or a shift that have not the sizes of the trailing axes of x.
    """
    trailing = tuple(range(x.ndim - mean.ndim, x.ndim))
    center = _spread("normalize", "mean", mean, x, trailing)
    spread = lax.rsqrt(_spread("normalize", "var", var, x, trailing) + eps)
    y = (x.astype(wide_dtype(x.dtype)) - center) * spread
    return _affine("normalize", y, x, scale, shift, trailing)
