"""Checks that dlkit's own parts pass, for yours: every property a layer and a gradient transform must have."""

from dlkit.testing.layers import PROPERTIES, check_layer
from dlkit.testing.transforms import check_transform

__all__ = ["PROPERTIES", "check_layer", "check_transform"]
