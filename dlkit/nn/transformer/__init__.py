"""Attention, positions, caches, feed-forward networks, experts, blocks."""
