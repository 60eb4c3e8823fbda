"""Transformer blocks, gated MLPs, mixture of experts, LoRA."""

import jax.numpy as jnp

from dlkit import nn
from rows.row import Row, normal

BATCH = normal(4, 16)
SEQUENCES = normal(3, 5, 16)


def under(name: str, tree: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{name}/{path}": shape for path, shape in tree.items()}


def linear(name: str, d_in: int, d_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/b": (d_out,), f"{name}/w": (d_in, d_out)}


NORM = {"scale": (16,), "shift": (16,)}
ATTENTION = linear("k", 16, 16) | linear("out", 16, 16) | linear("q", 16, 16) | linear("v", 16, 16)
BLOCK = (
    under("attention", ATTENTION)
    | under("mlp", linear("up", 16, 64) | linear("down", 64, 16))
    | under("norm1", NORM)
    | under("norm2", NORM)
)
CROSS = under("cross", ATTENTION | {"k/w": (8, 16), "v/w": (8, 16)}) | under("norm_cross", NORM)
EXPERTS = {"down/w": (4, 8, 16), "router/w": (16, 4), "up/w": (4, 16, 8)}
STATS = {"balance": (), "dropped": (), "load": (4,), "z": ()}
# A bias of the keys adds the same number to all scores of a query.
UNUSED = {"unused": ("**/k/b",)}

ROWS: list[Row] = [
    Row(nn.FeedForward(16, 32, rate=0.2), BATCH, linear("down", 32, 16) | linear("up", 16, 32)),
    Row(
        nn.GatedFeedForward(16, 32),
        SEQUENCES,
        {"down/w": (32, 16), "gate/w": (16, 32), "up/w": (16, 32)},
    ),
    Row(
        nn.LoRALinear(16, 8, rank=2, alpha=4.0),
        BATCH,
        {"b": (8,), "lora_down": (16, 2), "lora_up": (2, 8), "w": (16, 8)},
        options={"unused": ("lora_down",)},  # the other factor starts at 0
    ),
    Row(nn.transformer_block(16, 4, causal=True, rate=0.1), SEQUENCES, BLOCK, options=UNUSED),
    Row(
        nn.transformer_block(16, 4, d_memory=8, order="post"),
        SEQUENCES,
        BLOCK | CROSS,
        options={"unused": ("**/k/b",), "inputs": {"memory": jnp.asarray(normal(3, 4, 8))}},
    ),
    Row(
        nn.MoE(16, 8, experts=4),
        BATCH,
        EXPERTS | {"gate/w": (4, 16, 8)},
        STATS,
    ),
    Row(
        nn.MoE(16, 8, experts=4, top_k=1, gated=False, activation=nn.Relu(), capacity_factor=1.0),
        normal(4, 4, 16),
        EXPERTS,
        STATS,
        {"batched": False},  # the examples share the experts' room
    ),
    Row(
        nn.MoE(16, 8, experts=4, choice="experts"),
        normal(4, 4, 16),
        EXPERTS | {"gate/w": (4, 16, 8)},
        STATS,
        {"batched": False},
    ),
    Row(nn.Einsum("...d,dhk->...hk", (16, 2, 5), bias="hk"), SEQUENCES, {"b": (2, 5), "w": (16, 2, 5)}),
    Row(
        nn.Highway(nn.Chain(nn.Linear(16, 16), nn.Relu()), nn.Linear(16, 16)),
        BATCH,
        linear("body/linear1", 16, 16) | linear("gate", 16, 16),
    ),
]
