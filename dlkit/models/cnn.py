"""Small convolutional networks for small pictures (LeCun, Bottou, Bengio, Haffner 1998)."""

from collections.abc import Sequence
from typing import Any

from dlkit import nn
from dlkit.models.parts import activation as activation_layer
from dlkit.models.parts import hidden_weights
from dlkit.models.parts import norm as norm_layer

__all__ = ["cnn"]


def cnn(
    input: tuple[int, int, int],
    classes: int,
    channels: Sequence[int] = (32, 64),
    *,
    hidden: int | None = None,
    kernel: int = 3,
    convs: int = 1,
    activation: str = "relu",
    dropout: float = 0.0,
    norm: str | None = None,
) -> nn.Chain:
    """Stages of convolutions that end in a 2 x 2 max pooling, then one or two affine maps.

    Args:
      input: `(height, width, channels)` of a picture, `[B, H, W, C]` in, `[B, classes]` out.
      classes: the number of outputs.
      channels: channels of each stage; a stage halves height and width (rounding down).
      hidden: units of an affine map before the last; None for none.
      kernel: side of the convolution kernels (padding "SAME").
      convs: convolutions in a stage.
      activation: one of `models.ACTIVATIONS`.
      dropout: the probability of dropping a unit before each affine map.
      norm: "batch" for batch normalization between convolution and activation, or None.

    Parameters: `kernel^2 * c_in * c_out + c_out` a convolution (2 c_out more with a norm, which replaces its bias), and
    those of the affine maps: `cnn((8, 8, 1), 10, (16, 32))` has 160 + 4,640 + 1,290 = 6,090.

    >>> len(cnn((8, 8, 1), 10, (16, 32)))
    8

    Raises:
      ValueError: the picture is too small for so many stages, or an unknown activation or norm.
    """
    height, width, c_in = input
    if min(height, width) < 2 ** len(channels):
        raise ValueError(
            f"cnn halves the picture once a stage: {len(channels)} stages want a side of at least "
            f"{2 ** len(channels)}, got {height} x {width}"
        )
    layers: list[nn.Layer[Any, Any]] = []
    weights = hidden_weights(activation)
    for c_out in channels:
        for _ in range(convs):
            # A bias would be taken away again by the mean that the norm subtracts.
            layers.append(nn.Conv(c_in, c_out, kernel, bias=norm is None, w_init=weights))
            layers += [*norm_layer(norm, c_out), activation_layer(activation)]
            c_in = c_out
        layers.append(nn.MaxPool(2))
        height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    d = height * width * c_in
    if hidden is not None:
        layers += [nn.Dropout(dropout)] * bool(dropout)
        layers += [nn.Linear(d, hidden, w_init=weights), activation_layer(activation)]
        d = hidden
    layers += [nn.Dropout(dropout)] * bool(dropout)
    return nn.Chain(*layers, nn.Linear(d, classes))
