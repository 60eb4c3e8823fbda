"""BERT: a bidirectional encoder that guesses masked tokens."""

from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import Mode, initializers

__all__ = ["Bert", "Bias", "MaskedHead", "bert"]


class BiasParams(TypedDict):
    b: Float[Array, "d"]


@dataclass(frozen=True)
class Bias(nn.Pure[BiasParams]):
    """`y = x + b`, b `[d]` from 0: for an output layer whose matrix is somewhere else.

    >>> layer = Bias(3)
    >>> layer(layer.init(jax.random.key(0)), jnp.ones((2, 3))).shape
    (2, 3)
    """

    d: int

    def init(self, key: Any) -> BiasParams:
        return {"b": jnp.zeros(self.d, jnp.float32)}

    def __call__(self, params: BiasParams, x: Array) -> Float[Array, "*lead {self.d}"]:
        return x + params["b"].reshape((1,) * (x.ndim - 1) + (-1,))


@dataclass(frozen=True)
class MaskedHead(nn.Layer[Any, None]):
    """What BERT has before its output layer: a linear map, an activation, a norm; and the bias after it."""

    dense: nn.Linear
    activation: nn.Layer
    norm: nn.LayerNorm
    bias: Bias

    def apply(
        self, params: Any, state: None, x: Array, mode: Mode, *, table: Array | None = None
    ) -> tuple[Array, None]:
        h = self.dense(params["dense"], x)
        h, _ = self.activation.apply(params["activation"], None, h, mode.at("activation"))
        h = self.norm(params["norm"], h)
        if table is None:
            raise ValueError("MaskedHead got no table: expected table= [vocab, d], that of the tokens")
        return self.bias(params["bias"], nn.functional.linear(h, table.T)), None


@dataclass(frozen=True)
class Bert(nn.Layer[Any, None]):
    """Tokens, positions and segments, a norm, blocks: ids `[B, T]`, logits `[B, T, vocab]`, or features without `head`.

    Keywords of `apply`: `types` `[B, T]`, the segment of each token (0 by default), `mask` `[B, 1, 1, T]`, True for
    real tokens (`functional.padding_mask`).

    >>> model = bert(vocab=11, length=8, d=16, heads=2, depth=2)
    >>> model.apply(model.init(jax.random.key(0)), None, jnp.array([[1, 2, 3]]), nn.EVAL)[0].shape
    (1, 3, 11)
    """

    tokens: nn.Embedding
    types: nn.Embedding
    positions: nn.LearnedPositions
    norm: nn.LayerNorm
    blocks: nn.Stack
    head: MaskedHead | None = None
    rate: float = 0.0

    def apply(
        self,
        params: Any,
        state: None,
        x: Array,
        mode: Mode,
        *,
        types: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[Float[Array, "B T d_out"], None]:
        types = jnp.zeros_like(x) if types is None else types
        h = self.tokens(params["tokens"], x) + self.types(params["types"], types)
        h = self.norm(params["norm"], self.positions(params["positions"], h))
        h = nn.functional.dropout(mode.rng("dropout") if self.rate > 0 else None, h, self.rate)
        given = {} if mask is None else {"mask": mask}
        h, _ = self.blocks.apply(params["blocks"], None, h, mode.at("blocks"), **given)
        if self.head is None:
            return h, None
        return self.head.apply(params["head"], None, h, mode.at("head"), table=params["tokens"]["table"])


def bert(
    vocab: int,
    length: int,
    d: int,
    heads: int,
    depth: int,
    *,
    hidden: int | None = None,
    types: int = 2,
    rate: float = 0.0,
    eps: float = 1e-12,
    head: bool = True,
    activation: nn.Layer = nn.Gelu(),
) -> Bert:
    """BERT: post-norm blocks with GELU, learned positions, `types` segments, and the head of the masked-token task.

    The output layer is the table of the tokens with a bias of its own. `head=False` gives the features `[B, T, d]`.
    The pooler and the next-sentence head of the paper are left out. Weights start from N(0, 0.02^2). BERT base is
    `bert(30522, 512, 768, 12, 12)`, 109,514,298 parameters:

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(bert(30522, 512, 768, 12, 12).init, jax.random.key(0)))
    109514298

    Reference: Devlin et al., BERT, 2018, arXiv:1810.04805.
    """
    w = initializers.Normal(0.02)
    block = nn.TransformerBlock(
        nn.MultiHeadAttention(d, heads, rate=rate, w_init=w, out_init=w),
        nn.FeedForward(d, hidden or 4 * d, activation, 0.0, True, w, w),
        nn.LayerNorm(d, eps),
        nn.LayerNorm(d, eps),
        order="post",
        rate=rate,
    )
    return Bert(
        nn.Embedding(vocab, d, w),
        nn.Embedding(types, d, w),
        nn.LearnedPositions(length, d),
        nn.LayerNorm(d, eps),
        nn.Stack(block, depth),
        MaskedHead(nn.Linear(d, d, True, w), activation, nn.LayerNorm(d, eps), Bias(vocab)) if head else None,
        rate,
    )
