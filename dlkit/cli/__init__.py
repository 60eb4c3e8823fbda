"""The `dlkit` command. Each command is one file; jax is imported only by those that compute."""

from dlkit.cli.main import main

__all__ = ["main"]
