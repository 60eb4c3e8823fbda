"""What an initializer is, and the fans: how many inputs an output sums over, how many outputs an input reaches."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

__all__ = ["Fans", "Initializer", "compute_fans", "wide"]

Fans: TypeAlias = tuple[int | float, int | float]


class Initializer:
    """Base of all initializers: subclass as `@dataclass(frozen=True)` and write `__call__`.

    >>> from dataclasses import dataclass
    >>> from dlkit import nn
    >>> @dataclass(frozen=True)
    ... class Signs(nn.initializers.Initializer):
    ...     size: float
    ...
    ...     def __call__(self, key, shape, dtype=jnp.float32, fans=None):
    ...         return self.size * jax.random.rademacher(key, shape, dtype)
    >>> layer = nn.Linear(3, 2, w_init=Signs(0.5))
    >>> abs(layer.init(jax.random.key(0))["w"]).max().item()
    0.5
    """

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32, fans: Fans | None = None
    ) -> jax.Array:
        """The initial value of an array of this shape and dtype.

        `fans = (fan_in, fan_out)` are given by layers that know them; None means: computed from the shape.
        """
        raise TypeError(f"{type(self).__name__} does not say what it draws: give it a `__call__`")


def wide(dtype: DTypeLike) -> Any:
    """The dtype to draw in: float64 for float64, else float32, so that bfloat16 is rounded once, at the end."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


def compute_fans(
    shape: Sequence[int], groups: int = 1, transposed: bool = False, stride: int | Sequence[int] = 1
) -> Fans:
    """`(fan_in, fan_out)` of a weight `[d_in, d_out]` or a kernel `[*kernel, c_in / groups, c_out]`.

        fan_in  = prod(kernel) * c_in / groups       terms in the sum that makes one output
        fan_out = prod(kernel) * c_out / groups      outputs that one input takes part in

    With weights of mean 0 and variance `1 / fan_in`, independent inputs of variance 1 give outputs of variance 1; with
    `1 / fan_out`, gradients keep their variance on the way back. Dilation changes neither. Both hold away from the
    borders: where a window hangs over zero padding the sum has fewer terms. For grouped kernels torch, flax and Keras
    have the same `fan_in`, but their `fan_out` is `prod(kernel) * c_out`, `groups` times too large.

    With `transposed`, the kernel is that of `functional.conv_transpose`, `[*kernel, c_out / groups, c_in]`, and the
    same two formulas hold. torch's fans of its transposed kernels are swapped: what it calls fan_in is `fan_out` here.

    A `stride` thins out one of the two. Of the outputs of an ordinary convolution only one in `prod(stride)` is
    computed, so `fan_out` is divided by it; between the inputs of a transposed one lie `prod(stride) - 1` zeros, so
    `fan_in` is. In a transposed convolution this is the mean over output positions: where the stride does not divide
    the kernel, some positions sum over one tap more than others, and no scale makes the variance the same everywhere.
    Without it (1), the numbers are those of the other libraries, whose layers all ignore the stride: He's `fan_out` in
    a strided convolution lets gradients shrink by the stride, and a transposed layer starts with outputs whose variance
    is too small by it.

    >>> compute_fans((3, 3, 16, 32))
    (144, 288)
    >>> compute_fans((3, 3, 1, 32), groups=32)
    (9, 9)
    >>> compute_fans((4, 4, 32, 16), transposed=True, stride=2)
    (64, 512)

    Raises:
      ValueError: a shape of fewer than two axes, or groups that do not divide the last one.
    """
    if len(shape) < 2:
        raise ValueError(
            f"a weight of shape {tuple(shape)} has no fans: expected [..., d_in, d_out]; "
            f"for a bias pass fans=(fan_in, fan_out) of the weight that it belongs to"
        )
    *kernel, first, last = shape
    if groups < 1 or last % groups:
        raise ValueError(f"groups={groups} does not divide the last axis of a weight of shape {tuple(shape)}")
    field = math.prod(kernel)
    steps = stride ** len(kernel) if isinstance(stride, int) else math.prod(stride)
    many, few = field * first, _over(field * (last // groups), steps)
    return (few, many) if transposed else (many, few)


def _over(fan: int, steps: int) -> int | float:
    return fan // steps if fan % steps == 0 else fan / steps
