"""Multilayer perceptrons (Rosenblatt 1958; trained by backpropagation in Rumelhart, Hinton, Williams 1986)."""

import itertools
from collections.abc import Sequence
from typing import Any

from dlkit import nn
from dlkit.models.parts import activation as activation_layer
from dlkit.models.parts import hidden_weights
from dlkit.models.parts import norm as norm_layer

__all__ = ["mlp"]


def mlp(
    widths: Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    norm: str | None = None,
) -> nn.Chain:
    """Affine maps with an activation after each but the last: h_i = act(norm(h_(i-1) W_i + b_i)).

    Args:
      widths: from the input to the output, such as `(784, 512, 256, 10)`; `[B, widths[0]]` in, `[B, widths[-1]]` out.
      activation: one of `models.ACTIVATIONS`.
      dropout: the probability of dropping a hidden unit, after each activation.
      norm: "batch", "layer" or None, before each activation.

    Parameters: the sum of `(a + 1) * b` over neighbouring widths a, b (and 2 b a hidden layer with a norm).

    >>> mlp((64, 32, 10), dropout=0.5).names
    ('linear1', 'relu1', 'dropout1', 'linear2')

    Raises:
      ValueError: fewer than two widths, or an unknown activation or norm.
    """
    if len(widths) < 2:
        raise ValueError(f"mlp wants at least two widths, input and output, got {tuple(widths)}")
    layers: list[nn.Layer[Any, Any]] = []
    weights = hidden_weights(activation)
    for d_in, d_out in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(d_in, d_out, w_init=weights), *norm_layer(norm, d_out), activation_layer(activation)]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Chain(*layers, nn.Linear(widths[-2], widths[-1]))
