"""The blocks of the Inception networks, by their columns."""

from collections.abc import Callable
from typing import Any

from dlkit import nn
from dlkit.models.vision.branches import Branches
from dlkit.nn import initializers

__all__ = ["Unit", "block_a", "block_b", "block_c", "block_d", "block_e", "block_v1", "chain", "unit"]

Unit = Callable[..., nn.Chain]


def unit(c_in: int, c_out: int, kernel: Any = 1, stride: int = 1, padding: Any = 0) -> nn.Chain:
    """relu(norm(conv(x))), the convolution without a bias; eps of the norm is 1e-3, as in both papers' code."""
    conv = nn.Conv(c_in, c_out, kernel, stride=stride, padding=padding, bias=False, w_init=initializers.he_normal())
    return nn.Chain(conv=conv, norm=nn.BatchNorm(c_out, eps=1e-3), relu=nn.Relu())


def chain(c: int, *units: tuple[Any, ...], pool: nn.Layer[Any, Any] | None = None) -> nn.Chain:
    """`conv1`, `conv2`, ... from `c` channels on, each given as (c_out, kernel, stride, padding); `pool` in front."""
    parts: dict[str, nn.Layer[Any, Any]] = {} if pool is None else {"pool": pool}
    for i, (c_out, *more) in enumerate(units, 1):
        parts[f"conv{i}"] = unit(c, c_out, *more)
        c = c_out
    return nn.Chain(**parts)


def block_v1(c: int, one: int, to_three: int, three: int, to_five: int, five: int, pooled: int) -> Branches:
    """1 x 1; 1 x 1 and 3 x 3; 1 x 1 and 3 x 3 (in the paper 5 x 5); pooling and 1 x 1."""
    return Branches(
        chain(c, (one,)),
        chain(c, (to_three,), (three, 3, 1, 1)),
        chain(c, (to_five,), (five, 3, 1, 1)),
        chain(c, (pooled,), pool=nn.MaxPool(3, 1, padding=1)),
    )


def _mean() -> nn.AvgPool:
    return nn.AvgPool(3, 1, padding=1)


def block_a(c: int, k: Callable[[int], int], pooled: int) -> Branches:
    """1 x 1; 1 x 1 and 5 x 5; 1 x 1 and twice 3 x 3; pooling and 1 x 1. `k` scales the channels."""
    return Branches(
        chain(c, (k(64),)),
        chain(c, (k(48),), (k(64), 5, 1, 2)),
        chain(c, (k(64),), (k(96), 3, 1, 1), (k(96), 3, 1, 1)),
        chain(c, (k(pooled),), pool=_mean()),
    )


def block_b(c: int, k: Callable[[int], int]) -> Branches:
    """To half the picture: 3 x 3; 1 x 1 and twice 3 x 3; pooling."""
    return Branches(
        chain(c, (k(384), 3, 2)), chain(c, (k(64),), (k(96), 3, 1, 1), (k(96), 3, 2)), nn.MaxPool(3, 2)
    )  # fmt: skip


def block_c(c: int, k: Callable[[int], int], inner: int) -> Branches:
    """1 x 1; 7 x 7 in two convolutions; twice 7 x 7 in four; pooling and 1 x 1."""
    row, column, n = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0)), k(inner)
    return Branches(
        chain(c, (k(192),)),
        chain(c, (n,), (n, *row), (k(192), *column)),
        chain(c, (n,), (n, *column), (n, *row), (n, *column), (k(192), *row)),
        chain(c, (k(192),), pool=_mean()),
    )


def block_d(c: int, k: Callable[[int], int]) -> Branches:
    """To half the picture: 1 x 1 and 3 x 3; 1 x 1, 7 x 7 in two, 3 x 3; pooling."""
    n = k(192)
    return Branches(
        chain(c, (n,), (k(320), 3, 2)),
        chain(c, (n,), (n, (1, 7), 1, (0, 3)), (n, (7, 1), 1, (3, 0)), (n, 3, 2)),
        nn.MaxPool(3, 2),
    )


def block_e(c: int, k: Callable[[int], int]) -> Branches:
    """1 x 1; 1 x 1, then 1 x 3 beside 3 x 1; 1 x 1, 3 x 3, then both again; pooling and 1 x 1."""
    n = k(384)
    both = Branches(unit(n, n, (1, 3), 1, (0, 1)), unit(n, n, (3, 1), 1, (1, 0)))
    second, third = chain(c, (n,)), chain(c, (k(448),), (n, 3, 1, 1))
    return Branches(
        chain(c, (k(320),)),
        nn.Chain(**second.parts(), split=both),  # pyright: ignore[reportArgumentType]
        nn.Chain(**third.parts(), split=both),  # pyright: ignore[reportArgumentType]
        chain(c, (k(192),), pool=_mean()),
    )
