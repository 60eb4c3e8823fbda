"""Mixture of experts in which the experts choose their tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from dlkit.functional.precision import wide_dtype
from dlkit.functional.transformer.moe import Dot, RouterStats

__all__ = ["expert_choice"]


def expert_choice(
    x: Float[Array, "N D"],
    logits: Float[Array, "N E"],
    expert: Callable[[Array, Dot], Array],
    capacity: int,
    *,
    mask: Bool[Array, "N"] | None = None,
) -> tuple[Float[Array, "N D_out"], RouterStats]:
    """Each expert takes the `capacity` tokens that want it most: `y_n = sum over the experts e that took n of p_ne
    expert_e(x_n)`, p the softmax of the logits over the experts.

    Every expert computes the same number of tokens, so no loss has to balance them. A token is computed by several
    experts, by one or by none, and then y is 0. Whether it is depends on all tokens given, later ones of its sequence
    too: not for models that predict the next token. Ties go to the token that stands first.

    Args as in `moe`, with tokens `[E, capacity, D]` in `expert(x, dot)`. `mask` is True for real tokens; the others get
    y = 0, are never taken, and may hold NaN. Where there are fewer real tokens than `capacity`, an expert takes all.

    The `RouterStats`: `balance` and `load` of what was taken (1, and 1 / E), `z`, and as `dropped` the share of the
    tokens that no expert took.

    >>> w = jnp.stack([jnp.eye(2), -jnp.eye(2)])
    >>> logits = jnp.array([[9.0, 0.0], [8.0, 0.0], [0.0, 9.0]])
    >>> y, stats = expert_choice(jnp.ones((3, 2)), logits, lambda x, dot: dot(x, w), 1)
    >>> y.round(2).tolist(), round(float(stats.dropped), 3)
    ([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]], 0.333)

    Raises:
      ValueError: a capacity that is not in 1 .. N, or shapes that do not fit.

    Reference: Zhou et al., Mixture-of-experts with expert choice routing, 2022, arXiv:2202.09368, equations 1 to 3.
    """
    n, count = logits.shape
    if x.ndim != 2 or x.shape[0] != n or (mask is not None and mask.shape != (n,)):
        masked = "" if mask is None else f", mask {list(mask.shape)}"
        raise ValueError(
            f"expert_choice: x is {list(x.shape)}, logits {list(logits.shape)}{masked}; want x [N, D], logits [N, E], "
            f"mask [N]"
        )
    if not 1 <= capacity <= n:
        raise ValueError(f"expert_choice: capacity is {capacity}; want 1 <= capacity <= {n}, the number of tokens")
    wide = wide_dtype(x.dtype)
    logits = logits.astype(wide_dtype(logits.dtype))
    real = jnp.ones(n, bool) if mask is None else mask
    if mask is not None:
        x, logits = (jnp.where(mask[:, None], a, jnp.zeros((), a.dtype)) for a in (x, logits))
    p = jax.nn.softmax(logits, axis=-1)
    # Among masked tokens, which stand last, the gradient is cut by `taken`.
    _, tokens = lax.top_k(lax.stop_gradient(jnp.where(real[:, None], p, -jnp.ones_like(p))).T, capacity)  # [E, C]
    taken = real[tokens]
    weights = jnp.where(taken, jnp.take_along_axis(p.T, tokens, axis=1), jnp.zeros((), p.dtype))
    out = expert(x[tokens], jnp.matmul)
    parts = (out.astype(wide) * weights[..., None].astype(wide)).reshape(count * capacity, -1)
    flat = tokens.reshape(-1)
    y = jnp.zeros((n, out.shape[-1]), wide).at[flat].add(parts).astype(x.dtype)

    total = jnp.maximum(jnp.sum(real, dtype=jnp.int32), 1).astype(p.dtype)
    sizes = jnp.sum(taken, axis=1, dtype=jnp.int32).astype(p.dtype)
    load = sizes / jnp.maximum(sizes.sum(), 1)
    mean = jnp.sum(jnp.where(real[:, None], p, jnp.zeros_like(p)), axis=0) / total
    z = jnp.sum(jnp.where(real, jax.nn.logsumexp(logits, axis=-1) ** 2, jnp.zeros((), p.dtype))) / total
    found = jnp.zeros(n, bool).at[flat].max(taken.reshape(-1))
    missed = jnp.sum(real & ~found, dtype=jnp.int32).astype(p.dtype) / total
    return y, RouterStats(count * jnp.sum(load * mean), z, load, missed)
