"""Additive attention with its projections: Bahdanau's."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional.transformer.attention_additive import spread_mask
from dlkit.nn.checks import check_axis, check_float, check_rank, describe
from dlkit.nn.initializers import Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Pure
from dlkit.nn.linear import Linear

__all__ = ["AdditiveAttention"]


@dataclass(frozen=True)
class AdditiveAttention(Pure[Any]):
    """`y_i = sum_j p_ij m_j`, `p_i = softmax_j(w . tanh(x_i w_q + m_j w_k + b))`: a context for each query.

    x `[B, T, d_query]`, the keyword `memory` `[B, S, d_memory]`, y `[B, T, d_memory]`: values are the memory itself.
    `mask`: booleans, True = attend, `[T, S]` or `[B, T, S]`, any axis 1: `padding_mask(lengths, S)[:, 0]`. A query that
    sees nothing gives 0, and memory that no query sees may hold NaN. `layer.weights` gives p, to draw.

    Parameters: `q/w` `[d_query, d]`, `k/w` `[d_memory, d]`, `k/b` `[d]` unless `bias=False`, `score/w` `[d, 1]`; they
    start as those of `Linear`. Keras' AdditiveAttention has no projections, only `w`.

    >>> layer = AdditiveAttention(4, 6, 8)
    >>> params = layer.init(jax.random.key(0))
    >>> layer(params, jnp.ones((2, 3, 4)), memory=jnp.ones((2, 5, 6))).shape
    (2, 3, 6)
    >>> layer.weights(params, jnp.ones((2, 3, 4)), jnp.ones((2, 5, 6))).shape
    (2, 3, 5)

    Raises:
      ValueError: x, memory or mask of another shape, or no memory.
      TypeError: x or memory is not of the weights' dtype; a mask is not boolean.

    Reference: Bahdanau, Cho and Bengio, Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473.
    """

    d_query: int
    d_memory: int
    d: int
    bias: bool = True
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def parts(self) -> dict[str, Any]:
        return {
            "q": Linear(self.d_query, self.d, False, self.w_init),
            "k": Linear(self.d_memory, self.d, self.bias, self.w_init, self.b_init),
            "score": Linear(self.d, 1, False, self.w_init),
        }

    def weights(self, params: Any, x: Array, memory: Array, mask: Array | None = None) -> Float[Array, "*batch T S"]:
        """The weights p `[B, T, S]`, in float32 or wider; each row sums to 1, or is 0 where the query sees nothing."""
        check_axis(self, x, -1, self.d_query, f"d_query={self.d_query}")
        check_axis(self, memory, -1, self.d_memory, f"d_memory={self.d_memory}", name="memory")
        check_float(self, x, params["q"]["w"])
        check_float(self, memory, params["k"]["w"], name="memory")
        check_rank(self, x, f"[..., T, {self.d_query}]", 2, "places attend to the memory")
        if x.shape[:-2] != memory.shape[:-2] or memory.ndim < 2:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape} and memory of shape {memory.shape}: expected memory "
                f"{[*x.shape[:-2], 'S', self.d_memory]} because each sequence attends to its own, got "
                f"{list(memory.shape)}"
            )
        parts = self.parts()
        q, k = parts["q"](params["q"], x), parts["k"](params["k"], memory)
        return functional.additive_weights(q, k, params["score"]["w"][:, 0], mask=mask)

    def __call__(
        self, params: Any, x: Array, *, memory: Array | None = None, mask: Array | None = None
    ) -> Float[Array, "*batch T {self.d_memory}"]:
        if memory is None:
            raise ValueError(f"{describe(self)} got no memory: expected memory= [B, S, {self.d_memory}]")
        if mask is not None:
            mask = spread_mask("AdditiveAttention", mask, (*x.shape[:-1], memory.shape[-2]))
            # 0 times NaN is NaN: what no query sees is taken out of the sum.
            memory = jnp.where(mask.any(-2)[..., None], memory, jnp.zeros((), memory.dtype))
        p = self.weights(params, x, memory, mask)
        return jnp.einsum("...ts,...sd->...td", p.astype(memory.dtype), memory)
