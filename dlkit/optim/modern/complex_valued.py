"""Complex parameters as pairs of real ones."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.narrowed import narrowed

__all__ = [
    "SplitRealAndImaginary",
    "SplitRealAndImaginaryArrays",
    "SplitRealAndImaginaryState",
    "split_real_and_imaginary",
]


class SplitRealAndImaginaryArrays(NamedTuple):
    """A complex array's two halves."""

    real: Array
    imaginary: Array


class SplitRealAndImaginaryState(NamedTuple):
    inner_state: Any


def _split(of: Any) -> Any:
    def halves(x: Any) -> Any:
        return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x

    return jax.tree.map(halves, of)


def _merged(of: Any) -> Any:
    def is_pair(node: Any) -> bool:
        return isinstance(node, SplitRealAndImaginaryArrays)

    return jax.tree.map(lambda x: jax.lax.complex(x.real, x.imaginary) if is_pair(x) else x, of, is_leaf=is_pair)


@dataclass(frozen=True)
class SplitRealAndImaginary(Transform[SplitRealAndImaginaryState]):
    """Runs `inner` on real and imaginary parts as parameters of their own; real leaves pass through as they are.

    So each part has a moment of its own, where Adam by itself averages |g|^2. What `inner` returns in bfloat16 or
    float16 has no complex dtype: the parameters are complex64 or complex128.

    Args:
      inner: a transform of real parameters.

    Differences. optax: equal. torch's optimizers do this with all complex parameters.

    >>> from dlkit import optim
    >>> tx = split_real_and_imaginary(optim.clip(1.0))
    >>> params = {"z": jnp.array([0.5 + 3.0j])}
    >>> tx.update(params, tx.init(params), params)[0]
    {'z': Array([0.5+1.j], dtype=complex64)}

    Raises:
      TypeError: `inner` is no transform.
    """

    inner: Any

    def __post_init__(self) -> None:
        check_link("split_real_and_imaginary", self.inner)

    def init(self, params: Any) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(self.inner.init(_split(params)))

    def update(
        self, grads: Any, state: SplitRealAndImaginaryState, params: Any = None, **extra: Any
    ) -> tuple[Any, SplitRealAndImaginaryState]:
        halves = None if params is None else _split(params)
        # JAX's gradients are conjugates of the slopes along the two parts.
        extra = narrowed(extra, _merged, lambda of: _split(jax.tree.map(jnp.conj, of)), grads)
        updates, inner_state = call_update(self.inner, _split(grads), state.inner_state, halves, extra)
        return _merged(updates), SplitRealAndImaginaryState(inner_state)


split_real_and_imaginary = SplitRealAndImaginary
