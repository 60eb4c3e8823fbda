"""Checks that dlkit's own parts pass, for yours: every property a layer and a gradient transform must have."""

from dlkit.testing.layers import PROPERTIES, check_layer

__all__ = ["PROPERTIES", "check_layer"]
