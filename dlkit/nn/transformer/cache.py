"""What attention remembers of a sequence that is given in pieces."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

__all__ = ["KVCache", "KeyValues"]


class KVCache(NamedTuple):
    """Keys and values of the `length` tokens seen so far, in arrays with room for more.

    Shapes do not change as it fills, so one compiled step serves every token. Made by `layer.init_cache(batch, length,
    dtype)`, given as `state`. Donate it (`jax.jit(..., donate_argnums=...)`), else every step copies it.
    """

    k: Float[Array, "B L H_kv D"]
    v: Float[Array, "B L H_kv D"]
    length: Int[Array, ""]

    def append(self, k: Array, v: Array) -> "KVCache":
        """With the T tokens `k` and `v` `[B, T, H_kv, D]` at the end.

        Raises:
          ValueError: another batch, number of heads or head size, or more tokens than there is room for, as far as it
            is known: inside of a compiled function `length` is not (see `overflowed`).
          TypeError: another dtype.
        """
        room, t = self.k.shape[1], k.shape[1]
        if (k.shape[0], *k.shape[2:]) != (self.k.shape[0], *self.k.shape[2:]):
            raise ValueError(
                f"KVCache for keys {list(self.k.shape)} got keys {list(k.shape)}: expected [{self.k.shape[0]}, T, "
                f"{self.k.shape[2]}, {self.k.shape[3]}]; make it with init_cache(batch={k.shape[0]}, ...)"
            )
        if k.dtype != self.k.dtype:
            raise TypeError(f"KVCache of dtype {self.k.dtype} got keys of dtype {k.dtype}: init_cache takes a dtype")
        try:
            filled = int(self.length)
        except jax.errors.ConcretizationTypeError:  # inside of a compiled function
            filled = 0
        if filled + t > room:
            raise ValueError(
                f"KVCache has room for {room} tokens and holds {filled}, got {t} more; make it longer, "
                f"init_cache(batch, length)"
            )
        start = (jnp.zeros((), jnp.int32), self.length, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
        return KVCache(
            lax.dynamic_update_slice(self.k, k, start),
            lax.dynamic_update_slice(self.v, v, start),
            self.length + jnp.asarray(t, jnp.int32),
        )

    @property
    def overflowed(self) -> Any:
        """Whether more tokens were appended than there is room for; the last ones then lie in the wrong place."""
        return self.length > self.k.shape[1]


class KeyValues(NamedTuple):
    """The keys and values of a memory, made once by `MultiHeadAttention.remember` and given as `memory`."""

    k: Float[Array, "*batch S H_kv D"]
    v: Float[Array, "*batch S H_kv D"]
