"""Whisper's encoder: spectrograms to features."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import Mode

__all__ = ["AudioEncoder", "whisper_encoder"]


@dataclass(frozen=True)
class AudioEncoder(nn.Layer[Any, None]):
    """Two convolutions, the second halves the time, positions, blocks, a norm: x `[B, T, mels]`, y `[B, T / 2, d]`.

    Hugging Face gives its model `[B, mels, T]`.
    """

    conv1: nn.Conv
    conv2: nn.Conv
    positions: nn.LearnedPositions
    blocks: nn.Stack
    norm: nn.LayerNorm

    def apply(self, params: Any, state: None, x: Array, mode: Mode) -> tuple[Float[Array, "B T2 d"], None]:
        h = nn.functional.gelu(self.conv1(params["conv1"], x))
        h = nn.functional.gelu(self.conv2(params["conv2"], h))
        h = self.positions(params["positions"], h)
        h, _ = self.blocks.apply(params["blocks"], None, h, mode.at("blocks"))
        return self.norm(params["norm"], h), None


def whisper_encoder(
    mels: int, length: int, d: int, heads: int, depth: int, *, hidden: int | None = None, rate: float = 0.0
) -> AudioEncoder:
    """The encoder of Whisper: pre-norm blocks with GELU, keys without a bias, `length` positions after halving.

    The published positions are fixed waves; they are stored as a table, and read as one.

    >>> model = whisper_encoder(mels=4, length=6, d=16, heads=2, depth=2)
    >>> model.apply(model.init(jax.random.key(0)), None, jnp.ones((2, 12, 4)), nn.EVAL)[0].shape
    (2, 6, 16)

    Reference: Radford et al., Robust speech recognition via large-scale weak supervision, 2022, arXiv:2212.04356.
    """
    keys = nn.Linear(d, d, False)
    block = nn.TransformerBlock(
        nn.MultiHeadAttention(d, heads, rate=rate, replaced=(("k", keys),)),
        nn.FeedForward(d, hidden or 4 * d, nn.Gelu()),
        nn.LayerNorm(d),
        nn.LayerNorm(d),
        rate=rate,
    )
    return AudioEncoder(
        nn.Conv(mels, d, 3, padding=1, dims=1),
        nn.Conv(d, d, 3, stride=2, padding=1, dims=1),
        nn.LearnedPositions(length, d),
        nn.Stack(block, depth),
        nn.LayerNorm(d),
    )
