"""Transformer blocks, gated MLPs, mixture of experts, LoRA."""

from rows.row import Row

ROWS: list[Row] = []
