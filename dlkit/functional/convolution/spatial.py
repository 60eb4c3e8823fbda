"""Windows over spatial axes: how stride, dilation and padding are read, shared by convolution and pooling."""

from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["Padding", "resolve_padding", "same_padding", "window_output_size"]

Padding: TypeAlias = str | int | Sequence[int | Sequence[int]]


def spread(what: str, value: int | Sequence[int], dims: int, *, least: int = 1) -> tuple[int, ...]:
    """`value` for each of `dims` spatial axes: an int stands for all of them."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims or not all(isinstance(v, int) and v >= least for v in values):
        raise ValueError(
            f"{what} is {value!r}; want an int, or a tuple of {dims} ints (one a spatial axis), each at least {least}"
        )
    return values


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The padding `(low, high)` with which a window gives `ceil(size / stride)` outputs: XLA's and TensorFlow's
    "SAME".

    The total is `max((ceil(size / stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)`; an odd one puts the
    extra element at the high end. At a stride above 1 that is *not* torch's symmetric `padding=(window - 1) // 2`.

    >>> same_padding(8, 3, 1), same_padding(8, 3, 2)
    ((1, 1), (0, 1))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def resolve_padding(
    padding: Padding,
    sizes: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    what: str = "padding",
) -> tuple[tuple[int, int], ...]:
    """The pairs `(low, high)` of every spatial axis.

    `padding` is `"VALID"` (none), `"SAME"` (see `same_padding`), an int (both ends of every axis, as in torch), a
    tuple of ints (both ends, one int an axis), or a tuple of pairs `(low, high)`, one an axis. `"CAUSAL"`, on a single
    axis, is `((window - 1) * dilation, 0)`: output n sees nothing behind place `n * stride`.

    >>> resolve_padding("SAME", (8, 8), (3, 3), (2, 1), (1, 1))
    ((0, 1), (1, 1))
    >>> resolve_padding((1, 2), (8, 8), (3, 3), (1, 1), (1, 1))
    ((1, 1), (2, 2))

    Raises:
      ValueError: an unknown name, a wrong number of axes, a negative amount.
    """
    dims = len(sizes)
    if isinstance(padding, str):
        name = padding.upper()
        if name == "VALID":
            return ((0, 0),) * dims
        if name == "SAME":
            return tuple(map(same_padding, sizes, window, stride, dilation))
        if name == "CAUSAL" and dims == 1:
            return (((window[0] - 1) * dilation[0], 0),)
    else:
        axes = (padding,) * dims if isinstance(padding, int) else tuple(padding)
        pairs = tuple((axis, axis) if isinstance(axis, int) else tuple(axis) for axis in axes)
        if len(pairs) == dims and all(
            len(pair) == 2 and all(isinstance(n, int) and n >= 0 for n in pair) for pair in pairs
        ):
            return tuple((low, high) for low, high in pairs)
    raise ValueError(
        f'{what} is {padding!r}; want "SAME", "VALID", an int, a tuple of {dims} ints, or a tuple of {dims} pairs '
        '(low, high), none negative; "CAUSAL" on a single axis'
    )


def window_output_size(size: int, window: int, stride: int, dilation: int, pad: tuple[int, int]) -> int:
    """How many windows fit: `(size + low + high - (window - 1) * dilation - 1) // stride + 1`; below 1, none does.

    >>> window_output_size(28, 3, 2, 1, (1, 1))
    14
    """
    return (size + sum(pad) - (window - 1) * dilation - 1) // stride + 1
