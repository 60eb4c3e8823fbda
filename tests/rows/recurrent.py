"""Recurrent layers and linear recurrences."""

from rows.row import Row

ROWS: list[Row] = []
