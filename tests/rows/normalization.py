"""Further normalization, parametrizations of weights, the dropout family, convolutional blocks, quantizers."""

from rows.row import Row

ROWS: list[Row] = []
