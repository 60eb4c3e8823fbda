"""Whole models in several libraries, for `models.py`."""
