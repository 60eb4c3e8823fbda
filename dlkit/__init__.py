"""dlkit: a functional deep-learning toolkit in JAX."""

from dlkit.version import __version__

__all__ = ["__version__"]
