"""Hyperparameters: numbers become Python floats when a definition is made, schedules stay what they are."""

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dlkit.optim.traced import Traced, as_dtype

__all__ = ["Scalar", "ScalarOrSchedule", "safe_increment"]

# A number: Python's, numpy's or JAX's, stored as a float; under jit, grad and vmap it may be traced. To pyright it is a
# number like any other; the values that `settle` lets through are checked there.
if TYPE_CHECKING:
    Scalar: TypeAlias = float | int
else:
    Scalar: TypeAlias = Any

ScalarOrSchedule: TypeAlias = float | int | np.number | np.ndarray | jax.Array | Traced | Callable[[Any], Any]


def as_float(owner: str, name: str, value: Any) -> Any:
    """`value` as a Python float: definitions are values, so they hold no arrays.

    A number that is being traced (a learning rate under `vmap`, or from `inject_hyperparams`) stays traced: the
    definition then lives inside that trace, and it does not hash.

    Raises:
      TypeError: it is no number, or has axes.
    """
    if isinstance(value, Traced):
        return value
    if isinstance(value, bool | np.bool_ | str) or np.ndim(value) != 0:
        shown = f"an array of shape {np.shape(value)}" if np.ndim(value) else repr(value)
        raise TypeError(f"{owner}: {name} is {shown}, wanted one number")
    try:
        return float(value)
    except jax.errors.ConcretizationTypeError:
        return Traced(jnp.asarray(value))
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} is {value!r}, wanted a number") from None


def as_count(owner: str, name: str, value: Any, least: int = 0) -> int:
    """`value` as a Python int that fits an int32 step count."""
    try:
        number = operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{owner}: {name} is {value!r}, wanted a whole number of steps") from None
    if not least <= number < 2**31:
        raise ValueError(f"{owner}: {name} is {number}, wanted {least} or more (and below 2**31)")
    return number


def settle(
    owner: str,
    record: Any,
    *,
    decays: tuple[str, ...] = (),
    nonnegative: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    schedules: tuple[str, ...] = (),
    dtypes: tuple[str, ...] = (),
) -> None:
    """Called from `__post_init__`: turns the named fields into floats (dtypes into their names) and checks ranges.

    `owner` is the name that a user calls; errors begin with it. `decays` lie in [0, 1), `nonnegative` is 0 or more,
    `numbers` anything; a `schedules` field may be callable. A learning rate that is a number is 0 or more.
    """
    for name in (*decays, *nonnegative, *numbers, *schedules):
        value = getattr(record, name)
        if name in schedules and callable(value):
            continue
        value = as_float(owner, name, value)
        object.__setattr__(record, name, value)
        if isinstance(value, Traced):
            continue  # its range cannot be seen
        if name in decays and not 0 <= value < 1:
            raise ValueError(f"{owner}: {name} is {value}, wanted 0 <= {name} < 1")
        if (name in nonnegative or name == "learning_rate") and not value >= 0:
            raise ValueError(f"{owner}: {name} is {value}, wanted 0 or more")
    for name in dtypes:
        value = getattr(record, name)
        if value is not None:
            object.__setattr__(record, name, jnp.dtype(value).name)


def schedule_value(owner: str, schedule: Any, count: Int[Array, ""]) -> Float[Array, ""]:
    """The schedule's value for update number `count` (the first is 0), in the default float dtype.

    That is float32, and float64 when JAX's 64-bit mode is on. A number is its own constant schedule.
    """
    value = as_dtype(schedule(count) if callable(schedule) else schedule, jnp.result_type(float))
    if value.shape != ():
        raise ValueError(f"{owner}: the schedule gave an array of shape {value.shape}, wanted a scalar")
    return value


def safe_increment(count: Int[Array, ""]) -> Int[Array, ""]:
    """`count + 1`, staying at the largest integer instead of turning negative after it.

    >>> safe_increment(jnp.int32(2**31 - 1))
    Array(2147483647, dtype=int32)
    """
    return count + (count < jnp.iinfo(count.dtype).max).astype(count.dtype)


def bias_correction(decay: Any, count: Int[Array, ""]) -> Float[Array, ""]:
    """1 - decay ** count: the total weight that `count` gradients have in an average that started at zero.

    >>> bias_correction(0.999, jnp.int32(1))
    Array(0.001, dtype=float32)
    """
    dtype = jnp.result_type(float)
    if isinstance(decay, Traced):
        return 1 - jnp.power(as_dtype(decay, dtype), count.astype(dtype))
    if decay == 0:
        return jnp.ones((), dtype)
    # 1 - 0.999 ** 1 in float32 is wrong in the fifth digit, expm1 is not.
    return -jnp.expm1(count.astype(dtype) * math.log(decay))
