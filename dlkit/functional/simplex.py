"""Maps from scores to probabilities, along one axis."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.dropout import PRNGKey

__all__ = ["gumbel_softmax", "log_softmax", "logsumexp", "softmax", "softmin", "sparsemax"]

_X = Float[Array, "*shape"]


def logsumexp(x: _X, axis: int = -1, keepdims: bool = False) -> Float[Array, "*out"]:
    """`log(sum(exp(x)))` along `axis`, the maximum taken out first. Derivative: `softmax(x)`.

    >>> logsumexp(jnp.array([1e4, -1e4]))
    Array(10000., dtype=float32)
    """
    return jax.nn.logsumexp(x, axis=axis, keepdims=keepdims)


def softmax(x: _X, axis: int = -1) -> _X:
    """`p_i = exp(x_i) / sum_j exp(x_j)`. Derivative: `dp_i / dx_j = p_i (δ_ij - p_j)`.

    >>> softmax(jnp.array([0.0, 1e4]))
    Array([0., 1.], dtype=float32)
    """
    return jax.nn.softmax(x, axis)


def log_softmax(x: _X, axis: int = -1) -> _X:
    """`x_i - logsumexp(x)`, finite where `log(softmax(x))` is not. Derivative: `δ_ij - p_j`.

    >>> log_softmax(jnp.array([0.0, 1e4]))
    Array([-10000.,      0.], dtype=float32)
    """
    return jax.nn.log_softmax(x, axis)


def softmin(x: _X, axis: int = -1) -> _X:
    """`softmax(-x)`. Derivative: `-p_i (δ_ij - p_j)`.

    >>> softmin(jnp.array([0.0, 1e4]))
    Array([1., 0.], dtype=float32)
    """
    return jax.nn.softmax(-x, axis)


def sparsemax(x: _X, axis: int = -1) -> _X:
    """The nearest point of the simplex: `p = max(x - τ, 0)` with the τ for which it sums to 1. Most of it is exactly
    0.

    Derivative: `dp_i / dx_j = δ_ij - 1 / |S|` for i and j in the support S, else 0.

    >>> sparsemax(jnp.array([2.0, 1.5, -1.0]))
    Array([0.75, 0.25, 0.  ], dtype=float32)

    Reference: Martins and Astudillo, From softmax to sparsemax, ICML 2016.
    """
    x = jnp.moveaxis(x, axis, -1)
    ordered = -jnp.sort(-lax.stop_gradient(x), axis=-1)
    # The support is the longest prefix with 1 + k x_(k) > sum of the k largest.
    # The maximum is taken out first, so that the sums stay exact.
    ordered = ordered - ordered[..., :1]
    k = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    size = (1 + k * ordered > jnp.cumsum(ordered, axis=-1)).sum(-1, keepdims=True)
    least = jnp.take_along_axis(ordered, size - 1, axis=-1)
    shifted = x - lax.stop_gradient(x.max(-1, keepdims=True))
    inside = shifted >= least
    tau = (jnp.where(inside, shifted, 0.0).sum(-1, keepdims=True) - 1) / size.astype(x.dtype)
    return jnp.moveaxis(jnp.where(inside, shifted - tau, 0.0), -1, axis)


def gumbel_softmax(key: PRNGKey, x: _X, tau: float = 1.0, *, hard: bool = False, axis: int = -1) -> _X:
    """`softmax((x + g) / tau)`, g independent standard Gumbel: a draw from softmax(x) as tau goes to 0, with a
    gradient.

    With `hard=True` the value is the one-hot of the maximum, and the gradient that of the soft sample (straight
    through).

    >>> gumbel_softmax(jax.random.key(0), jnp.zeros(3), hard=True).sum()
    Array(1., dtype=float32)

    Raises:
      ValueError: `tau` is not positive.

    Reference: Jang, Gu and Poole; Maddison, Mnih and Teh, both ICLR 2017.
    """
    if not tau > 0:
        raise ValueError(f"gumbel_softmax: tau is {tau}; want a positive temperature")
    soft = jax.nn.softmax((x + jax.random.gumbel(key, x.shape, x.dtype)) / tau, axis)
    if not hard:
        return soft
    winner = jax.nn.one_hot(jnp.argmax(soft, axis), x.shape[axis], dtype=x.dtype, axis=axis)
    return winner + (soft - lax.stop_gradient(soft))
