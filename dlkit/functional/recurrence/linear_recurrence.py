"""Linear recurrences, parallel in time."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

__all__ = ["linear_recurrence"]


def linear_recurrence(a: Array, b: Array, h0: Array | None = None, *, reverse: bool = False) -> Array:
    """`h_t = a_t h_{t-1} + b_t`, elementwise, for all times: a, b and h `[T, ...]`, real or complex, h0 `[...]` or 0.

    Two steps are one step of the same form, `(a, b)` then `(a', b')` being `(a' a, a' b + b')`, so all h take
    `2 log2 T` rounds of elementwise work instead of T (`lax.associative_scan`). With `reverse`,
    `h_t = a_t h_{t+1} + b_t`. The derivative is another linear recurrence, with the same a and
    `da_t h_{t-1} + db_t` for b, run backward in reverse mode; what it needs is kept once, not once for every round.

    >>> linear_recurrence(jnp.full((4,), 0.5), jnp.ones(4))
    Array([1.   , 1.5  , 1.75 , 1.875], dtype=float32)

    Raises:
      ValueError: a and b, or h0 and their rows, differ in shape.
      TypeError: they differ in dtype.

    References: Blelloch, Prefix sums and their applications, 1990; Martin and Cundy, Parallelizing linear recurrent
    neural nets over sequence length, 2018, arXiv:1709.04057.
    """
    if a.shape != b.shape or a.ndim == 0:
        raise ValueError(f"linear_recurrence: a is {list(a.shape)}, b is {list(b.shape)}; want one shape [T, ...]")
    if h0 is not None and h0.shape != b.shape[1:]:
        raise ValueError(f"linear_recurrence: h0 is {list(h0.shape)}; want {list(b.shape[1:])}, one row of b")
    if a.dtype != b.dtype or (h0 is not None and h0.dtype != b.dtype):
        kinds = [str(array.dtype) for array in (a, b, h0) if array is not None]
        raise TypeError(f"linear_recurrence: a, b and h0 are {', '.join(kinds)}; want one dtype")
    return _recurrence(a, b, jnp.zeros_like(b[:1]) if h0 is None else h0[None], reverse)


def _parallel(a: Array, b: Array, h0: Array, reverse: bool) -> Array:
    def join(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
        return then[0] * first[0], then[0] * first[1] + then[1]

    factors, sums = lax.associative_scan(join, (a, b), reverse=reverse)
    return sums + factors * h0


def _before(h: Array, h0: Array, reverse: bool) -> Array:
    return jnp.concatenate([h[1:], h0] if reverse else [h0, h[:-1]])[: h.shape[0]]


_recurrence = jax.custom_jvp(_parallel, nondiff_argnums=(3,))


@_recurrence.defjvp
def _tangent(reverse: bool, primals: Any, tangents: Any) -> tuple[Array, Array]:
    a, b, h0 = primals
    da, db, dh0 = tangents
    h = _recurrence(a, b, h0, reverse)
    return h, _parallel(a, da * _before(h, h0, reverse) + db, dh0, reverse)
