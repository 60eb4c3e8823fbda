"""Certificates: 50 float64 steps of every optimizer beside optax, torch and Keras; the table in docs/optimizers.md.

`rows/` says what is compared, a family a file; `measure.py` measures; `table.py` writes and reads the page's table.
`tests/optim/test_certificates.py` fails where a number or the page is not what a row says. With torch and Keras
installed, `pytest -n 0 -m '' --write-golden tests/optim/test_certificates.py` writes the golden numbers and the
table anew.
"""
