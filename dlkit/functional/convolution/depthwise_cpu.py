"""Depthwise convolution, with formulations that a CPU computes fast.

On a CPU, XLA computes a convolution with one channel a group as a plain loop. Here it is a sum over the places of the
kernel: shifted slices of x times one number a channel, which becomes one vectorized loop; and the gradient in x is the
same of dy. The gradient in w, dw[k] = sum over n of x[n + k] dy[n], would be one reduction for each place, which XLA
does not vectorize: it is accumulated row by row instead, `[W, C]` for each place, in a loop whose sums stay in the
cache.

As in `conv_cpu`, the derivative is a rule for the tangent in ordinary operations, so forward mode, reverse mode and
their compositions follow from it; and off the CPU all of it is XLA's own.
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

from dlkit.functional.precision import wide_dtype

__all__ = ["convolve_depthwise"]

Pads = tuple[tuple[int, int], ...]

_CACHE = 2**19  # bytes of the sums that the gradient of the kernel keeps: half of a core's second-level cache


def convolve_depthwise(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    """x `[B, *spatial, C]`, w `[*kernel, 1, C multiplier]`; the sums are in float32 or wider.

    >>> convolve_depthwise(jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1)), (1,), ((1, 1),), (1,)).ravel()
    Array([2., 3., 2.], dtype=float32)
    """
    return _convolve(x, w, tuple(strides), tuple(pads), tuple(dilations))


def _xla(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    axes = {1: "W", 2: "HW", 3: "DHW"}[len(strides)]
    return lax.conv_general_dilated(
        x,
        w,
        strides,
        pads,
        rhs_dilation=dilations,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=x.shape[-1],
    )


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    return _either(_slices, x, w, strides, pads, dilations)


def _either(on_cpu: Any, x: Array, w: Array, *how: Any) -> Array:
    # What is kept for the backward pass is x alone, neither padded nor wide nor repeated.
    @partial(jax.checkpoint, prevent_cse=False)
    def cpu(x: Array, w: Array) -> Array:
        wide = wide_dtype(x.dtype)
        x = jnp.repeat(x, w.shape[-1] // x.shape[-1], axis=-1)
        return on_cpu(x.astype(wide), w.squeeze(-2).astype(wide), *how).astype(x.dtype)

    return lax.platform_dependent(x, w, cpu=cpu, default=lambda x, w: _xla(x, w, *how))


@partial(_convolve.defjvp, symbolic_zeros=True)
def _tangent(
    strides: Sequence[int], pads: Pads, dilations: Sequence[int], primals: tuple[Array, Array], tangents: Any
) -> tuple[Array, Array]:
    (x, w), (dx, dw), how = primals, tangents, (strides, pads, dilations)
    y = _convolve(x, w, *how)
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_input_term(dx, w, *how))
    if not isinstance(dw, SymbolicZero):
        terms.append(_kernel_term(x, dw, *how))
    return y, reduce(jnp.add, terms) if terms else jnp.zeros_like(y)


# Compiled on their own so that, outside of a jitted function, they are compiled once and not at every call.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _input_term(dx: Array, w: Array, *how: Any) -> Array:
    return _either(_slices, dx, w, *how)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _kernel_term(x: Array, dw: Array, *how: Any) -> Array:
    # A batch spread over several devices is spread by XLA: a loop over parts of it would gather it on each of them.
    return _either(_slices if jax.device_count() > 1 else _rows, x, dw, *how)


def _output(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> list[int]:
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape, dilations, strict=False)]
    return [(n + sum(p) - m) // s + 1 for n, p, m, s in zip(x.shape[1:-1], pads, spans, strides, strict=True)]


def _slices(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    """The sum over the places of the kernel w `[*kernel, C]` of strided slices of x times w[place]."""
    out = _output(x, w, strides, pads, dilations)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)))

    def at(place: Sequence[int]) -> Array:
        low = [p * d for p, d in zip(place, dilations, strict=True)]
        high = [o + (n - 1) * s + 1 for o, n, s in zip(low, out, strides, strict=True)]
        part = lax.slice(x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *strides, 1))
        return part * lax.broadcast_in_dim(w[tuple(place)], part.shape, (part.ndim - 1,))

    return reduce(jnp.add, map(at, itertools.product(*map(range, w.shape[:-1]))))


def _rows(x: Array, w: Array, strides: Sequence[int], pads: Pads, dilations: Sequence[int]) -> Array:
    """The same, a part of a row of the output of a few examples at a time: for its transpose in w.

    Every place of the kernel has a copy of its numbers for each element of a part. The copies are the constants of the
    loop, so in the transpose they are what is accumulated: elementwise, and summed once behind the loop.
    """
    (*lead, last), channels, batch = w.shape[:-1], w.shape[-1], x.shape[0]
    (*outer, width) = _output(x, w, strides, pads, dilations)
    most = max(_CACHE // (x.dtype.itemsize * math.prod(w.shape)), 1)  # elements of a part, a channel
    parts = -(-width // most)
    size = -(-width // parts)
    few = max(n for n in range(1, max(most // size, 1) + 1) if batch % n == 0)
    spans = [(k - 1) * d + 1 for k, d in zip(lead, dilations, strict=False)]
    reach, step = (size - 1) * strides[-1] + 1, strides[-1]
    window = reach + (last - 1) * dilations[-1]
    # The last part of a row may hang over its end.
    more = max((parts - 1) * size * step + window - (x.shape[-2] + sum(pads[-1])), 0)
    ends = [*((*p, 0) for p in pads[:-1]), (pads[-1][0], pads[-1][1] + more, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
    block = (few, *lead, size, channels)
    copies = [
        lax.broadcast_in_dim(w[..., j, :], block, (*range(1, len(lead) + 1), len(block) - 1)) for j in range(last)
    ]

    # Windows are cut out again in the backward pass.
    @partial(jax.checkpoint, prevent_cse=False)
    def part(index: Array, x: Array, copies: list[Array]) -> Array:
        at, starts = index, []
        for n, unit in zip((parts, *reversed(outer)), (size, *(1,) * len(outer)), strict=True):
            starts.insert(0, at % n * unit)
            at = at // n
        low = [a * s for a, s in zip(starts, strides, strict=True)]
        zero = jnp.zeros((), index.dtype)
        seen = lax.dynamic_slice(x, (at * few, *low, zero), (few, *spans, window, channels))
        total = []
        for j, copy in enumerate(copies):
            start = j * dilations[-1]
            first = (0,) * (1 + len(lead)) + (start, 0)
            end = (few, *spans, start + reach, channels)
            total.append(lax.slice(seen, first, end, (1, *dilations[:-1], step, 1)) * copy)
        return reduce(jnp.add, total).sum(tuple(range(1, len(lead) + 1)))

    count = batch // few * math.prod(outer) * parts
    y = lax.map(lambda index: part(index, x, copies), jnp.arange(count, dtype=jnp.int32))
    y = jnp.moveaxis(y.reshape(batch // few, *outer, parts, few, size, channels), -3, 1)
    y = y.reshape(batch, *outer, parts * size, channels)
    return lax.slice_in_dim(y, 0, width, axis=y.ndim - 2)
