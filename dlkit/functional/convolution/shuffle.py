"""Moves between channels and space, and among channels: nothing is computed."""

import math

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Shaped

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


def _sizes(who: str, x: Array, factor: int, dims: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    if factor < 1 or dims < 1 or x.ndim < dims + 1:
        raise ValueError(
            f"{who}: x is {list(x.shape)}, factor {factor}, dims {dims}; want x [..., *spatial, C] with dims >= 1 "
            "spatial axes and a factor of at least 1"
        )
    return x.shape[: -dims - 1], x.shape[-dims - 1 : -1], x.shape[-1]


def pixel_shuffle(x: Shaped[Array, "*in"], factor: int, *, dims: int = 2) -> Shaped[Array, "*out"]:
    """Channels to space: x `[..., H, W, C r r]` to y `[..., H r, W r, C]`, r the factor.

        y[h r + i, w r + j, c] = x[h, w, c r r + i r + j]

    The order within the channels is torch's; TensorFlow's `depth_to_space` has C last, `x[h, w, (i r + j) C + c]`.
    With `dims` spatial axes other than 2, likewise.

    >>> pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 1, 4), 2)[0, :, :, 0]
    Array([[0., 1.],
           [2., 3.]], dtype=float32)

    Raises:
      ValueError: channels that `r^dims` does not divide, x with too few axes.

    Reference: Shi et al., Real-time single image and video super-resolution, 2016, arXiv:1609.05158.
    """
    lead, space, channels = _sizes("pixel_shuffle", x, factor, dims)
    if channels % factor**dims:
        raise ValueError(
            f"pixel_shuffle: x is {list(x.shape)}: its {channels} channels are no multiple of {factor}^{dims} = "
            f"{factor**dims}"
        )
    k = len(lead)
    x = x.reshape(*lead, *space, channels // factor**dims, *(factor,) * dims)
    order = [axis for i in range(dims) for axis in (k + i, k + dims + 1 + i)]
    x = x.transpose(*range(k), *order, k + dims)
    return x.reshape(*lead, *(n * factor for n in space), channels // factor**dims)


def pixel_unshuffle(x: Shaped[Array, "*in"], factor: int, *, dims: int = 2) -> Shaped[Array, "*out"]:
    """Space to channels: x `[..., H r, W r, C]` to y `[..., H, W, C r r]`, the inverse of `pixel_shuffle`.

    >>> pixel_unshuffle(jnp.arange(4.0).reshape(1, 2, 2, 1), 2).ravel()
    Array([0., 1., 2., 3.], dtype=float32)

    Raises:
      ValueError: spatial sizes that the factor does not divide, x with too few axes.
    """
    lead, space, channels = _sizes("pixel_unshuffle", x, factor, dims)
    if any(n % factor for n in space):
        raise ValueError(
            f"pixel_unshuffle: x is {list(x.shape)}: its spatial sizes {space} are no multiples of {factor}"
        )
    k = len(lead)
    x = x.reshape(*lead, *(m for n in space for m in (n // factor, factor)), channels)
    outer, inner = (range(k + start, k + 2 * dims, 2) for start in (0, 1))
    x = x.transpose(*range(k), *outer, k + 2 * dims, *inner)
    return x.reshape(*lead, *(n // factor for n in space), channels * factor**dims)


def channel_shuffle(x: Shaped[Array, "*shape"], groups: int) -> Shaped[Array, "*shape"]:
    """The channels, the last axis, dealt out: `y[..., k groups + g] = x[..., g (C / groups) + k]`.

    Between grouped convolutions, so that each group sees all of the groups before. As torch.

    >>> channel_shuffle(jnp.arange(6.0), 2)
    Array([0., 3., 1., 4., 2., 5.], dtype=float32)

    Raises:
      ValueError: groups that do not divide the channels.

    Reference: Zhang, Zhou, Lin and Sun, ShuffleNet, 2017, arXiv:1707.01083.
    """
    if x.ndim < 1 or groups < 1 or x.shape[-1] % groups:
        raise ValueError(f"channel_shuffle: groups is {groups} and x {list(x.shape)}; want a divisor of the last axis")
    split = x.reshape(*x.shape[:-1], groups, math.prod(x.shape[-1:]) // groups)
    return split.swapaxes(-1, -2).reshape(x.shape)
