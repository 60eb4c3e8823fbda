"""Parameters as matrices: which axes are inputs and outputs, and the orthogonal matrix closest to a matrix."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.functional import decompositions
from dlkit.optim.leaves import by_real, real_dtype, widest

__all__ = ["GaLoreDimensionNumbers", "MuonDimensionNumbers"]


class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the inputs of a matrix, and which its outputs. Every other axis is a batch axis.

    The kernel `[k, k, in, out]` of a convolution is a matrix with `MuonDimensionNumbers((0, 1, 2), 3)`; the stacked
    weights `[depth, in, out]` of a scanned `Stack` are `depth` matrices with `MuonDimensionNumbers(1, 2)`.
    """

    reduction_axis: Any = 0  # an axis, or a tuple of axes
    output_axis: Any = 1


class GaLoreDimensionNumbers(NamedTuple):
    """As `MuonDimensionNumbers`, for `galore`: every axis has to be an input or an output."""

    reduction_axis: Any = 0  # an axis, or a tuple of axes
    output_axis: Any = 1


class Layout(NamedTuple):
    """How one parameter is a stack of matrices: the axes, none of them negative."""

    batch: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def to_matrices(self, x: Array) -> Array:
        """[batch, inputs, outputs]"""
        sizes = [math.prod(x.shape[axis] for axis in axes) for axes in self]
        return jnp.reshape(jnp.transpose(x, self._order()), sizes)

    def back(self, x: Array, shape: tuple[int, ...]) -> Array:
        order = self._order()
        inverse = sorted(range(len(order)), key=lambda axis: order[axis])
        return jnp.transpose(jnp.reshape(x, [shape[axis] for axis in order]), inverse)

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return math.prod(shape[axis] for axis in self.inputs), math.prod(shape[axis] for axis in self.outputs)

    def _order(self) -> tuple[int, ...]:
        return self.batch + self.inputs + self.outputs


def layout(owner: str, shape: tuple[int, ...], numbers: Any) -> Layout:
    """The layout that dimension numbers mean for a parameter of this shape.

    Raises:
      ValueError: fewer than two axes, an axis that does not exist, or one that is an input and an output.
    """

    def axes(of: Any) -> tuple[int, ...]:
        return tuple(axis % len(shape) for axis in (of if isinstance(of, tuple | list) else (of,)))

    given = (numbers.reduction_axis, numbers.output_axis)
    flat = [axis for of in given for axis in (of if isinstance(of, tuple | list) else (of,))]
    if len(shape) < 2 or not all(-len(shape) <= axis < len(shape) for axis in flat):
        raise ValueError(f"{owner}: a parameter of shape {shape} is no matrix by {numbers}")
    inputs, outputs = axes(given[0]), axes(given[1])
    if len({*inputs, *outputs}) < len(inputs) + len(outputs):
        raise ValueError(f"{owner}: by {numbers}, an axis of the shape {shape} is named twice")
    batch = tuple(axis for axis in range(len(shape)) if axis not in inputs + outputs)
    return Layout(batch, inputs, outputs)


def is_numbers(x: Any) -> bool:
    """Dimension numbers, ours or optax's."""
    return hasattr(x, "reduction_axis") and hasattr(x, "output_axis")


@dataclass(frozen=True)
class NumbersTree:
    """A tree of dimension numbers in a hashable form; None for a parameter that is no matrix."""

    structure: Any
    leaves: tuple[Any, ...]


def _is_leaf(x: Any) -> bool:
    return x is None or is_numbers(x)


def settle_numbers(owner: str, numbers: Any) -> Any:
    """The dimension numbers in the form that a definition holds: None, one pair, a callable, or a `NumbersTree`.

    Raises:
      TypeError: it is none of these.
    """
    if numbers is None or is_numbers(numbers):
        return _hashable(numbers)
    if isinstance(numbers, NumbersTree) or callable(numbers):
        return numbers
    leaves, structure = jax.tree.flatten(numbers, is_leaf=_is_leaf)
    if not leaves or not all(_is_leaf(leaf) for leaf in leaves):
        raise TypeError(f"{owner}: got {numbers!r}, wanted dimension numbers, a tree of them, or a callable")
    return NumbersTree(structure, tuple(_hashable(leaf) for leaf in leaves))


