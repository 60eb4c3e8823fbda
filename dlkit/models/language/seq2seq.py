"""From one sequence to another: an LSTM that attends to what another has read."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import EVAL, Mode

__all__ = ["Conditioned", "Seq2Seq", "Translator", "seq2seq"]


@dataclass(frozen=True)
class Seq2Seq(nn.Layer[Any, Any]):
    """An encoder in both directions, a decoder, attention: target ids `[B, T]`, logits `[B, T, vocab]`.

    The decoder's hidden states ask the memory (global attention), and the logits are those of what they were and what
    they got: `head(tanh(combine([h_t, context_t])))`. The mean of the memory is part of each of its inputs. The target
    begins with a start token, so the logits at t are those of target t + 1.

    `apply` wants `source` ids `[B, S]`, or `memory` `[B, S, d]`, what `encode` made of them; `source_mask` `[B, 1, 1,
    S]` is True for real tokens, which stand first. With `state = init_cache(batch, length)` each call continues the
    target. `attention_weights` gives what is attended to, to draw.

    >>> model = seq2seq(vocab=11, d=16)
    >>> params = model.init(jax.random.key(0))
    >>> source, target = jnp.array([[4, 5, 6]]), jnp.array([[1, 7]])
    >>> model.apply(params, None, target, nn.EVAL, source=source)[0].shape
    (1, 2, 11)
    >>> model.attention_weights(params, target, source).shape
    (1, 2, 3)

    Raises:
      ValueError: neither source nor memory, or both.
    """

    tokens: nn.Embedding
    encoder: nn.Bidirectional
    decoder: nn.LSTM
    attention: nn.AdditiveAttention
    combine: nn.Linear
    head: nn.Linear
    rate: float = 0.0

    def encode(
        self, params: Any, source: Array, mode: Mode = EVAL, *, source_mask: Array | None = None
    ) -> Float[Array, "B S d"]:
        """The memory of source ids: once for many calls of `apply`."""
        h = self._dropped("source", self.tokens(params["tokens"], source), mode)
        lengths = None if source_mask is None else source_mask[:, 0, 0].sum(-1, dtype=jnp.int32)
        return self.encoder.apply(params["encoder"], None, h, mode.at("encoder"), lengths=lengths)[0]

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
        memory = self._memory(params, source, memory, source_mask, mode)
        h, after = self._decoded(params, state, x, mode, memory, source_mask)
        seen = None if source_mask is None else source_mask[:, 0]
        context = self.attention(params["attention"], h, memory=memory, mask=seen)
        h = jnp.tanh(self.combine(params["combine"], jnp.concatenate([h, context], axis=-1)))
        return self.head(params["head"], self._dropped("head", h, mode)), after

    def attention_weights(
        self, params: Any, x: Array, source: Array, *, source_mask: Array | None = None
    ) -> Float[Array, "B T S"]:
        """How much the decoder attends to each source token where it reads target t: rows sum to 1."""
        memory = self.encode(params, source, source_mask=source_mask)
        h, _ = self._decoded(params, None, x, EVAL, memory, source_mask)
        seen = None if source_mask is None else source_mask[:, 0]
        return self.attention.weights(params["attention"], h, memory, seen)

    def _memory(self, params: Any, source: Any, memory: Any, source_mask: Any, mode: Mode) -> Array:
        if (source is None) == (memory is None):
            raise ValueError("Seq2Seq wants source= [B, S], or memory= [B, S, d], what encode made of it")
        return self.encode(params, source, mode, source_mask=source_mask) if memory is None else memory

    def _decoded(
        self, params: Any, state: Any, x: Array, mode: Mode, memory: Array, source_mask: Array | None
    ) -> tuple[Array, Any]:
        # Outputs of the encoder are 0 where the mask is False.
        count = jnp.float32(memory.shape[1]) if source_mask is None else source_mask[:, 0, 0].sum(-1).clip(1)[:, None]
        mean = memory.sum(1) / jnp.asarray(count, memory.dtype)
        h = self._dropped("target", self.tokens(params["tokens"], x), mode)
        mean = jnp.broadcast_to(mean[:, None], (*h.shape[:2], mean.shape[-1]))
        h, carry = self.decoder.apply(
            params["decoder"], nn.child_state(state, "decoder"), jnp.concatenate([h, mean], axis=-1), mode.at("decoder")
        )
        return h, None if carry is None else {"decoder": carry}

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """The decoder's carry."""
        return {"decoder": self.decoder.init_cache(batch, length, dtype)}

    def _dropped(self, name: str, h: Array, mode: Mode) -> Array:
        return nn.functional.dropout(mode.rng(name) if self.rate > 0 else None, h, self.rate)


