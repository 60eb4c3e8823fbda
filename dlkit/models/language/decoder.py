"""Causal language models: GPT, and the family of Llama, Qwen2 and Qwen3. One definition, two recipes."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import Mode, initializers

__all__ = ["Decoder", "gpt", "llama"]


@dataclass(frozen=True)
class Decoder(nn.Layer[Any, Any]):
    """Tokens, positions, causal blocks, a norm, and the scores of the next token: ids `[B, T]`, logits `[B, T, vocab]`.

    Without a `head` the table of `tokens` is the output layer too (tied weights). `positions` is None where attention
    knows them itself (`Rope`). With `state = init_cache(batch, length)` each call continues the sequence; `mask` and
    `positions` are those of `MultiHeadAttention`. The parameters are those of the parts by name.

    >>> model = gpt(vocab=11, length=8, d=16, heads=2, depth=2)
    >>> params = model.init(jax.random.key(0))
    >>> logits, _ = model.apply(params, None, jnp.array([[1, 2, 3]]), nn.EVAL)
    >>> logits.shape
    (1, 3, 11)
    """

    tokens: nn.Embedding
    blocks: nn.Stack
    norm: nn.Layer
    positions: nn.LearnedPositions | None = None
    head: nn.Linear | None = None
    rate: float = 0.0

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        mode: Mode,
        *,
        mask: Array | None = None,
        positions: Array | None = None,
    ) -> tuple[Float[Array, "B T vocab"], Any]:
        after: dict[str, Any] = {}
        h = self.tokens(params["tokens"], x)
        if self.positions is not None:
            held = nn.child_state(state, "positions")
            h, seen = self.positions.apply(params["positions"], held, h, mode, positions=positions)
            after |= {} if seen is None else {"positions": seen}
        h = nn.functional.dropout(mode.rng("dropout") if self.rate > 0 else None, h, self.rate)
        given = {name: value for name, value in (("mask", mask), ("positions", positions)) if value is not None}
        h, cache = self.blocks.apply(params["blocks"], nn.child_state(state, "blocks"), h, mode.at("blocks"), **given)
        after |= {} if cache is None else {"blocks": cache}
        h, _ = self.norm.apply(params["norm"], None, h, mode.at("norm"))
        if self.head is None:
            return self.tokens.attend(params["tokens"], h), after or None
        return self.head(params["head"], h), after or None


def gpt(
    vocab: int,
    length: int,
    d: int,
    heads: int,
    depth: int,
    *,
    hidden: int | None = None,
    rate: float = 0.0,
    bias: bool = True,
    eps: float = 1e-5,
    tied: bool = True,
    activation: nn.Layer = nn.Gelu(approximate=True),
) -> Decoder:
    """GPT-2: learned positions, pre-norm blocks with GELU (its tanh form), one matrix for tokens and output.

    Args:
      vocab: the number of tokens.
      length: the longest sequence.
      d: features of a token, in `heads` heads, through `depth` blocks.
      hidden: units of the feed-forward networks, 4 d by default.
      rate: dropout of the embedding, the attention's weights, the hidden units and every branch.
      bias: whether linear maps and norms have one.
      tied: whether the output layer is the table of the tokens.

    Weights start from N(0, 0.02^2), those at the end of a branch divided by sqrt(2 depth), as in GPT-2. GPT-2 small is
    `gpt(50257, 1024, 768, 12, 12)`, 124,439,808 parameters:

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(gpt(50257, 1024, 768, 12, 12).init, jax.random.key(0)))
    124439808

    Reference: Radford et al., Language models are unsupervised multitask learners, 2019.
    """
    w, out = initializers.Normal(0.02), initializers.Normal(0.02 / (2 * depth) ** 0.5)
    block = nn.TransformerBlock(
        nn.MultiHeadAttention(d, heads, causal=True, rate=rate, bias=bias, w_init=w, out_init=out),
        nn.FeedForward(d, hidden or 4 * d, activation, rate, bias, w, out),
        nn.LayerNorm(d, eps, shift=bias),
        nn.LayerNorm(d, eps, shift=bias),
        rate=rate,
    )
    return Decoder(
        nn.Embedding(vocab, d, w),
        nn.Stack(block, depth),
        nn.LayerNorm(d, eps, shift=bias),
        nn.LearnedPositions(length, d),
        None if tied else nn.Linear(d, vocab, False, w),
        rate,
    )


def llama(
    vocab: int,
    d: int,
    heads: int,
    depth: int,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    hidden: int | None = None,
    position: nn.Rope = nn.Rope(),
    eps: float = 1e-5,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    tied: bool = False,
    window: int | None = None,
    rate: float = 0.0,
) -> Decoder:
    """Llama: RMSNorm, rotary positions, SwiGLU, no biases, `kv_heads` keys and values (grouped-query attention).

    Qwen2 has `qkv_bias=True`, Qwen3 `qk_norm=True` and a `head_dim` of its own; Mistral has a `window`. Llama 3.1 turns
    by `nn.Rope(500000.0, scaling="llama3", factor=8.0, length=8192)`. `hidden` is 8/3 d rounded up to a multiple of 8
    by default. Weights start from N(0, 0.02^2).

    Llama 2 7B is `llama(32000, 4096, 32, 32, hidden=11008)`, 6,738,415,616 parameters:

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(llama(32000, 4096, 32, 32, hidden=11008).init, jax.random.key(0)))
    6738415616

    References: Touvron et al., LLaMA, 2023, arXiv:2302.13971; The Llama 3 herd of models, 2024, arXiv:2407.21783; Qwen2
    technical report, 2024, arXiv:2407.10671; Qwen3 technical report, 2025, arXiv:2505.09388.
    """
    w = initializers.Normal(0.02)
    size = d // heads if head_dim is None else head_dim
    replaced: list[tuple[str, nn.Layer]] = []
    if qk_norm:
        replaced += [("k_norm", nn.RMSNorm(size, eps))]
    if out_bias != qkv_bias:
        replaced += [("out", nn.Linear(heads * size, d, out_bias, w))]
    if qk_norm:
        replaced += [("q_norm", nn.RMSNorm(size, eps))]
    attention = nn.MultiHeadAttention(
        d,
        heads,
        kv_heads,
        head_dim,
        causal=True,
        window=window,
        position=position,
        qk_norm=qk_norm,
        rate=rate,
        bias=qkv_bias,
        w_init=w,
        out_init=w,
        replaced=tuple(replaced),
    )
    hidden = hidden or -(-8 * d // 24) * 8
    mlp = nn.GatedFeedForward(d, hidden, rate=rate, bias=mlp_bias, w_init=w, out_init=w)
    block = nn.TransformerBlock(attention, mlp, nn.RMSNorm(d, eps), nn.RMSNorm(d, eps), rate=rate)
    head = None if tied else nn.Linear(d, vocab, False, w)
    return Decoder(nn.Embedding(vocab, d, w), nn.Stack(block, depth), nn.RMSNorm(d, eps), head=head, rate=rate)
