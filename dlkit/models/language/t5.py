"""T5: an encoder-decoder whose attention knows distances."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import EVAL, Mode, initializers

__all__ = ["T5", "t5"]


@dataclass(frozen=True)
class T5(nn.Layer[Any, Any]):
    """Encoder and decoder with relative biases: target ids `[B, T]`, logits `[B, T, vocab]`.

    `apply` wants `source` ids `[B, S]`, or `memory` `[B, S, d]`, what `encode` made of them; `source_mask`
    `[B, 1, 1, S]` is True for real tokens. The target begins with the start token (id 0 in T5), so the logits at t are
    those of target t + 1. With `state = init_cache(batch, length)` each call continues the target.

    One table of biases serves all blocks of the encoder, another those of the decoder. Without a `head` the table of
    the tokens is the output layer; its input is divided by sqrt(d) if `scaled`.

    >>> model = t5(vocab=11, d=16, heads=2, depth=2)
    >>> params = model.init(jax.random.key(0))
    >>> logits, _ = model.apply(params, None, jnp.array([[0, 2]]), nn.EVAL, source=jnp.array([[1, 2, 3]]))
    >>> logits.shape
    (1, 2, 11)

    Raises:
      ValueError: neither source nor memory, or both.
    """

    tokens: nn.Embedding
    encoder_bias: nn.RelativeBias
    encoder: nn.Stack
    encoder_norm: nn.RMSNorm
    decoder_bias: nn.RelativeBias
    decoder: nn.Stack
    decoder_norm: nn.RMSNorm
    head: nn.Linear | None = None
    scaled: bool = True

    def encode(
        self, params: Any, source: Array, mode: Mode = EVAL, *, source_mask: Array | None = None
    ) -> Float[Array, "B S d"]:
        """The memory of source ids: once for many calls of `apply`."""
        h = self.tokens(params["tokens"], source)
        bias = self.encoder_bias(params["encoder_bias"], jnp.arange(source.shape[1], dtype=jnp.int32))
        given = {} if source_mask is None else {"mask": source_mask}
        h, _ = self.encoder.apply(params["encoder"], None, h, mode.at("encoder"), bias=bias.astype(h.dtype), **given)
        return self.encoder_norm(params["encoder_norm"], h)

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        mode: Mode,
        *,
        source: Array | None = None,
        memory: Array | None = None,
        source_mask: Array | None = None,
    ) -> tuple[Float[Array, "B T vocab"], Any]:
        if (source is None) == (memory is None):
            raise ValueError("T5 wants source= [B, S], or memory= [B, S, d], what encode made of it")
        if memory is None:
            memory = self.encode(params, source, mode, source_mask=source_mask)  # pyright: ignore[reportArgumentType]
        h = self.tokens(params["tokens"], x)
        held = nn.child_state(state, "decoder")
        queries = keys = jnp.arange(x.shape[1], dtype=jnp.int32)
        if held is not None:
            cache = held["attention"]
            queries = cache.length[0] + queries
            keys = jnp.arange(cache.k.shape[2], dtype=jnp.int32)
        bias = self.decoder_bias(params["decoder_bias"], queries, keys=keys).astype(h.dtype)
        given = {} if source_mask is None else {"memory_mask": source_mask}
        h, after = self.decoder.apply(params["decoder"], held, h, mode.at("decoder"), bias=bias, memory=memory, **given)
        h = self.decoder_norm(params["decoder_norm"], h)
        if self.scaled:
            h = h * jnp.asarray(self.tokens.d**-0.5, h.dtype)
        if self.head is None:
            logits = self.tokens.attend(params["tokens"], h)
        else:
            logits = self.head(params["head"], h)
        return logits, None if after is None else {"decoder": after}


def t5(
    vocab: int,
    d: int,
    heads: int,
    depth: int,
    *,
    decoder_depth: int | None = None,
    head_dim: int | None = None,
    hidden: int | None = None,
    buckets: int = 32,
    max_distance: int = 128,
    gated: bool = False,
    tied: bool = True,
    scaled: bool | None = None,
    eps: float = 1e-6,
    rate: float = 0.0,
) -> T5:
    """T5: pre-norm blocks with RMSNorm and no biases, scores that are not divided by sqrt(head_dim).

    `gated` gives GEGLU (its tanh form) in place of ReLU, as T5 1.1, which also has `tied=False`.
    `scaled` is whether the output layer's input is divided by sqrt(d), by default where it is tied. Weights start as in
    the paper's code: with variance 1 / fan_in, queries besides divided by sqrt(head_dim).

    T5 small is `t5(32128, 512, 8, 6, head_dim=64, hidden=2048)`, 60,506,624 parameters:

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(t5(32128, 512, 8, 6, head_dim=64, hidden=2048).init, jax.random.key(0)))
    60506624

    Reference: Raffel et al., Exploring the limits of transfer learning, 2020, arXiv:1910.10683; Shazeer, GLU variants
    improve transformer, 2020, arXiv:2002.05202.
    """
    size = d // heads if head_dim is None else head_dim
    query = nn.Linear(d, heads * size, False, initializers.VarianceScaling(1.0 / size, "fan_in", "normal"))

    def block(decodes: bool) -> nn.TransformerBlock:
        def attention(**more: Any) -> nn.MultiHeadAttention:
            return nn.MultiHeadAttention(
                d, heads, head_dim=head_dim, rate=rate, bias=False, scale=1.0, replaced=(("q", query),), **more
            )

        mlp = nn.GatedFeedForward if gated else nn.FeedForward
        act = nn.Gelu(approximate=True) if gated else nn.Relu()
        norm = nn.RMSNorm(d, eps)
        cross = attention(d_memory=d) if decodes else None
        return nn.TransformerBlock(
            attention(causal=decodes),
            mlp(d, hidden or 4 * d, act, rate, False),
            norm,
            norm,
            cross,
            norm if decodes else None,
            rate=rate,
        )

    return T5(
        nn.Embedding(vocab, d, initializers.Normal(1.0)),
        nn.RelativeBias(heads, buckets, max_distance),
        nn.Stack(block(False), depth),
        nn.RMSNorm(d, eps),
        nn.RelativeBias(heads, buckets, max_distance, bidirectional=False),
        nn.Stack(block(True), decoder_depth or depth),
        nn.RMSNorm(d, eps),
        None if tied else nn.Linear(d, vocab, False),
        tied if scaled is None else scaled,
    )
