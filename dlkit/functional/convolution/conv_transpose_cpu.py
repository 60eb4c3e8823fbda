"""The transposed convolution, with derivatives that a CPU computes fast.

What autodiff makes of `conv_general_dilated` with a dilated input is in an order of axes that XLA computes slowly on a
CPU (see `conv_cpu`), the gradient of the kernel ten times and more slower than it need be. Here, as a rule for the
tangent in ordinary operations,

    in x: the same transposed convolution with the kernel's own order of axes, whose transpose is in XLA's own order;
    in w: a matrix product, whose parts are added up where they overlap, a few examples at a time. Its transpose,
          dw = windows(dy)^T x, is one matrix product of each few examples.

Off the CPU the derivative in w is XLA's own.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from dlkit.functional.convolution import conv_cpu

__all__ = ["convolve_transposed"]

Ends = tuple[tuple[int, int], ...]

_AXES = {1: "W", 2: "HW", 3: "DHW"}


def convolve_transposed(
    x: Array, w: Array, strides: Sequence[int], ends: Ends, dilations: Sequence[int], groups: int = 1
) -> Array:
    """x `[B, *spatial, c_in]` with `strides - 1` zeros between its elements and `ends` around them, convolved with w
    `[*kernel, c_out / groups, c_in]`, flipped.

    >>> convolve_transposed(jnp.ones((1, 2, 1)), jnp.array([[[1.0]], [[2.0]]]), (2,), ((1, 1),), (1,)).ravel()
    Array([1., 2., 1., 2.], dtype=float32)
    """
    how = (tuple(strides), tuple(ends), tuple(dilations))
    if groups > 1 or x.size == 0 or w.size == 0 or math.prod(w.shape[:-2]) > conv_cpu.PLACES:
        return _plain(x, _flipped(w, groups), *how, groups=groups)
    return _convolve(x, w, *how)


def _flipped(w: Array, groups: int = 1) -> Array:
    """`[*kernel, c_out / groups, c_in]` to the kernel of the convolution, `[*kernel, c_in / groups, c_out]`."""
    dims, (per_group, c_in) = w.ndim - 2, w.shape[-2:]
    w = jnp.flip(w, range(dims)).reshape(*w.shape[:-1], groups, c_in // groups)
    w = jnp.moveaxis(w, -1, dims).swapaxes(-1, -2)
    return w.reshape(*w.shape[:dims], c_in // groups, groups * per_group)


def _plain(
    x: Array, w: Array, strides: Sequence[int], ends: Ends, dilations: Sequence[int], *, groups: int = 1, io: str = "IO"
) -> Array:
    axes = _AXES[len(strides)]
    if max(strides) > 1 and math.prod(w.shape[:-2]) > math.prod(x.shape[1:-1]):
        # Where the kernel is larger than the input, XLA swaps the two, and for some strides a check of its own then
        # ends the process (jaxlib 0.10). The zeros between the elements are written out here, behind a barrier, because
        # XLA would fold them into the convolution again; the input is small.
        config = ((0, 0, 0), *((0, 0, stride - 1) for stride in strides), (0, 0, 0))
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), config))
        strides = (1,) * len(strides)
    return lax.conv_general_dilated(
        x,
        w,
        (1,) * len(strides),
        ends,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=(f"N{axes}C", f"{axes}{io}", f"N{axes}C"),
        feature_group_count=groups,
    )


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, w: Array, strides: Sequence[int], ends: Ends, dilations: Sequence[int]) -> Array:
    return _plain(x, _flipped(w), strides, ends, dilations)


@partial(_convolve.defjvp, symbolic_zeros=True)
def _tangent(
    strides: Sequence[int], ends: Ends, dilations: Sequence[int], primals: tuple[Array, Array], tangents: Any
) -> tuple[Array, Array]:
    (x, w), (dx, dw), how = primals, tangents, (strides, ends, dilations)
    y = _convolve(x, w, *how)
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_plain(dx, jnp.flip(w, range(len(strides))), *how, io="OI"))
    if not isinstance(dw, SymbolicZero):
        terms.append(_kernel_term(x, dw, *how))
    return y, reduce(jnp.add, terms) if terms else jnp.zeros_like(y)


# Compiled on its own so that, outside of a jitted function, it is compiled once and not at every call.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _kernel_term(x: Array, dw: Array, strides: Sequence[int], ends: Ends, dilations: Sequence[int]) -> Array:
    def xla(x: Array, dw: Array) -> Array:
        return _plain(x, _flipped(dw), strides, ends, dilations)

    out = jax.eval_shape(xla, x, dw).shape[1:-1]
    size = math.prod(x.shape[1:-1]) * math.prod(dw.shape[:-1]) * x.dtype.itemsize
    # As in `conv_cpu`: what is too large, and a batch spread over several devices, are left to XLA.
    if size > conv_cpu.LARGEST or jax.device_count() > 1:
        return xla(x, dw)
    product = partial(_overlapping, out=out, strides=strides, ends=ends, dilations=dilations)
    few = conv_cpu.CACHE // size
    return lax.platform_dependent(x, dw, cpu=partial(conv_cpu.in_parts, product, few), default=xla)


def _overlapping(
    x: Array, w: Array, *, out: Sequence[int], strides: Sequence[int], ends: Ends, dilations: Sequence[int]
) -> Array:
    """One product `[B * n, c_in] [c_in, prod(kernel) * c_out]`, whose parts, by place, are added where they belong."""
    *kernel, c_out, c_in = w.shape
    y = x.reshape(-1, c_in) @ jnp.moveaxis(w, -1, 0).reshape(c_in, -1)
    parts = lax.split(y.reshape(*x.shape[:-1], -1), (c_out,) * math.prod(kernel), axis=x.ndim - 1)
    total = [jnp.zeros((x.shape[0], *out, c_out), y.dtype)]
    for place, part in zip(itertools.product(*map(range, kernel)), parts, strict=True):
        reach = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], strides, strict=True)]
        low = [e - (k - 1 - p) * d for p, k, d, (e, _) in zip(place, kernel, dilations, ends, strict=True)]
        if all(-r < a < n for r, a, n in zip(reach, low, out, strict=True)):  # else all of it is cut off
            each = [(a, n - r - a, s - 1) for a, n, r, s in zip(low, out, reach, strides, strict=True)]
            total.append(lax.pad(part, jnp.zeros((), part.dtype), ((0, 0, 0), *each, (0, 0, 0))))
    return reduce(jnp.add, total[1:]) if len(total) > 1 else total[0]
