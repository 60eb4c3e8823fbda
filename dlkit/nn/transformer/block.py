"""Transformer blocks: attention and a feed-forward network, each around a shortcut with a norm."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.nn.activations import Gelu, Silu
from dlkit.nn.checks import check_rate, describe
from dlkit.nn.layer import Layer, child_state
from dlkit.nn.mode import Mode
from dlkit.nn.normalization.norms import LayerNorm, RMSNorm
from dlkit.nn.transformer.attention import MultiHeadAttention
from dlkit.nn.transformer.feed_forward import FeedForward, GatedFeedForward

__all__ = ["TransformerBlock", "transformer_block"]

Order = Literal["pre", "post", "parallel"]


@dataclass(frozen=True)
class TransformerBlock(Layer[Any, Any]):
    """Attention, then `mlp`, each with a shortcut and a norm: x `[B, T, d]`, y `[B, T, d]`. By `order`:

        pre:       x = x + attention(norm1(x));   y = x + mlp(norm2(x))                GPT-2, Llama, ViT
        post:      x = norm1(x + attention(x));   y = norm2(x + mlp(x))                the paper, BERT
        parallel:  y = x + attention(norm1(x)) + mlp(norm2(x))                         GPT-J, GPT-NeoX, PaLM

    With `cross`, attention to the keyword `memory` stands between the two with `norm_cross`, as in a decoder. In
    parallel order without `norm2`, as in GPT-J, `mlp` reads `norm1(x)` too. In training each of the sums' new terms is
    dropped out with probability `rate`. A model of pre-norm blocks ends with one more norm.

    Keywords of `apply`: `mask`, `bias` and `positions` go to `attention`, `memory` and `memory_mask` to `cross`; see
    `MultiHeadAttention`. `mlp_mask` `[B, T]`, True for real tokens, goes to an `mlp` that takes a `mask`, such as
    `MoE`. A mask hides keys, it does not clear x: the outputs of padding are computed, so x must be finite there.
    State: that of `attention` (a cache, from `init_cache`) and of `mlp` (of a mixture of experts). The parts are any
    layers with these inputs; `transformer_block` makes the usual ones. An encoder is a `Stack` of blocks, a language
    model one of causal blocks, a decoder one of causal blocks with `cross`.

    Parameters: those of the parts by their names. torch's `TransformerEncoderLayer` and `TransformerDecoderLayer` are
    post-norm unless `norm_first=True`; there, `norm2` is the norm of the memory in a decoder, and `norm3` ours of
    `mlp`.

    >>> from dlkit.nn import EVAL, Stack, training
    >>> model = Stack(transformer_block(16, heads=4, causal=True, rate=0.1), depth=3)
    >>> params = model.init(jax.random.key(0))
    >>> params["attention"]["q"]["w"].shape
    (3, 16, 16)
    >>> y, _ = model.apply(params, None, jnp.ones((2, 5, 16)), training(jax.random.key(1)))
    >>> y.shape
    (2, 5, 16)

    Raises:
      ValueError: an unknown order, a missing norm, a rate outside [0, 1]; a memory without `cross`, or `cross` without
        one.

    References: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762; Xiong et al., On layer normalization
    in the Transformer architecture, 2020, arXiv:2002.04745 (pre-norm); Chowdhery et al., PaLM, 2022, arXiv:2204.02311.
    """

    attention: Layer
    mlp: Layer
    norm1: Layer
    norm2: Layer | None = None
    cross: Layer | None = None
    norm_cross: Layer | None = None
    order: Order = "pre"
    rate: float = 0.0

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"{describe(self)}: expected an order of 'pre', 'post' or 'parallel'")
        check_rate(self)
        if self.norm2 is None and self.order != "parallel":
            raise ValueError(f"{describe(self)}: expected a norm2, the norm of mlp, in {self.order}-norm order")
        if self.cross is not None and self.order == "parallel":
            raise ValueError(f"{describe(self)}: expected order 'pre' or 'post' in a block with cross attention")
        if (self.cross is None) != (self.norm_cross is None):
            raise ValueError(f"{describe(self)}: expected cross and norm_cross, or neither")

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        mode: Mode,
        *,
        mask: Array | None = None,
        bias: Array | None = None,
        positions: Array | None = None,
        memory: Any = None,
        memory_mask: Array | None = None,
        mlp_mask: Array | None = None,
    ) -> tuple[Float[Array, "*batch T d"], Any]:
        if (memory is None) != (self.cross is None):
            raise ValueError(
                f"{describe(self)} got {'no' if memory is None else 'a'} memory: "
                + ("expected memory=, because it has cross" if memory is None else "set cross to attend to one")
            )
        remembered: dict[str, Any] = {}

        def run(name: str, x: Array, **inputs: Any) -> Array:
            layer, held = getattr(self, name), child_state(state, name)
            given = {key: value for key, value in inputs.items() if value is not None}
            y, after = layer.apply(params[name], held, x, mode.at(name), **given)
            if after is not None:
                remembered[name] = after
            return y

        def dropped(name: str, h: Array) -> Array:
            return functional.dropout(mode.rng(f"dropout_{name}") if self.rate > 0 else None, h, self.rate)

        def around(name: str, norm: str, x: Array, **inputs: Any) -> Array:
            if self.order == "pre":
                return x + dropped(name, run(name, run(norm, x), **inputs))
            return run(norm, x + dropped(name, run(name, x, **inputs)))

        if self.order == "parallel":
            h = run("norm1", x)
            y = x + dropped("attention", run("attention", h, mask=mask, bias=bias, positions=positions))
            y = y + dropped("mlp", run("mlp", h if self.norm2 is None else run("norm2", x), mask=mlp_mask))
        else:
            y = around("attention", "norm1", x, mask=mask, bias=bias, positions=positions)
            if self.cross is not None:
                y = around("cross", "norm_cross", y, memory=memory, mask=memory_mask)
            y = around("mlp", "norm2", y, mask=mlp_mask)
        return y, remembered or None


def transformer_block(
    d: int,
    heads: int,
    hidden: int | None = None,
    *,
    kv_heads: int | None = None,
    causal: bool = False,
    position: Any = None,
    d_memory: int | None = None,
    activation: Layer | None = None,
    gated: bool = False,
    norm: Literal["layer", "rms"] = "layer",
    order: Order = "pre",
    rate: float = 0.0,
    bias: bool = True,
) -> TransformerBlock:
    """The usual `TransformerBlock`: multi-head attention and a feed-forward network.

    Args:
      d: the features of x.
      heads: of the attention, with `kv_heads` keys and values, `causal` or not, and its `position`.
      hidden: units of the feed-forward network; by default 4 d, gated 8/3 d rounded up to a multiple of 8, which has
        as many weights.
      d_memory: the features of the memory that a decoder attends to; None for a block without.
      activation: by default `Gelu()`, gated `Silu()`; torch has `Relu()`.
      gated: a `GatedFeedForward` in place of a `FeedForward`.
      norm: "layer" or "rms".
      order: "pre", "post" or "parallel".
      rate: the probability of dropping, for the attention's weights, the hidden units and each branch, as in torch.
      bias: whether linear maps and layer norms have one; Llama has none.

    >>> llama = transformer_block(64, 4, kv_heads=2, causal=True, gated=True, norm="rms", bias=False)
    >>> type(llama.mlp).__name__, llama.mlp.hidden
    ('GatedFeedForward', 176)

    Raises:
      ValueError: an unknown norm, and what the parts raise.
    """
    if norm not in ("layer", "rms"):
        raise ValueError(f"transformer_block got norm={norm!r}; expected 'layer' or 'rms'")

    def normed() -> Layer:
        return LayerNorm(d, shift=bias) if norm == "layer" else RMSNorm(d)

    if hidden is None:
        hidden = -(-8 * d // 24) * 8 if gated else 4 * d
    network = GatedFeedForward if gated else FeedForward
    return TransformerBlock(
        MultiHeadAttention(d, heads, kv_heads, causal=causal, position=position, rate=rate, bias=bias),
        network(d, hidden, activation or (Silu() if gated else Gelu()), rate, bias),
        normed(),
        normed(),
        None if d_memory is None else MultiHeadAttention(d, heads, kv_heads, d_memory=d_memory, rate=rate, bias=bias),
        None if d_memory is None else normed(),
        order,
        rate,
    )