def seq2seq(vocab: int, d: int, *, rate: float = 0.0) -> Seq2Seq:
    """An LSTM encoder in both directions (d / 2 units each), an LSTM decoder of d units, additive attention.

    One table of tokens serves both sides. `rate` is the dropout of the tokens, and in front of the scores.

    Raises:
      ValueError: an odd d.

    References: Sutskever, Vinyals and Le, 2014, arXiv:1409.3215; Bahdanau, Cho and Bengio, 2014, arXiv:1409.0473 (the
    scores); Luong, Pham and Manning, 2015, arXiv:1508.04025 (global attention after the recurrence, without feeding
    its outcome back).
    """
    if d % 2:
        raise ValueError(f"seq2seq got d={d}: expected an even number, half for each direction of the encoder")
    return Seq2Seq(
        nn.Embedding(vocab, d),
        nn.Bidirectional(nn.LSTM(d, d // 2)),
        nn.LSTM(2 * d, d),
        nn.AdditiveAttention(d, d, d),
        nn.Linear(2 * d, d),
        nn.Linear(d, vocab),
        rate,
    )


@dataclass(frozen=True)
class Translator(nn.Layer[Any, Any]):
    """An encoder-decoder for training: the pair (source ids `[B, S]`, target ids `[B, T]`) to logits `[B, T, vocab]`.

    `body` is a `Seq2Seq` or a `T5`, whose parameters these are. Source tokens that are `pad` are hidden from it.

    >>> model = Translator(seq2seq(vocab=11, d=16), pad=0)
    >>> pair = (jnp.array([[4, 5, 2, 0]]), jnp.array([[1, 7]]))
    >>> model.apply(model.init(jax.random.key(0)), None, pair, nn.EVAL)[0].shape
    (1, 2, 11)
    """

    body: nn.Layer
    pad: int = 0

    def children(self) -> dict[str, nn.Layer]:
        return {"": self.body}

    def init(self, key: Any) -> Any:
        return self.body.init(key)

    def init_state(self) -> Any:
        return self.body.init_state()

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Float[Array, "B T vocab"], Any]:
        source, target = x
        mask = (source != self.pad)[:, None, None]
        body: Any = self.body
        return body.apply(params, state, target, mode, source=source, source_mask=mask)


@dataclass(frozen=True)
class Conditioned:
    """A decoder with its memory, for `generate`, `stream` and `beam_search`, which know nothing of a source.

    It is no layer: it has `apply` and `init_cache` alone. The memory is part of the parameters: `{model, memory,
    mask}`, as `condition` makes them. Rows of the target may
    be a multiple of those of the memory (beams): neighbours share one.

    >>> model = seq2seq(vocab=11, d=16)
    >>> decoder = Conditioned(model)
    >>> params = decoder.condition(model.init(jax.random.key(0)), jnp.array([[4, 5, 2, 0]]), pad=0)
    >>> from dlkit import models
    >>> models.generate(decoder, params, jnp.array([[1]]), 3, end=2).shape
    (1, 3)
    """

    body: nn.Layer

    def condition(self, params: Any, source: Array, pad: int | None = None) -> Any:
        """The parameters of this layer: those of `body`, and what it remembers of source ids `[B, S]`."""
        body: Any = self.body
        mask = jnp.ones_like(source, jnp.bool_) if pad is None else source != pad
        mask = mask[:, None, None]
        return {"model": params, "memory": body.encode(params, source, source_mask=mask), "mask": mask}

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """That of `body`."""
        return self.body.init_cache(batch, length, dtype)

    def apply(self, params: Any, state: Any, x: Array, mode: Mode) -> tuple[Array, Any]:
        times = x.shape[0] // params["memory"].shape[0]
        memory, mask = (jnp.repeat(params[name], times, axis=0) for name in ("memory", "mask"))
        body: Any = self.body
        return body.apply(params["model"], state, x, mode, memory=memory, source_mask=mask)
