"""Additive attention: how well a key matches a query is computed by a small network instead of a product."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.attention_dense import weights

__all__ = ["additive_weights"]


def additive_weights(
    q: Float[Array, "*batch T D"],
    k: Float[Array, "*batch S D"],
    w: Float[Array, "D"],
    *,
    mask: Bool[Array, "..."] | None = None,
) -> Float[Array, "*batch T S"]:
    """`p_i = softmax_j(w . tanh(q_i + k_j))` over the keys j that query i may see; q and k are projected beforehand.

    `mask` `[T, S]` or `[*batch, T, S]`, any axis 1, True = attend; a query that sees nothing has weights of 0. It holds
    all T x S x D sums at once. In float32 or wider.

    >>> additive_weights(jnp.zeros((1, 3)), jnp.zeros((2, 3)), jnp.ones(3))
    Array([[0.5, 0.5]], dtype=float32)

    Raises:
      ValueError: shapes that do not belong together, or a mask that does not broadcast.
      TypeError: a mask that is not boolean.

    Reference: Bahdanau, Cho and Bengio, Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473.
    """
    if q.ndim != k.ndim or q.ndim < 2 or q.shape[:-2] != k.shape[:-2] or not q.shape[-1:] == k.shape[-1:] == w.shape:
        raise ValueError(
            f"additive_weights: q is {list(q.shape)}, k is {list(k.shape)}, w is {list(w.shape)}; want [B, T, D], "
            f"[B, S, D] and [D]"
        )
    wide = wide_dtype(q.dtype)
    hidden = jnp.tanh(q[..., :, None, :].astype(wide) + k[..., None, :, :].astype(wide))
    s = hidden.reshape(-1, w.shape[0]) @ w.astype(wide)
    s = s.reshape(hidden.shape[:-1])
    if mask is not None:
        s = jnp.where(spread_mask("additive_weights", mask, s.shape), s, jnp.asarray(-jnp.inf, wide))
    return weights(s)


def spread_mask(who: str, mask: Array, want: tuple[int, ...]) -> Array:
    """The mask with as many axes as the scores."""
    if mask.dtype != jnp.bool_:
        raise TypeError(f"{who}: mask is {mask.dtype}{list(mask.shape)}; want booleans, True = attend")
    shape = (1,) * (len(want) - 2) + mask.shape if mask.ndim == 2 else mask.shape
    if len(shape) != len(want) or any(n not in (1, w) for n, w in zip(shape, want, strict=True)):
        raise ValueError(f"{who}: mask is {list(mask.shape)}; want {list(want[-2:])} or {list(want)}, any of them 1")
    return mask.reshape(shape)
