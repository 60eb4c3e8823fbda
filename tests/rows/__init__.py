"""The rows of the table of layers x properties (`tests/nn/test_table.py`), one file a family."""

from rows import attention, basics, convolution, graphs, normalization, recurrent, transformer

ROWS = [
    row
    for family in (basics, convolution, normalization, recurrent, attention, transformer, graphs)
    for row in family.ROWS
]
