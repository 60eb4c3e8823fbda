"""Reading images at places that are computed: spatial transformers."""

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.functional.precision import wide_dtype

__all__ = ["affine_grid", "grid_sample"]

METHODS = ("linear", "nearest")
OUTSIDE = ("zeros", "border", "reflection")


def affine_grid(
    theta: Float[Array, "*lead dims dims_plus_1"], size: Sequence[int], *, align_corners: bool = False
) -> Float[Array, "*lead_size dims"]:
    """The places `theta [u, 1]` of the pixels u of an image of the spatial sizes `size`, for `grid_sample`.

    theta `[..., 2, 3]`, y `[..., H, W, 2]`; in three dimensions `[..., 3, 4]` and `[..., D, H, W, 3]`. Coordinates go
    from -1 to 1 over the image and are written *last axis first*: (x, y) is (column, row), as in torch. -1 and 1 are
    the borders of the outermost pixels, with `align_corners` their centers.

    >>> affine_grid(jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), (1, 2))
    Array([[[-0.5,  0. ],
            [ 0.5,  0. ]]], dtype=float32)

    Raises:
      ValueError: theta and the sizes are not of two or three dimensions.

    Reference: Jaderberg et al., Spatial transformer networks, 2015, arXiv:1506.02025.
    """
    dims = len(size)
    if dims not in (2, 3) or theta.ndim < 2 or theta.shape[-2:] != (dims, dims + 1) or min(size) < 1:
        raise ValueError(
            f"affine_grid: theta is {list(theta.shape)} and size {tuple(size)}; want theta [..., 2, 3] and (H, W), or "
            "[..., 3, 4] and (D, H, W)"
        )

    def centers(n: int) -> Array:
        step = (2 / (n - 1) if n > 1 else 0.0) if align_corners else 2 / n
        return jnp.asarray((np.arange(n) - (n - 1) / 2) * step, theta.dtype)

    axes = jnp.meshgrid(*map(centers, size), indexing="ij")[::-1]
    u = jnp.stack([*axes, jnp.ones_like(axes[0])], axis=-1).reshape(-1, dims + 1)
    # A sum over three or four terms: as a product of matrices it would lose digits on a GPU.
    lead = theta.shape[:-2]
    wide = (*lead, u.shape[0], dims, dims + 1)
    terms = jnp.broadcast_to(u[:, None, :], wide) * jnp.broadcast_to(theta[..., None, :, :], wide)
    return terms.sum(-1).reshape(*lead, *size, dims)


def grid_sample(
    x: Float[Array, "*in"],
    grid: Float[Array, "*out dims"],
    method: str = "linear",
    outside: str = "zeros",
    *,
    align_corners: bool = False,
) -> Float[Array, "*sampled"]:
    """The values of images x `[..., H, W, C]` at the places grid `[..., *out, 2]`: y `[..., *out, C]`; also in one or
    three dimensions, as many as the last axis of grid has.

    A place is written as in `affine_grid`: (column, row), -1 to 1 over the image. "linear" weighs the 2^dims
    pixels around it, and has a gradient in x and in grid; "nearest" takes one (of two the even), gradient in x alone.
    What lies `outside` is "zeros", the nearest pixel of the "border", or the "reflection" at the borders. As torch's
    `grid_sample`; there "linear" is "bilinear", and the leading axes are one.

    >>> grid_sample(jnp.arange(4.0).reshape(2, 2, 1), jnp.array([[0.0, 0.0], [0.5, 0.5]])).ravel()
    Array([1.5, 3. ], dtype=float32)

    Raises:
      ValueError: an unknown method or outside, leading axes of x and grid that differ.

    Reference: Jaderberg et al., Spatial transformer networks, 2015, arXiv:1506.02025.
    """
    if method not in METHODS or outside not in OUTSIDE:
        raise ValueError(
            f"grid_sample: method is {method!r} and outside {outside!r}; want one of {', '.join(map(repr, METHODS))} "
            f"and one of {', '.join(map(repr, OUTSIDE))}"
        )
    dims = grid.shape[-1] if grid.ndim else 0
    lead = x.shape[: -dims - 1]
    if not 1 <= dims < x.ndim or grid.shape[: len(lead)] != lead:
        raise ValueError(
            f"grid_sample: x is {list(x.shape)} and grid {list(grid.shape)}; want x [..., *spatial, C] and grid [..., "
            "*out, dims] with dims spatial axes and the same leading axes"
        )
    sizes, channels = x.shape[-dims - 1 : -1], x.shape[-1]
    flat = x.reshape(math.prod(lead), math.prod(sizes), channels).astype(wide_dtype(x.dtype))
    places = grid.reshape(math.prod(lead), -1, dims).astype(flat.dtype)
    at = [_position(places[..., dims - 1 - i], n, outside, align_corners) for i, n in enumerate(sizes)]
    total = jnp.zeros((*places.shape[:2], channels), flat.dtype)
    for corner in itertools.product((0, 1), repeat=dims if method == "linear" else 0):
        index, weight, inside = jnp.zeros(places.shape[:2], jnp.int32), jnp.ones((), flat.dtype), jnp.asarray(True)
        for i, (p, n) in enumerate(zip(at, sizes, strict=True)):
            low = jnp.floor(p) if method == "linear" else jnp.round(p)
            pixel = low + corner[i] if corner else low
            if corner:
                weight = weight * (p - low if corner[i] else 1 - (p - low))
            inside = inside & (pixel >= 0) & (pixel <= n - 1)
            index = index * n + jnp.clip(pixel, 0, n - 1).astype(jnp.int32)
        value = jnp.take_along_axis(flat, index[..., None], axis=1, mode="clip")
        weight = jnp.where(inside, weight, jnp.zeros((), flat.dtype))
        # Both, so that a NaN outside of the image, where the weight is 0, stays there.
        total = total + jnp.where(inside[..., None], value, jnp.zeros((), flat.dtype)) * weight[..., None]
    return total.reshape(*grid.shape[:-1], channels).astype(x.dtype)


def _position(c: Array, n: int, outside: str, align_corners: bool) -> Array:
    """A coordinate from -1 to 1 in pixels, brought inside."""
    p = (c + 1) / 2 * (n - 1) if align_corners else ((c + 1) * n - 1) / 2
    if outside == "zeros":
        return p
    if outside == "reflection":
        low, span = (0.0, n - 1) if align_corners else (-0.5, n)
        turn = jnp.abs(p - low) % (2 * span) if span else jnp.zeros_like(p)
        p = jnp.where(turn > span, 2 * span - turn, turn) + low
    return jnp.clip(p, 0, n - 1)
