"""Dropout: a random mask on activations, scaled so that its expectation is the identity."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key, UInt32

from dlkit.functional.precision import wide_dtype

__all__ = ["dropout", "keep_mask"]

PRNGKey = Key[Array, ""] | UInt32[Array, "2"]


def _resolution(rate: float) -> tuple[int, int]:
    """Random bits for each element, and below which integer of that many bits the element is kept."""
    # The generator makes 32 bits at a time and is most of dropout's cost, so two elements share them, unless 16 bits
    # would round the probability of keeping by a part in 10^4, or that of dropping by a part in 10^3.
    bits = 16 if 0.01 <= rate <= 0.9 else 32
    return bits, min(round((1 - rate) * 2**bits), 2**bits - 1)


def keep_mask(key: PRNGKey, shape: Sequence[int], rate: float) -> Bool[Array, "..."]:
    """Independent booleans, each False with probability `rate`.

    The same key and shape give the same mask under any jit, vmap over keys, or sharding. `rate` is
    rounded to a multiple of 2^-16, or of 2^-32 below 0.01 and above 0.9.

    >>> keep_mask(jax.random.key(0), (2, 4), 0.5).shape
    (2, 4)
    """
    bits, below = _resolution(rate)
    shape = tuple(shape)
    if bits == 32 or not shape:
        return jax.random.bits(key, shape, jnp.uint32) < jnp.uint32(below << (32 - bits))
    *lead, last = shape
    words = jax.random.bits(key, (*lead, (last + 1) // 2), jnp.uint32)
    halves = lax.bitcast_convert_type(words, jnp.uint16).reshape(*lead, (last + 1) // 2 * 2)
    return halves[..., :last] < jnp.uint16(below)


def check_rate(who: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{who}: rate is {rate}; it is the probability of dropping, so want 0 <= rate <= 1")


def check_broadcast(who: str, x: Array, axes: Sequence[int]) -> None:
    if not all(-x.ndim <= axis < x.ndim for axis in axes):
        raise ValueError(f"{who}: broadcast_axes is {tuple(axes)}, but x is {list(x.shape)}")


def dropout(
    key: PRNGKey | None,
    x: Float[Array, "*shape"],
    rate: float,
    *,
    broadcast_axes: Sequence[int] = (),
) -> Float[Array, "*shape"]:
    """Inverted dropout: `y = x m / (1 - rate)`, `m` independent Bernoulli(1 - rate), so that `E[y] = x`.

    `rate` is the probability of dropping, as torch's `p` and flax's `rate`. Without a key (`key=None`, evaluation)
    and at rate 0, `y = x`. At rate 1, `y = 0`, as in torch. Along `broadcast_axes` one draw is shared: for x `[B, H,
    W, C]`, `(1, 2)` drops whole feature maps (torch's `Dropout2d`), and `(1, 2, 3)` drops whole examples (stochastic
    depth). The derivative is `m / (1 - rate)`, with the mask of the forward pass.

    >>> x = jnp.ones((2, 4))
    >>> bool((dropout(None, x, 0.5) == x).all())
    True
    >>> sorted(set(dropout(jax.random.key(0), x, 0.5).ravel().tolist()))
    [0.0, 2.0]

    Raises:
      ValueError: `rate` is not in [0, 1], or `broadcast_axes` names an axis that x has not.

    Reference: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 2014.
    """
    check_rate("dropout", rate)
    check_broadcast("dropout", x, broadcast_axes)
    if key is None or rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    shared = {axis % x.ndim for axis in broadcast_axes}
    mask = keep_mask(key, [1 if i in shared else n for i, n in enumerate(x.shape)], rate)
    # In float32: bfloat16 would round the factor itself.
    kept = x.astype(wide_dtype(x.dtype)) / (1 - rate)
    return jnp.where(mask, kept, 0.0).astype(x.dtype)