def _hashable(numbers: Any) -> Any:
    if numbers is None:
        return None
    axes = (tuple(a) if isinstance(a, list) else a for a in (numbers.reduction_axis, numbers.output_axis))
    return type(numbers)(*axes)


def resolve_numbers(numbers: Any, params: Any, default: Callable[[Any], Any]) -> Any:
    """For every leaf of `params` its dimension numbers, or None: settled `numbers` may be a prefix of the tree.

    `default(leaf)` gives those that are used where `numbers` is None.
    """
    if numbers is None:
        return jax.tree.map(default, params)
    if isinstance(numbers, NumbersTree):
        numbers = jax.tree.unflatten(numbers.structure, numbers.leaves)
    elif not is_numbers(numbers):
        numbers = numbers(params)
    return jax.tree.map(lambda some, below: jax.tree.map(lambda _: some, below), numbers, params, is_leaf=_is_leaf)


def two_axes(leaf: Any) -> MuonDimensionNumbers | None:
    """The default: a parameter with two axes is a matrix, any other is not."""
    return MuonDimensionNumbers() if jnp.ndim(leaf) == 2 else None


def polar(x: Array) -> Array:
    """U V^T of each matrix x = U S V^T: the closest one with singular values of 1. Exact, from the SVD.

    Directions in which x is zero, up to rounding, stay zero: so does a matrix of zeros. Computed in float32 or wider.
    """
    own = x.dtype
    wide = widest(own, jnp.dtype(jnp.float32))
    u, s, vh = decompositions.svd(x.astype(wide))
    least = jnp.finfo(wide).eps * max(x.shape[-2:]) * jnp.max(s, axis=-1, keepdims=True, initial=0.0)
    keep = (s > jnp.broadcast_to(least, s.shape)).astype(wide)
    return ((u * jnp.broadcast_to(jnp.expand_dims(keep, -2), u.shape)) @ vh).astype(own)


Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]
PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")


def newton_schulz(x: Array, steps: tuple[Any, ...], preconditioning: str, eps: Any) -> Array:
    """About U V^T of each matrix x = U S V^T, by products of matrices alone.

    With A = X X^T, a step is X = a X + (b A + c A^2) X: the odd polynomial a s + b s^3 + c s^5 of every singular value
    s, given by `steps` as its coefficients (a, b, c), one triple a step. It is applied from the shorter side.

    The polynomials bring values in (0, 1] close to 1, so x is first divided by a bound of its largest one: its
    `"frobenius"` norm, or the `"spectral"` norm itself. Two others use the first step's A, which is there anyway:
    `"aol"` scales every row of X by the sum of the row of |A|, `"schatten"` all of X by the norm of A; both to the
    power -1/2.
    """
    with by_real(x):
        tall = x.shape[-2] > x.shape[-1]
        x = _transpose(x) if tall else x
        if preconditioning == "frobenius":
            x = x / _along(jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + eps, x)
        elif preconditioning == "spectral":
            wide = widest(x.dtype, jnp.dtype(jnp.float32))
            largest = decompositions.spectral_norm(x.astype(wide))[..., None, None]
            x = x / _along(largest.astype(real_dtype(x.dtype)) + eps, x)
        for i, (a, b, c) in enumerate(steps):
            gram = x @ _transpose(x).conj()
            if i == 0 and preconditioning in ("aol", "schatten"):
                if preconditioning == "aol":
                    size = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
                else:
                    size = jnp.linalg.norm(gram, axis=(-2, -1), keepdims=True)
                scale = jax.lax.rsqrt(jnp.maximum(size, jnp.asarray(1e-8, size.dtype)))
                x, gram = x * _along(scale, x), gram * _along(scale, gram) * _along(_transpose(scale), gram)
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        return _transpose(x) if tall else x


def _transpose(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _along(x: Array, like: Array) -> Array:
    return jnp.broadcast_to(x, like.shape)
