"""Attention, masks, positions, routing to experts."""
