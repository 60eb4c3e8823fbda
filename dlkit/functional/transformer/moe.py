"""Mixture of experts: each token is computed by the few of many networks that a router chooses for it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from dlkit.functional.linear_map import linear_map
from dlkit.functional.precision import wide_dtype

__all__ = ["RouterStats", "moe", "route"]

Dot: TypeAlias = Callable[[Array, Array], Array]
GroupedKind: TypeAlias = Literal["blocks", "ragged"]

_ROWS = 64  # of a block: enough for a fast matrix product, few enough that padding costs little


class RouterStats(NamedTuple):
    """How a router spread the tokens of one call, without those that were masked."""

    balance: Float[Array, "*depth"]
    """`E sum_e f_e P_e`, f the share of the choices, P the mean probability: 1 when balanced, at most E."""

    z: Float[Array, "*depth"]
    """The mean of `logsumexp(logits)^2`."""

    load: Float[Array, "*depth E"]
    """f: the share of the choices that fell on each expert; they sum to 1."""

    dropped: Float[Array, "*depth"]
    """The share of the choices that found no room."""


def route(
    logits: Float[Array, "N E"], k: int, *, renormalize: bool | None = None
) -> tuple[Float[Array, "N {k}"], Int[Array, "N {k}"]]:
    """The `k` most probable experts of each token and their weights: `(weights, experts)`, the most probable first.

    The weights are the probabilities `softmax(logits)`, with `renormalize` divided by their sum over the k, as in
    Mixtral. By default that is so for k > 1; a single weight would be 1, and the router would learn nothing (Switch).
    Ties go to the lower number.

    >>> weights, experts = route(jnp.log(jnp.array([[0.2, 0.6, 0.2]])), 2)
    >>> weights.round(2), experts
    (Array([[0.75, 0.25]], dtype=float32), Array([[1, 0]], dtype=int32))

    Raises:
      ValueError: k is not in 1 .. E.
    """
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"route: k is {k}; want 1 <= k <= {logits.shape[-1]}, the number of experts")
    weights, experts = lax.top_k(jax.nn.softmax(logits, axis=-1), k)
    if renormalize or (renormalize is None and k > 1):
        weights = weights / weights.sum(-1, keepdims=True)
    return weights, experts


def moe(
    x: Float[Array, "N D"],
    logits: Float[Array, "N E"],
    expert: Callable[[Array, Dot], Array],
    k: int,
    *,
    capacity: int | None = None,
    renormalize: bool | None = None,
    mask: Bool[Array, "N"] | None = None,
    implementation: GroupedKind | None = None,
) -> tuple[Float[Array, "N D_out"], RouterStats]:
    """`y_n = sum over the k best experts e of p_ne expert_e(x_n)`, and how the router spread the tokens.

    Tokens are sorted by expert, so that each is computed k times, not E times. Without `capacity` (dropless), none is
    left out. With it an expert takes at most `capacity` tokens: the first choices of all tokens before the second ones,
    in the tokens' order; a choice that finds no room adds nothing to y, and the weights of the others stay. Drawn
    memory and time then do not depend on the routing.

    Args:
      x: the tokens. logits: of the router; its softmax is p. expert: the network, `expert(x, dot)`: `dot(x, w)`
      multiplies each token by its own expert's matrix in `w` `[E, d_in,
        d_out]`; all else in it is elementwise.
      k: experts for each token.
      capacity: tokens for each expert, or None.
      renormalize: see `route`.
      mask: True for real tokens; the others get y = 0, take no room, and may hold NaN.
      implementation: of the dropless products: "ragged" is `jax.lax.ragged_dot`, which a CPU computes as one full
        product for every expert; "blocks" pads each expert's tokens to blocks of 64 rows, which is 4 times as fast
        there. None takes the one that is faster.

    >>> w = jnp.stack([jnp.eye(2), -jnp.eye(2)])
    >>> y, stats = moe(jnp.ones((2, 2)), jnp.array([[9.0, 0.0], [0.0, 9.0]]), lambda x, dot: dot(x, w), 1)
    >>> y.round(2).tolist(), stats.load.tolist()
    ([[1.0, 1.0], [-1.0, -1.0]], [0.5, 0.5])

    Raises:
      ValueError: k is not in 1 .. E, a capacity below 1, or shapes that do not fit.

    References: Shazeer et al., Outrageously large neural networks, 2017, arXiv:1701.06538; Fedus et al., Switch
    transformers, 2021, arXiv:2101.03961, equations 4-6 (`balance`); Zoph et al., ST-MoE, 2022, arXiv:2202.08906,
    equation 5 (`z`); Gale et al., MegaBlocks, 2022, arXiv:2211.15841 (dropless).
    """
    n, count = logits.shape
    if x.ndim != 2 or x.shape[0] != n or (mask is not None and mask.shape != (n,)):
        masked = "" if mask is None else f", mask {list(mask.shape)}"
        raise ValueError(
            f"moe: x is {list(x.shape)}, logits {list(logits.shape)}{masked}; want x [N, D], logits [N, E], mask [N]"
        )
    if capacity is not None and capacity < 1:
        raise ValueError(f"moe: capacity is {capacity}; want at least 1 token for each expert, or None")
    if mask is not None:
        x, logits = (jnp.where(mask[:, None], a, jnp.zeros((), a.dtype)) for a in (x, logits))
    weights, experts = route(logits, k, renormalize=renormalize)
    # All first choices stand before the second ones, so that a stable sort by expert gives them the room.
    flat = experts.T.reshape(-1).astype(jnp.int32)
    if mask is not None:
        flat = jnp.where(jnp.tile(mask, k), flat, count)
    sizes = jnp.sum(flat[:, None] == jnp.arange(count, dtype=jnp.int32)[None], axis=0, dtype=jnp.int32)
    slot, rows, shape, dot = _layout(flat, sizes, capacity, implementation)
    held = jnp.zeros((rows, x.shape[1]), x.dtype).at[slot].set(jnp.tile(x, (k, 1)), mode="drop")
    out = expert(held.reshape(*shape, x.shape[1]), dot)
    out = out.reshape(rows, out.shape[-1]).at[slot].get(mode="fill", fill_value=0)
    wide = wide_dtype(x.dtype)
    parts = out.astype(wide).reshape(k, n, -1) * weights.T[..., None].astype(wide)
    if mask is not None:
        parts = jnp.where(mask[None, :, None], parts, jnp.zeros((), wide))
    return parts.sum(0).astype(x.dtype), _stats(logits, sizes, slot < rows, mask)


def _stats(logits: Array, sizes: Array, kept: Array, mask: Array | None) -> RouterStats:
    wide = wide_dtype(logits.dtype)
    logits = logits.astype(wide)
    real = jnp.ones(logits.shape[:1], wide) if mask is None else mask.astype(wide)
    tokens, choices = jnp.maximum(real.sum(), 1), jnp.maximum(sizes.sum(), 1).astype(wide)
    p = jnp.sum(jax.nn.softmax(logits, axis=-1) * real[:, None], axis=0) / tokens
    z = jnp.sum(jax.nn.logsumexp(logits, axis=-1) ** 2 * real) / tokens
    load = sizes.astype(wide) / choices
    found = jnp.sum(kept.reshape(-1, logits.shape[0]) & (real > 0)[None], dtype=jnp.int32).astype(wide)
    # Where every token is masked, none was dropped.
    dropped = jnp.where(sizes.sum() > 0, 1 - found / choices, jnp.zeros((), wide))
    return RouterStats(logits.shape[1] * jnp.sum(load * p), z, load, dropped)


def _layout(
    flat: Array, sizes: Array, capacity: int | None, implementation: GroupedKind | None
) -> tuple[Array, int, tuple[int, ...], Dot]:
    """Where each choice's token stands: `(slot [M], rows, shape of the rows, dot)`; a slot of `rows` is nowhere."""
    m, count = flat.shape[0], sizes.shape[0]
    if implementation is None:
        implementation = "blocks" if jax.default_backend() == "cpu" else "ragged"
    order = jnp.argsort(flat, stable=True)
    if capacity is None and implementation == "ragged":
        slot = jnp.zeros(m, jnp.int32).at[order].set(jnp.arange(m, dtype=jnp.int32))
        return slot, m, (m,), lambda a, w: lax.ragged_dot(a, w, sizes)
    if capacity is None:
        # The number of blocks in the worst case: every expert's last one may be nearly empty.
        each = min(_ROWS, max(1, -(-m // count)))
        total = m // each + min(count, m)
        blocks = -(-sizes // each)
        first = (jnp.cumsum(blocks) - blocks) * each
        ends = jnp.cumsum(blocks)
        owner = jnp.sum(ends[None] <= jnp.arange(total, dtype=ends.dtype)[:, None], axis=1, dtype=jnp.int32)
        owner = jnp.minimum(owner, count - 1)  # blocks that nobody owns are zeros
        dot: Dot = lambda a, w: _blocks_dot(a, w, owner)  # noqa: E731
    else:
        each, total = capacity, count
        first = jnp.arange(count, dtype=jnp.int32) * each
        dot = jnp.matmul
    rows = total * each
    expert = flat[order]
    inside = jnp.minimum(expert, count - 1)
    place = jnp.arange(m, dtype=jnp.int32) - (jnp.cumsum(sizes) - sizes)[inside]
    fits = expert < count
    if capacity is not None:
        fits &= place < capacity
    where = jnp.where(fits, (first[inside] + place).astype(jnp.int32), rows)
    return jnp.zeros(m, jnp.int32).at[order].set(where), rows, (total, each), dot


@jax.custom_jvp
def _blocks_dot(x: Array, w: Array, owner: Array) -> Array:
    """`y_b = x_b w[owner_b]`: x `[blocks, rows, d_in]`, w `[E, d_in, d_out]`."""
    return lax.map(lambda one: one[0] @ w[one[1]], (x, owner))


@_blocks_dot.defjvp
def _blocks_derivative(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (x, w, owner), (dx, dw, _) = primals, tangents
    return _blocks_dot(x, w, owner), linear_map(_blocks_tangent, _blocks_backward, (x, w, owner), (dx, dw))


def _blocks_tangent(held: tuple[Array, ...], given: tuple[Array, Array]) -> Array:
    (x, w, owner), (dx, dw) = held, given

    # Kept for derivatives are the operands, not a matrix for each block.
    @partial(jax.checkpoint, prevent_cse=False)
    def one(x: Array, dx: Array, expert: Array) -> Array:
        return dx @ w[expert] + x @ dw[expert]

    return lax.map(lambda xs: one(*xs), (x, dx, owner))


def _blocks_backward(held: tuple[Array, ...], dy: Array) -> tuple[Array, Array]:
    # Transposed by JAX, the loop would add a gradient of the size of all experts to another one in every step.
    x, w, owner = held
    dx = lax.map(lambda one: one[0] @ w[one[1]].T, (dy, owner))

    def add(dw: Array, one: Any) -> tuple[Array, None]:
        return dw.at[one[2]].add(one[0].T @ one[1]), None

    return dx, lax.scan(add, jnp.zeros_like(w), (x, dy, owner))[0]
