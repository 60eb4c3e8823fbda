"""The contract of a metric, and sums that stay exact.

    sums = metric.measure(outputs, targets, weight)     # in the compiled step: a few small arrays
    sums = metric.merge(sums, more)                     # of two batches, devices or hosts, anywhere
    value = metric.result(sums)                         # once, on the host

Nothing is averaged before the end, so the value does not depend on the batch size, a ragged last batch or its padding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dlkit.batches import spread, widened

__all__ = ["Average", "Mean", "Metric", "Total"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Total:
    """A sum kept in two floats, `high + low`, so that adding many batches loses nothing.

    Two float32 numbers hold about 48 bits: counts are exact up to 10^14, where one float32 stops counting at 2^24, and
    sums over a million batches keep all the digits that one batch has. `+` puts the rounding error of the sum of the
    `high` parts into `low` (Knuth's two-sum), and then moves what `high` can hold back into it. Adding the leaves one
    by one (`jax.tree.map(operator.add, a, b)`, `psum`) is valid too, at float32's own precision.

    >>> tiny = Total(jnp.float32(1), jnp.float32(0))
    >>> float((Total(jnp.float32(2**24), jnp.float32(0)) + tiny).value()) - 2**24
    1.0
    """

    high: Any
    low: Any

    def __add__(self, other: "Total") -> "Total":
        high = self.high + other.high
        back = high - self.high
        error = (self.high - (high - back)) + (other.high - back)
        xp = array_module(self, other)
        # inf - inf is NaN, and would hide that the sum is infinite.
        low = xp.where(xp.isfinite(high), self.low + other.low + error, 0)
        carried = high + low
        return Total(carried, xp.where(xp.isfinite(high), low - (carried - high), 0))

    def value(self) -> np.ndarray:
        """The sum in float64, on the host."""
        return np.asarray(np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64))


def _sum_rows(x: Array) -> Array:
    """The sum over axis 0 in two rounds of about sqrt(N) terms: rounding grows with N^(1/4) where a plain sum may have
    N^(1/2)."""
    rows = x.shape[0]
    if rows <= 32:
        return jnp.sum(x, axis=0)
    width = int(np.ceil(np.sqrt(rows)))
    padded = jnp.pad(x, ((0, -rows % width), *((0, 0),) * (x.ndim - 1)))
    return jnp.sum(jnp.sum(padded.reshape(-1, width, *x.shape[1:]), axis=1), axis=0)


def array_module(*trees: Any) -> Any:
    """numpy where every leaf is on the host already, else jax.numpy."""
    return np if all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in jax.tree.leaves(trees)) else jnp


def total(values: Array, weight: Array) -> Total:
    """The weighted sum over the leading axes that `weight` has. A value with weight 0 is not read: it may be NaN."""
    values = widened(values)
    columns = values.shape[weight.ndim :]
    rows = weight.size
    weight = weight.astype(values.dtype).reshape(rows, *(1,) * len(columns))
    high = _sum_rows(jnp.where(weight != 0, values.reshape(rows, *columns), 0) * weight)
    return Total(high, jnp.zeros_like(high))


class Metric(ABC):
    """What is measured on a batch, how two measurements merge, and the value that they give.

    Subclass as a frozen dataclass, so that a metric is a value: it hashes, compares and prints.

    `fixed_size` says that the sums keep their shapes under `merge`, so that they fit the carry of a `lax.scan`. Where
    it is False (`AUC`), a measurement holds one entry an example and `merge` concatenates.
    """

    fixed_size: ClassVar[bool] = True

    @abstractmethod
    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> Any:
        """The sums of one batch, a small pytree: pure, to be called inside `jax.jit`.

        `weight` has the shape `[B]` or `[B, T]`, None stands for ones. Rows of weight 0 change nothing, whatever they
        hold.
        """

    def merge(self, a: Any, b: Any) -> Any:
        """The sums of both: by default, addition. It is associative up to rounding, and works on device and on host."""
        return jax.tree.map(lambda x, y: x + y, a, b, is_leaf=lambda x: isinstance(x, Total))

    @abstractmethod
    def result(self, sums: Any) -> Any:
        """The value: a float, an array or a dict of these, computed in float64 on the host."""


def average(sum_: Total, weight: Total) -> float:
    """sum / weight; NaN if nothing was counted."""
    count = float(weight.value())
    return float(sum_.value()) / count if count else float("nan")


class Average(Metric):
    """A metric that is the weighted mean of one value an example: subclasses say which, in `values`."""

    @abstractmethod
    def values(self, outputs: Array, targets: Array) -> Array:
        """What is averaged: `[B]`, `[B, T]` or finer."""

    def measure(self, outputs: ArrayLike, targets: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Total]:
        values = self.values(jnp.asarray(outputs), jnp.asarray(targets))
        weight = spread(weight, values.shape, widened(values).dtype)
        return {"sum": total(values, weight), "weight": total(jnp.ones_like(weight), weight)}

    def result(self, sums: dict[str, Total]) -> float:
        return average(sums["sum"], sums["weight"])


@dataclass(frozen=True)
class Mean(Average):
    r"""The weighted mean of any per-example function: :math:`\sum_i w_i f(o_i, t_i) / \sum_i w_i`.

    With a loss it is the loss over the whole set, whatever the batches.

    >>> def absolute(outputs, targets):
    ...     return jnp.abs(outputs - targets)
    >>> metric = Mean(absolute)
    >>> sums = metric.measure(jnp.array([1.0, 5.0, jnp.nan]), jnp.zeros(3), jnp.array([1.0, 1.0, 0.0]))
    >>> metric.result(sums)
    3.0

    Args:
      fn: `fn(outputs, targets) -> [B]`, `[B, T]` or finer: a function with a name, or a frozen dataclass with
        `__call__` (a lambda would compare unequal to its twin).
    """

    fn: Callable[[Array, Array], Array]

    def values(self, outputs: Array, targets: Array) -> Array:
        return self.fn(outputs, targets)

    def __repr__(self) -> str:
        name = getattr(self.fn, "__qualname__", None)
        return f"Mean({self.fn.__module__}.{name})" if name else f"Mean({self.fn!r})"
