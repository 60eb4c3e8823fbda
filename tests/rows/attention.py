"""Attention, positions, caches."""

import jax.numpy as jnp
import numpy as np

from dlkit import nn
from rows.row import Row, normal

SEQUENCES = normal(3, 6, 16)
TREE = {
    "k/b": (16,),
    "k/w": (16, 16),
    "out/b": (16,),
    "out/w": (16, 16),
    "q/b": (16,),
    "q/w": (16, 16),
    "v/b": (16,),
    "v/w": (16, 16),
}

ROWS: list[Row] = [
    # A bias of the keys adds the same number to all scores of a query.
    Row(nn.MultiHeadAttention(16, 4), SEQUENCES, TREE, options={"unused": ("k/b",)}),
    Row(
        nn.MultiHeadAttention(16, 4, kv_heads=2, causal=True, position=nn.Rope(), qk_norm=True, bias=False),
        SEQUENCES,
        {
            "k/w": (16, 8),
            "k_norm/scale": (4,),
            "out/w": (16, 16),
            "q/w": (16, 16),
            "q_norm/scale": (4,),
            "v/w": (16, 8),
        },
    ),
    Row(
        nn.MultiHeadAttention(16, 2, head_dim=4, window=2, position=nn.RelativeBias(2, 4, 4), rate=0.2, bias=False),
        SEQUENCES,
        {"k/w": (16, 8), "out/w": (8, 16), "position/table": (4, 2), "q/w": (16, 8), "v/w": (16, 8)},
    ),
    Row(
        nn.MultiHeadAttention(16, 2, d_memory=8),
        SEQUENCES,
        TREE | {"k/w": (8, 16), "v/w": (8, 16)},
        options={"unused": ("k/b",), "inputs": {"memory": jnp.asarray(normal(3, 5, 8))}},
    ),
    Row(
        nn.AdditiveAttention(16, 8, 12),
        SEQUENCES,
        {"k/b": (12,), "k/w": (8, 12), "q/w": (16, 12), "score/w": (12, 1)},
        options={"inputs": {"memory": jnp.asarray(normal(3, 5, 8))}},
    ),
    Row(nn.Rope(interleaved=True, scaling="ntk", factor=2.0), normal(2, 5, 2, 8)),
    Row(nn.Alibi(3), np.arange(4, dtype=np.int32)[None], options={"scale": (0.01, 10.0)}),
    Row(
        nn.RelativeBias(4),
        np.arange(5, dtype=np.int32)[None],
        {"table": (32, 4)},
        options={"scale": (0.01, 1.0)},
    ),
    Row(nn.SinusoidalPositions(), SEQUENCES),
    Row(nn.LearnedPositions(8, 16), SEQUENCES, {"table": (8, 16)}),
]
