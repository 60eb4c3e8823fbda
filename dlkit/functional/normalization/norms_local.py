"""Normalization of each channel over space, of each value by its neighbours among the channels, of each vector to
length 1.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.normalization.norms import group_norm
from dlkit.functional.precision import wide_dtype

__all__ = ["instance_norm", "local_response_norm", "unit_norm"]


def instance_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."] | None = None,
    shift: Float[Array, "..."] | None = None,
    *,
    eps: float = 1e-5,
    batch_axes: int = 1,
) -> Float[Array, "*shape"]:
    """`y = (x - mean) / sqrt(var + eps) * scale + shift`, statistics of each channel of each example over space.

    x `[B, *spatial, C]`, scale and shift `[C]`. The first `batch_axes` axes index examples. The group norm with one
    channel a group.

    >>> instance_norm(jnp.array([[[1.0, 5.0], [3.0, 5.0]]]), eps=0.001).round(2)
    Array([[[-1.,  0.],
            [ 1.,  0.]]], dtype=float32)

    Raises:
      ValueError: no axis between those of the batch and the channels, or a scale or shift that is not `[C]`.

    Reference: Ulyanov, Vedaldi and Lempitsky, Instance normalization, 2016, arXiv:1607.08022.
    """
    if not 0 <= batch_axes < x.ndim - 1:
        raise ValueError(
            f"instance_norm: x is {list(x.shape)} with batch_axes={batch_axes}; want at least one spatial axis between "
            "those of the batch and the channels"
        )
    return group_norm(x, x.shape[-1], scale, shift, eps=eps, batch_axes=batch_axes)


def local_response_norm(
    x: Float[Array, "*batch C"], size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Float[Array, "*batch C"]:
    """`y_c = x_c / (k + alpha / size * sum of x_j^2)^beta`, j the `size` channels from `c - size // 2` on.

    x `[..., C]`; channels beyond the ends count as 0. `alpha` is divided by `size`, as in torch; the paper and
    TensorFlow do not divide it (and TensorFlow's `depth_radius` is `size // 2`). The paper has k = 2, size 5.

    >>> local_response_norm(jnp.array([1.0, 2.0, 3.0]), 3, alpha=3.0, beta=1.0) * jnp.array([6.0, 15.0, 14.0])
    Array([1., 2., 3.], dtype=float32)

    Raises:
      ValueError: `size` below 1.

    Reference: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012.
    """
    if size < 1 or x.ndim == 0:
        raise ValueError(f"local_response_norm: size is {size} and x is {list(x.shape)}; want size >= 1, x [..., C]")
    wide = x.astype(wide_dtype(x.dtype))
    padded = jnp.pad(jnp.square(wide), [(0, 0)] * (x.ndim - 1) + [(size // 2, (size - 1) // 2)])
    channels = x.shape[-1]
    total = sum(lax.slice_in_dim(padded, i, i + channels, axis=-1) for i in range(size))
    return (wide / (k + (alpha / size) * total) ** beta).astype(x.dtype)


def unit_norm(
    x: Float[Array, "*shape"], *, axes: int | Sequence[int] = -1, eps: float = 1e-12
) -> Float[Array, "*shape"]:
    """`y = x / max(|x|, eps)`, the Euclidean length over `axes`: vectors of length 1.

    `eps` is the least length that is divided by, as in torch's `F.normalize`; a vector of zeros stays zero, and its
    gradient is `dy / eps`. Keras and TensorFlow bound the *squared* length from below.

    >>> unit_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]])) * 5
    Array([[3., 4.],
           [0., 0.]], dtype=float32)

    Raises:
      ValueError: axes that x has not.
    """
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    if not all(-x.ndim <= axis < x.ndim for axis in given):
        raise ValueError(f"unit_norm: axes is {axes}, but x is {list(x.shape)}")
    wide = x.astype(wide_dtype(x.dtype))
    square = jnp.square(wide).sum(given, keepdims=True)
    # The root is not differentiated where its derivative, times zero, would be NaN. Squares below the smallest number
    # of the dtype are 0: such short vectors are divided by eps.
    long = square > eps * eps
    return (wide / jnp.where(long, jnp.sqrt(jnp.where(long, square, 1.0)), eps)).astype(x.dtype)
