"""Looking at models and runs: summaries, costs, plots."""

from dlkit.inspect.flops import flops
from dlkit.inspect.summary import Row, Summary, summary

__all__ = ["Row", "Summary", "flops", "summary"]
