"""Attention, positions, caches."""

from rows.row import Row

ROWS: list[Row] = []
