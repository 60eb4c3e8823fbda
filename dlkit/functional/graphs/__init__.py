"""Graphs with static shapes: segments, edges, batches."""
