"""Windows of images side by side, and back: unfold and fold (im2col, col2im), patches and their inverse."""

import itertools
import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from dlkit.functional.convolution.spatial import Padding, resolve_padding, spread, window_output_size

__all__ = ["fold", "patchify", "unfold", "unpatchify"]

Size = int | Sequence[int]


def _dims(who: str, x: Array, kernel: Size, dims: int | None) -> int:
    dims = (x.ndim - 2 if dims is None else dims) if isinstance(kernel, int) else len(kernel)
    if dims < 1 or x.ndim < dims + 1:
        raise ValueError(
            f"{who}: x is {list(x.shape)} and the window {kernel!r}; want x [..., *spatial, C] with {max(dims, 1)} "
            "spatial axes (an int means x [B, *spatial, C]: pass dims where the leading axes are more or fewer)"
        )
    return dims


def unfold(
    x: Shaped[Array, "*in"],
    kernel: Size,
    stride: Size = 1,
    padding: Padding = "VALID",
    *,
    dilation: Size = 1,
    dims: int | None = None,
) -> Shaped[Array, "*out"]:
    """Every window of x laid out in one row: x `[..., *spatial, C]` to y `[..., *out, prod(kernel) C]`, im2col.

        y[n, k C + c] = x[n stride + k dilation - low, c]            (x is 0 outside), k in row-major order

    With the sizes and the padding of `conv`, `unfold(x, kernel) @ w.reshape(-1, c_out)` is `conv(x, w)`. torch's
    `unfold` has the same numbers in another order: `[B, C prod(kernel), prod(out)]`, the channel before the place.

    >>> unfold(jnp.arange(4.0).reshape(1, 4, 1), 2)[0]
    Array([[0., 1.],
           [1., 2.],
           [2., 3.]], dtype=float32)

    Raises:
      ValueError: a window larger than the padded input, a bad stride, dilation or padding, a wrong number of axes.
    """
    dims = _dims("unfold", x, kernel, dims)
    windows = spread("unfold: kernel", kernel, dims)
    strides = spread("unfold: stride", stride, dims)
    dilations = spread("unfold: dilation", dilation, dims)
    lead, sizes = x.shape[: -dims - 1], x.shape[-dims - 1 : -1]
    pads = resolve_padding(padding, sizes, windows, strides, dilations, what="unfold: padding")
    out = tuple(map(window_output_size, sizes, windows, strides, dilations, pads))
    if min(out) < 1:
        raise ValueError(f"unfold: the window {windows} is larger than the padded input: sizes {sizes}, padding {pads}")
    x = jnp.pad(x, ((0, 0),) * len(lead) + pads + ((0, 0),))

    def at(place: Sequence[int]) -> Array:
        starts = [p * d for p, d in zip(place, dilations, strict=True)]
        cut = [slice(a, a + (o - 1) * s + 1, s) for a, o, s in zip(starts, out, strides, strict=True)]
        return x[(..., *cut, slice(None))]

    return jnp.concatenate([at(place) for place in itertools.product(*map(range, windows))], axis=-1)


