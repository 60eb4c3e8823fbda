"""Graph layers and memory."""

from rows.row import Row

ROWS: list[Row] = []
