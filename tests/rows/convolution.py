"""Transposed and separable convolution, adaptive pooling, resizing, shuffles, patches, padding."""

from rows.row import Row

ROWS: list[Row] = []
