"""Schedules made of others, or of a function: products, and running products of factors.

>>> from dlkit.optim import exponential_decay, linear_schedule
>>> warm = linear_schedule(0.5, 1.0, transition_steps=2)
>>> [float(product_schedule(warm, exponential_decay(1.0, 1, 0.5))(t)) for t in range(4)]
[0.5, 0.375, 0.25, 0.125]
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, as_float, settle
from dlkit.optim.schedules.curves import Schedule, as_value, like

__all__ = ["MultiplicativeSchedule", "ProductSchedule", "multiplicative_schedule", "product_schedule"]


@dataclass(frozen=True)
class ProductSchedule(Schedule):
    """What `product_schedule` returns: the product of its factors."""

    factors: tuple[ScalarOrSchedule, ...]

    def __post_init__(self) -> None:
        factors = [f if callable(f) else as_float("product_schedule", "a factor", f) for f in self.factors]
        object.__setattr__(self, "factors", tuple(factors))

    def __call__(self, count: Any) -> Float[Array, "..."]:
        result = like(count, 1.0)
        for factor in self.factors:
            result = result * as_value(factor(count) if callable(factor) else factor)
        return result


@dataclass(frozen=True)
class MultiplicativeSchedule(Schedule):
    """init_value factor(1) factor(2) ... factor(t), up to factor(steps), then constant: torch's `MultiplicativeLR`.

    The products are taken once, in float64, and stay in the compiled program as a table of `steps` numbers. Where the
    product has a closed form, a schedule that states it is the better one: factor(t) = g is `exponential_decay`.

    Args:
      init_value: the value at t = 0.
      factor: from the count (an int32 scalar, 1 to steps) to a factor; it has to be one that JAX can trace.
      steps: how many factors there are.

    >>> schedule = multiplicative_schedule(1.0, lambda t: jnp.where(t % 2 == 0, 0.5, 1.0), steps=4)
    >>> [float(schedule(t)) for t in range(7)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]

    Raises:
      ValueError: a negative number of steps. TypeError: `factor` is not callable.
    """

    init_value: Scalar
    factor: Callable[[Any], Any]
    steps: int

    def __post_init__(self) -> None:
        settle("multiplicative_schedule", self, numbers=("init_value",))
        if not callable(self.factor):
            raise TypeError(f"multiplicative_schedule: factor is {self.factor!r}, wanted a function of the count")
        object.__setattr__(self, "steps", as_count("multiplicative_schedule", "steps", self.steps))

    def __call__(self, count: Any) -> Float[Array, "..."]:
        products = as_value(_products(self.factor, self.steps))
        return self.init_value * products[jnp.clip(jnp.asarray(count), 0, self.steps)]


@functools.lru_cache(maxsize=32)
def _products(factor: Callable[[Any], Any], steps: int) -> np.ndarray:
    if steps == 0:
        return np.ones(1)
    with jax.ensure_compile_time_eval():
        each = jax.vmap(factor)(jnp.arange(1, steps + 1, dtype=jnp.int32))
        return np.cumprod(np.concatenate([[1.0], np.broadcast_to(np.asarray(each, np.float64), steps)]))


multiplicative_schedule = MultiplicativeSchedule


def product_schedule(*factors: ScalarOrSchedule) -> ProductSchedule:
    """The product of schedules, functions of the count, and numbers, at every update.

    It is torch's `LambdaLR` (`product_schedule(rate, function)`) and its `ChainedScheduler`, whose members each
    contribute a factor (`product_schedule(rate, a, b)` with a and b starting from 1).

    >>> [float(product_schedule(2.0, lambda t: 1 / (1 + t))(t)) for t in (0, 1, 3)]
    [2.0, 1.0, 0.5]

    Raises:
      TypeError: a factor is no number and no function.
    """
    return ProductSchedule(factors)
