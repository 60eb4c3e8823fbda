"""Convolution and transposed convolution in 1, 2 and 3 dimensions, channels last."""

import math
from collections.abc import Sequence

import jax.numpy as jnp  # noqa: F401  (the doctests)
from jaxtyping import Array, Float

from dlkit.functional.convolution.conv_cpu import convolve
from dlkit.functional.convolution.conv_transpose_cpu import convolve_transposed
from dlkit.functional.convolution.padding import pad
from dlkit.functional.convolution.spatial import Padding, resolve_padding, spread, window_output_size
from dlkit.functional.linear import add_bias, linear

__all__ = ["conv", "conv_transpose"]

_AXES = {1: "W", 2: "HW", 3: "DHW"}


def _spatial_dims(who: str, x: Array, w: Array) -> int:
    dims = w.ndim - 2
    if dims not in _AXES:
        raise ValueError(f"{who}: w is {list(w.shape)}; want 1, 2 or 3 kernel axes and then two of channels")
    if x.ndim < dims + 1:
        raise ValueError(
            f"{who}: x is {list(x.shape)}, but w {list(w.shape)} has {dims} kernel axes; "
            f"want x [..., *spatial, channels], at least {dims + 1} axes"
        )
    return dims


def _check_channels(who: str, x: Array, w: Array, groups: int, wanted: int, dims: int) -> None:
    if x.shape[-1] != wanted:
        first = x.ndim >= dims + 2 and x.shape[-dims - 1] == wanted
        raise ValueError(
            f"{who}: x is {list(x.shape)}, so it has {x.shape[-1]} channels (the last axis), but w {list(w.shape)} "
            f"with groups={groups} wants {wanted}"
            + (f"; x looks channels first: pass jnp.moveaxis(x, {-dims - 1}, -1)" if first else "")
        )


def _check_groups(who: str, groups: int, channels: int, which: str) -> None:
    if groups < 1 or channels % groups:
        raise ValueError(f"{who}: groups is {groups}; want a positive divisor of the {channels} {which} channels")


