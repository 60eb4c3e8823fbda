"""The rows of the table of layers x properties (`tests/nn/test_table.py`), one file a family."""
