"""Which dtype to compute in, where that of the input is too narrow."""

import jax.numpy as jnp

__all__ = ["wide_dtype"]


def wide_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype for sums over values of `dtype`: at least float32.

    >>> wide_dtype(jnp.dtype("bfloat16")), wide_dtype(jnp.dtype("float64"))
    (dtype('float32'), dtype('float64'))
    """
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)