def conv(
    x: Float[Array, "*in"],
    w: Float[Array, "*kernel c_in_per_group c_out"],
    b: Float[Array, "..."] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Float[Array, "*out"]:
    """The convolution of deep learning, a cross-correlation: the kernel is not flipped. For one dimension

        y[n, o] = b[o] + sum over k, i of  x[n * stride + k * dilation - low, i] w[k, i, o]      (x is 0 outside)

    x `[..., *spatial, c_in]`, w `[*kernel, c_in / groups, c_out]`, b `[c_out]`; y `[..., *out, c_out]` with `out =
    (size + low + high - (kernel - 1) * dilation - 1) // stride + 1` on each axis. The number of spatial axes, 1 to 3,
    is that of the kernel; the axes in front of them are free: many, one, or none. With `groups`, output channels `[g
    * c_out / groups, (g + 1) * c_out / groups)` see only the g-th slice of the input channels; `groups = c_in` is a
    depthwise convolution.

    `padding`: an int, a tuple of ints or a tuple of pairs `(low, high)` mean what torch means; `"VALID"` is 0;
    `"SAME"` is XLA's and TensorFlow's, which at a stride above 1 is *not* torch's `padding=kernel // 2` (see
    `same_padding`); `"CAUSAL"`, in one dimension, is all in front, so that no output sees what comes later. With a
    `padding_mode` ("reflect", "replicate", "circular": `functional.pad`) x goes on outside as torch's layers with this
    argument have it. torch stores w as `[c_out, c_in / groups, *kernel]` and x as `[B, c_in, *spatial]`; flax and
    Keras are as here.

    >>> conv(jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 16)), stride=2, padding=1).shape
    (2, 4, 4, 16)
    >>> conv(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[[1.0]], [[-1.0]]]), padding="VALID").ravel()
    Array([-1., -1.], dtype=float32)

    Raises:
      ValueError: channels and groups that do not fit, a bad padding, stride or dilation, a kernel larger than the
      padded input.

    Reference: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
    """
    dims = _spatial_dims("conv", x, w)
    kernel, (per_group, c_out) = w.shape[:dims], w.shape[dims:]
    _check_groups("conv", groups, c_out, "output")
    _check_channels("conv", x, w, groups, per_group * groups, dims)
    strides = spread("conv: stride", stride, dims)
    dilations = spread("conv: dilation", dilation, dims)
    lead, sizes = x.shape[: -dims - 1], x.shape[-dims - 1 : -1]
    pads = resolve_padding(padding, sizes, kernel, strides, dilations, what="conv: padding")
    if min(map(window_output_size, sizes, kernel, strides, dilations, pads)) < 1:
        raise ValueError(
            f"conv: the kernel {kernel} with dilation {dilations} is larger than the padded input: "
            f"spatial sizes {sizes}, padding {pads}; pad more or use a smaller kernel"
        )
    x = x.reshape(math.prod(lead), *x.shape[-dims - 1 :])
    if padding_mode != "zeros":
        x, pads = pad(x, pads, padding_mode), ((0, 0),) * dims
    if groups == 1 and math.prod(kernel) == 1 and not any(map(sum, pads)):
        # A matrix product: its gradient is 2 to 4 times as fast as that of the convolution on a CPU.
        x = x[(slice(None), *(slice(None, None, s) for s in strides))]
        y = linear(x, w.reshape(per_group, c_out))
    else:
        y = convolve(x, w, strides, pads, dilations, groups)
    return add_bias("conv", y, b).reshape(*lead, *y.shape[1:])


def _transpose_padding(
    padding: Padding, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """The padding of the convolution that is transposed, and by how much the result must grow to be `size * stride`."""
    if isinstance(padding, str) and padding.upper() == "CAUSAL":
        raise ValueError(
            'conv_transpose: padding is "CAUSAL", which is that of a convolution; use padding=0 and crop the high end '
            "of the output"
        )
    if not (isinstance(padding, str) and padding.upper() == "SAME"):
        pads = resolve_padding(padding, kernel, kernel, strides, dilations, what="conv_transpose: padding")
        return pads, (0,) * len(kernel)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    excess = [span - s for span, s in zip(spans, strides, strict=True)]
    return tuple((max(e, 0) // 2, max(e, 0) - max(e, 0) // 2) for e in excess), tuple(max(-e, 0) for e in excess)


def conv_transpose(
    x: Float[Array, "*in"],
    w: Float[Array, "*kernel c_out_per_group c_in"],
    b: Float[Array, "..."] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "*out"]:
    """The transposed convolution: the linear map whose matrix is the transpose of that of `conv` with the same w.

    x `[..., *spatial, c_in]`, w `[*kernel, c_out / groups, c_in]`, b `[c_out]`; y `[..., *out, c_out]` with `out =
    (size - 1) * stride - low - high + (kernel - 1) * dilation + 1 + output_padding` on each axis. The weight has the
    layout of the convolution that it transposes, which goes from `c_out` channels to `c_in`: so `sum(conv(y, w) * x)
    = sum(y * conv_transpose(x, w))`. torch (`[c_in, c_out / groups, *kernel]`) and Keras do the same; flax stores
    `[*kernel, c_in, c_out]` and does not flip the kernel unless `transpose_kernel=True`.

    For an initializer: one output sums about `c_in / groups * prod(kernel) / prod(stride)` products, which is its
    fan-in; torch's initializers read fan-in off the layout instead, `c_out / groups * prod(kernel)`.

    `padding` is that of the convolution transposed, as in torch: it makes the output *smaller*. `"VALID"` is 0.
    `"SAME"` gives `out = size * stride`, XLA's choice of ends. `output_padding` lengthens the high end of the output,
    to choose among the sizes that a strided convolution maps to the same one; it must be below the stride or the
    dilation.

    >>> conv_transpose(jnp.ones((2, 4, 4, 16)), jnp.ones((3, 3, 3, 16)), stride=2, padding=1, output_padding=1).shape
    (2, 8, 8, 3)
    >>> conv_transpose(jnp.array([[1.0], [2.0]]), jnp.array([[[1.0]], [[-1.0]]]), padding=0).ravel()
    Array([ 1.,  1., -2.], dtype=float32)

    Raises:
      ValueError: channels and groups that do not fit, a bad padding, output padding, stride or dilation, an empty
      output.

    Reference: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
    """
    dims = _spatial_dims("conv_transpose", x, w)
    kernel, c_in = w.shape[:dims], w.shape[-1]
    _check_groups("conv_transpose", groups, c_in, "input")
    _check_channels("conv_transpose", x, w, groups, c_in, dims)
    strides = spread("conv_transpose: stride", stride, dims)
    dilations = spread("conv_transpose: dilation", dilation, dims)
    extra = spread("conv_transpose: output_padding", output_padding, dims, least=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True) if e):
        raise ValueError(
            f"conv_transpose: output_padding is {extra}; want less than the stride {strides} or the "
            f"dilation {dilations}"
        )
    pads, grow = _transpose_padding(padding, kernel, strides, dilations)
    lead, sizes = x.shape[: -dims - 1], x.shape[-dims - 1 : -1]
    spans = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    ends = [(span - low, span - high + e + g) for span, (low, high), e, g in zip(spans, pads, extra, grow, strict=True)]
    out = [(n - 1) * s + 1 + sum(end) - span for n, s, end, span in zip(sizes, strides, ends, spans, strict=True)]
    if min(out) < 1:
        raise ValueError(
            f"conv_transpose: x is {list(x.shape)} and the output would have the spatial sizes {out}; "
            f"padding {pads} takes away all of it"
        )
    x = x.reshape(math.prod(lead), *x.shape[-dims - 1 :])
    y = convolve_transposed(x, w, strides, tuple(ends), dilations, groups)
    return add_bias("conv_transpose", y, b).reshape(*lead, *y.shape[1:])
