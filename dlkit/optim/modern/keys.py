"""Random keys in definitions, which hold no arrays: a key becomes numbers, and a key again in `init`."""

import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["FrozenKey", "make_key", "settle_key"]


@dataclass(frozen=True)
class FrozenKey:
    """A JAX key as a value: hashable, picklable, printable."""

    data: tuple[int, ...]
    impl: str | None  # None for a raw key, an array of uint32

    def thaw(self) -> jax.Array:
        data = jnp.asarray(np.array(self.data, np.uint32))
        return data if self.impl is None else jax.random.wrap_key_data(data, impl=self.impl)


def settle_key(owner: str, name: str, value: Any) -> int | FrozenKey:
    """A seed as an int, a key (typed or raw) as a `FrozenKey`.

    Raises:
      TypeError: it is neither, or is traced.
    """
    if isinstance(value, FrozenKey):
        return value
    typed = jnp.issubdtype(getattr(value, "dtype", np.int32), jax.dtypes.prng_key)
    raw = not typed and np.ndim(value) == 1 and getattr(value, "dtype", None) == np.uint32
    if (typed and value.ndim == 0) or raw:
        try:
            data = np.asarray(jax.random.key_data(value) if typed else value)
        except jax.errors.TracerArrayConversionError:
            raise TypeError(f"{owner}: {name} is traced; a definition holds its numbers, so make it outside") from None
        return FrozenKey(tuple(data.tolist()), str(jax.random.key_impl(value)) if typed else None)
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{owner}: {name} is {value!r}, wanted a seed or one JAX key") from None


def make_key(settled: int | FrozenKey, *, typed: bool = True) -> jax.Array:
    """The key that `settle_key` stored; of a seed a typed one, or a raw one."""
    if isinstance(settled, FrozenKey):
        return settled.thaw()
    return jax.random.key(settled) if typed else jax.random.PRNGKey(settled)
