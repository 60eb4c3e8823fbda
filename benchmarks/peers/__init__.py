"""The same training steps in six libraries: see `benchmarks/steps.py`."""
