"""Layers: frozen dataclasses of hyperparameters with `init` and one pure step, `apply`."""

from dlkit import functional
from dlkit.nn.combinators import Chain, Residual, Stack, is_pure
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.mode import EVAL, Mode, fold_name, training

__all__ = [
    "EVAL",
    "Chain",
    "Layer",
    "Mode",
    "Pure",
    "Residual",
    "Stack",
    "child_state",
    "fold_name",
    "functional",
    "is_pure",
    "training",
]