def fold(
    y: Shaped[Array, "*out"],
    size: Sequence[int],
    kernel: Size,
    stride: Size = 1,
    padding: Padding = "VALID",
    *,
    dilation: Size = 1,
) -> Shaped[Array, "*in"]:
    """The windows of `unfold` added up where they were: y `[..., *out, prod(kernel) C]` to x `[..., *size, C]`, col2im.

        x[m, c] = sum over n, k with  n stride + k dilation - low = m  of  y[n, k C + c]

    It is the transpose of `unfold`, not its inverse: `fold(unfold(x))` is x times the number of windows that hold each
    place, `fold(unfold(ones))`. `size` has the spatial sizes of x. torch: `[B, C prod(kernel), prod(out)]`.

    >>> fold(jnp.ones((1, 3, 2)), (4,), 2).ravel()
    Array([1., 2., 2., 1.], dtype=float32)

    Raises:
      ValueError: a size that these windows do not come from, channels that prod(kernel) does not divide.
    """
    size = tuple(size)
    dims = len(size)
    windows = spread("fold: kernel", kernel, dims)
    if y.ndim < dims + 1 or y.shape[-1] % math.prod(windows):
        raise ValueError(
            f"fold: y is {list(y.shape)}; want [..., *out, prod(kernel) C] with {dims} spatial axes and a last axis "
            f"that is a multiple of prod({windows}) = {math.prod(windows)}"
        )
    whole = (*y.shape[: -dims - 1], *size, y.shape[-1] // math.prod(windows))
    run = partial(unfold, kernel=windows, stride=stride, padding=padding, dilation=dilation)
    x = jax.ShapeDtypeStruct(whole, y.dtype)
    if (made := jax.eval_shape(run, x).shape) != y.shape:
        raise ValueError(
            f"fold: y is {list(y.shape)}, but windows of x {list(whole)} are {list(made)}; check size {size}"
        )
    return jax.linear_transpose(run, x)(y)[0]


def patchify(x: Shaped[Array, "*in"], patch: Size, *, dims: int | None = None) -> Shaped[Array, "*lead n d"]:
    """x cut into patches without overlap: `[..., *spatial, C]` to `[..., N, prod(patch) C]`, both in row-major order.

    `unfold(x, patch, stride=patch)` with its windows in one axis, `N = prod(spatial) / prod(patch)`, made by a reshape.

    >>> patchify(jnp.ones((2, 8, 12, 3)), 4).shape
    (2, 6, 48)

    Raises:
      ValueError: spatial sizes that the patch does not divide: crop or pad first.
    """
    dims = _dims("patchify", x, patch, dims)
    patches = spread("patchify: patch", patch, dims)
    lead, sizes, channels = x.shape[: -dims - 1], x.shape[-dims - 1 : -1], x.shape[-1]
    if any(n % p for n, p in zip(sizes, patches, strict=True)):
        raise ValueError(
            f"patchify: x is {list(x.shape)}: its spatial sizes {sizes} are no multiples of the patch {patches}; crop "
            "or pad it first"
        )
    counts = [n // p for n, p in zip(sizes, patches, strict=True)]
    x = x.reshape(*lead, *(m for pair in zip(counts, patches, strict=True) for m in pair), channels)
    k = len(lead)
    x = x.transpose(*range(k), *range(k, k + 2 * dims, 2), *range(k + 1, k + 2 * dims, 2), k + 2 * dims)
    return x.reshape(*lead, math.prod(counts), math.prod(patches) * channels)


def unpatchify(tokens: Shaped[Array, "*lead n d"], size: Sequence[int], patch: Size) -> Shaped[Array, "*out"]:
    """The inverse of `patchify`: `[..., N, prod(patch) C]` to `[..., *size, C]`.

    >>> unpatchify(patchify(jnp.arange(16.0).reshape(1, 4, 4, 1), 2), (4, 4), 2).ravel()[:4]
    Array([0., 1., 2., 3.], dtype=float32)

    Raises:
      ValueError: a size that the patch does not divide, or another number of tokens or channels.
    """
    size = tuple(size)
    dims = len(size)
    patches = spread("unpatchify: patch", patch, dims)
    counts = [n // p for n, p in zip(size, patches, strict=True)]
    places = math.prod(patches)
    whole = not any(n % p for n, p in zip(size, patches, strict=True))
    if not whole or tokens.ndim < 2 or tokens.shape[-2] != math.prod(counts) or tokens.shape[-1] % places:
        raise ValueError(
            f"unpatchify: tokens are {list(tokens.shape)}, size {size} and patch {patches}; want a patch that divides "
            f"the size, {math.prod(counts)} tokens and a last axis that is a multiple of {places}"
        )
    lead, channels = tokens.shape[:-2], tokens.shape[-1] // places
    k = len(lead)
    x = tokens.reshape(*lead, *counts, *patches, channels)
    order = [axis for i in range(dims) for axis in (k + i, k + dims + i)]
    return x.transpose(*range(k), *order, k + 2 * dims).reshape(*lead, *size, channels)
