"""Recipes: functions that return layers, one family a file."""

from dlkit.models.cnn import cnn
from dlkit.models.linear import linear
from dlkit.models.mlp import mlp
from dlkit.models.parts import ACTIVATIONS
from dlkit.models.resnet import PadShortcut, resnet20

__all__ = ["ACTIVATIONS", "PadShortcut", "cnn", "linear", "mlp", "resnet20"]
