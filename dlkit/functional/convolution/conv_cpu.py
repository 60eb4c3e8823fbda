"""The convolution of `conv`, with derivatives that a CPU computes fast.

On a CPU, XLA computes `conv_general_dilated` well only with the axes in its own order. What autodiff makes of it is
in another order: outside of loops XLA then moves whole activations around to compute the gradient of the kernel, and
inside of `lax.scan` it falls back to plain loops, some fifty times slower. So the derivative is written here:

    in x: the same convolution, with the kernel transposed beforehand, so that its transpose is in XLA's own order;
    in w: a matrix product with the windows of x, a few examples at a time, so that the windows stay in the cache.
          Its transpose, dw = windows(x)^T dy, is one matrix product of each few examples.

It is a rule for the tangent, in ordinary operations: forward mode, reverse mode and their compositions all follow from
it. Off the CPU the derivative in w is XLA's own.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from dlkit.functional.convolution.depthwise_cpu import convolve_depthwise
from dlkit.functional.precision import wide_dtype

__all__ = ["convolve"]

Pads = tuple[tuple[int, int], ...]

_AXES = {1: "W", 2: "HW", 3: "DHW"}
CACHE = 2**21  # bytes: about the second-level cache of one core
LARGEST = 2**24  # bytes: beyond this the windows of a single example are left to XLA
PLACES = 64  # kernels with more places than this too: each is an operation to compile


def convolve(
    x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int], groups: int = 1
) -> Array:
    """`lax.conv_general_dilated` of x `[B, *spatial, c_in]` and w `[*kernel, c_in / groups, c_out]`.

    >>> convolve(jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1)), (1,), ((1, 1),), (1,)).ravel()
    Array([2., 3., 2.], dtype=float32)
    """
    how = (tuple(strides), tuple(pads), tuple(dilations))
    few = x.size > 0 and w.size > 0 and math.prod(w.shape[:-2]) <= PLACES
    if few and groups > 1 and groups == x.shape[-1] and jnp.issubdtype(x.dtype, jnp.floating):
        return convolve_depthwise(x, w, *how)
    if groups > 1 or not few:
        return _plain(x, w, *how, groups=groups)
    return _convolve(x, w, *how)


def _plain(
    x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int], *, groups: int = 1, io: str = "IO"
) -> Array:
    axes = _AXES[len(strides)]
    return lax.conv_general_dilated(
        x,
        w,
        strides,
        pads,
        rhs_dilation=dilations,
        dimension_numbers=(f"N{axes}C", f"{axes}{io}", f"N{axes}C"),
        feature_group_count=groups,
    )


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    return _plain(x, w, strides, pads, dilations)


@partial(_convolve.defjvp, symbolic_zeros=True)
def _tangent(
    strides: Sequence[int], pads: Pads, dilations: Sequence[int], primals: tuple[Array, Array], tangents: Any
) -> tuple[Array, Array]:
    (x, w), (dx, dw) = primals, tangents
    y = _convolve(x, w, strides, pads, dilations)
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_plain(dx, w.swapaxes(-1, -2), strides, pads, dilations, io="OI"))
    if not isinstance(dw, SymbolicZero):
        terms.append(_kernel_term(x, dw, strides, pads, dilations))
    return y, reduce(jnp.add, terms) if terms else jnp.zeros_like(y)


# Compiled on its own so that, outside of a jitted function, it is compiled once and not at every call.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _kernel_term(x: Array, dw: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    xla = partial(_plain, strides=strides, pads=pads, dilations=dilations)
    out = jax.eval_shape(xla, x, dw).shape[1:-1]
    by_windows, size = _formulation(x.shape, dw.shape, out, strides)
    size *= x.dtype.itemsize
    # A batch spread over several devices is spread by XLA: a loop over parts of it would gather it on each of them.
    if size > LARGEST or jax.device_count() > 1:
        return xla(x, dw)
    product = partial(by_windows, out=out, strides=strides, pads=pads, dilations=dilations)
    return lax.platform_dependent(x, dw, cpu=partial(in_parts, product, CACHE // size), default=xla)


def _formulation(
    x_shape: Sequence[int], w_shape: Sequence[int], out: Sequence[int], strides: Sequence[int]
) -> tuple[Callable[..., Array], int]:
    """The product with fewer numbers to copy, and how many an example has."""
    (first, *rest), (c_in, c_out) = w_shape[:-2], w_shape[-2:]
    all_places = first * math.prod(rest) * c_in * math.prod(out)
    rows = (math.prod(rest) * c_in + first * c_out) * x_shape[1] * math.prod(out[1:])
    return (_by_rows, rows) if strides[0] == 1 and rows <= all_places else (_by_places, all_places)


def in_parts(product: Callable[..., Array], n: int, x: Array, dw: Array) -> Array:
    """`product(x, dw)`, about `n` examples at a time."""
    # Parts are summed in the transpose: in float32 or wider.
    dw = dw.astype(wide_dtype(dw.dtype))
    batch = x.shape[0]
    n = _part(batch, n)

    # What is kept for the backward pass is x alone, whole and in its own shape: windows and parts are made again then.
    @partial(jax.checkpoint, prevent_cse=False, static_argnums=3)
    def part(start: Array, x: Array, dw: Array, size: int) -> Array:
        return product(lax.dynamic_slice_in_dim(x, start, size), dw.astype(x.dtype))

    count, rest = divmod(batch, n)
    y = [] if rest == 0 else [part(jnp.asarray(count * n, jnp.int32), x, dw, rest)]
    if count == 1:
        y = [part(jnp.zeros((), jnp.int32), x, dw, n), *y]
    else:
        parts = lax.map(lambda start: part(start, x, dw, n), jnp.arange(0, count * n, n, dtype=jnp.int32))
        y = [parts.reshape(count * n, *parts.shape[2:]), *y]
    return jnp.concatenate(y) if rest else y[0]


def _part(batch: int, most: int) -> int:
    """How many examples a part has: at most `most`, and a divisor of the batch unless that were less than half of it.

    >>> _part(64, 5), _part(61, 5), _part(4, 9)
    (4, 5, 4)
    """
    most = min(max(most, 1), batch)
    divisor = max(n for n in range(1, most + 1) if batch % n == 0)
    return divisor if 2 * divisor >= most else most


def _windows(
    x: Array, kernel: Sequence[int], out: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Array:
    """x `[B, *spatial, C]` at every place of the window, side by side: `[B, *out, prod(kernel) * C]`."""

    def at(place: Sequence[int]) -> Array:
        low = [p * d for p, d in zip(place, dilations, strict=True)]
        high = [o + (n - 1) * s + 1 for o, n, s in zip(low, out, strides, strict=True)]
        return lax.slice(x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *strides, 1))

    return jnp.concatenate(list(map(at, itertools.product(*map(range, kernel)))), axis=-1)


def _matmul(x: Array, w: Array) -> Array:
    return (x.reshape(-1, x.shape[-1]) @ w.reshape(x.shape[-1], -1)).reshape(*x.shape[:-1], -1)


def _by_places(
    x: Array, w: Array, *, out: Sequence[int], strides: Sequence[int], pads: Pads, dilations: Sequence[int]
) -> Array:
    """All places of the window side by side: one product `[B * out, prod(kernel) * c_in] [.., c_out]`."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return _matmul(_windows(x, w.shape[:-2], out, strides, dilations), w)


def _by_rows(
    x: Array, w: Array, *, out: Sequence[int], strides: Sequence[int], pads: Pads, dilations: Sequence[int]
) -> Array:
    """The places in a row of the window side by side in the input, its rows side by side in the output.

    One product `[B * H * W_out, k_w * c_in] [.., k_h * c_out]`, whose k_h parts are then shifted and added: with 3 x 3
    places and as many channels out as in, 6 instead of 9 copies are made in the transpose. Wants stride 1 in rows.
    """
    (first, *rest), c_out = w.shape[:-2], w.shape[-1]
    height = x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, 0), *pads[1:], (0, 0)))
    places = _windows(x, (1, *rest), (height, *out[1:]), strides, dilations)
    y = _matmul(places, jnp.moveaxis(w, 0, -2))
    total = []
    for i, part in enumerate(lax.split(y, (c_out,) * first, axis=y.ndim - 1)):
        low = pads[0][0] - i * dilations[0]
        if -height < low < out[0]:  # else this row of the window meets only padding
            ends = ((0, 0, 0), (low, out[0] - height - low, 0), *(((0, 0, 0),) * len(out)))
            total.append(lax.pad(part, jnp.zeros((), part.dtype), ends))
    return reduce(jnp.add, total)
