"""Language models by name: the sizes that were published."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dlkit import nn
from dlkit.models.language.bert import bert
from dlkit.models.language.decoder import gpt, llama
from dlkit.models.language.recurrent import rnn_lm
from dlkit.models.language.seq2seq import seq2seq
from dlkit.models.language.t5 import t5
from dlkit.models.language.whisper import whisper_encoder

__all__ = ["LANGUAGE"]


def _gpt2(d: int, heads: int, depth: int) -> Callable[..., Any]:
    return functools.partial(gpt, vocab=50257, length=1024, d=d, heads=heads, depth=depth)


def _bert(d: int, heads: int, depth: int) -> Callable[..., Any]:
    return functools.partial(bert, vocab=30522, length=512, d=d, heads=heads, depth=depth)


def _t5(d: int, heads: int, depth: int) -> Callable[..., Any]:
    return functools.partial(t5, vocab=32128, d=d, heads=heads, depth=depth, head_dim=64)


def _whisper(d: int, heads: int, depth: int) -> Callable[..., Any]:
    return functools.partial(whisper_encoder, mels=80, length=1500, d=d, heads=heads, depth=depth)


LANGUAGE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "gpt": gpt, "llama": llama, "bert": bert, "t5": t5, "whisper_encoder": whisper_encoder,
        "rnn_lm": rnn_lm, "seq2seq": seq2seq,
        "gpt2": _gpt2(768, 12, 12), "gpt2_medium": _gpt2(1024, 16, 24), "gpt2_large": _gpt2(1280, 20, 36),
        "gpt2_xl": _gpt2(1600, 25, 48),
        "llama2_7b": functools.partial(llama, vocab=32000, d=4096, heads=32, depth=32, hidden=11008),
        "llama3_8b": functools.partial(
            llama, vocab=128256, d=4096, heads=32, depth=32, kv_heads=8, hidden=14336, position=nn.Rope(500000.0)
        ),
        "bert_base": _bert(768, 12, 12), "bert_large": _bert(1024, 16, 24),
        "t5_small": _t5(512, 8, 6), "t5_base": _t5(768, 12, 12), "t5_large": _t5(1024, 16, 24),
        "whisper_tiny_encoder": _whisper(384, 6, 4), "whisper_base_encoder": _whisper(512, 8, 6),
        "whisper_small_encoder": _whisper(768, 12, 12),
    }
)  # fmt: skip
"""Recipes, and the same with the options of a published model; every option can be given anew."""
