"""Autoencoders: a network that gives back its input through a narrow place."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax  # noqa: F401  (the doctests)

from dlkit import nn
from dlkit.models.mlp import mlp
from dlkit.models.parts import activation as activation_layer
from dlkit.models.parts import hidden_weights
from dlkit.models.vae import VAE

__all__ = ["autoencoder", "conv_autoencoder", "vae"]

Shape = tuple[int, int, int]


def _corruption(mask: float, noise: float) -> dict[str, nn.Layer[Any, Any]]:
    parts: dict[str, nn.Layer[Any, Any]] = {"mask": nn.Dropout(mask)} if mask else {}
    return parts | ({"noise": nn.GaussianNoise(noise)} if noise else {})


def autoencoder(
    input: Shape = (28, 28, 1),
    widths: Sequence[int] = (512, 256),
    latent: int = 32,
    *,
    activation: str = "relu",
    mask: float = 0.0,
    noise: float = 0.0,
) -> nn.Chain:
    """y = decoder(encoder(x)), two multilayer perceptrons: `[B, *input]` in, logits (or values) `[B, *input]` out.

    With `mask` or `noise` it is a denoising autoencoder: in training the encoder sees a corrupted input, while the loss
    compares with the clean one. Train it by `Task(model, losses.binary_cross_entropy, inputs="x", targets="x")` for
    pixels in [0, 1], or with `losses.mse`.

    Args:
      input: the shape of an example.
      widths: hidden units of the encoder; the decoder has them in reverse.
      latent: features of the code.
      activation: one of `models.ACTIVATIONS`, between affine maps; the code and the output have none.
      mask: the probability that a pixel is set to 0 (`nn.Dropout`, so those that stay are divided by 1 - mask).
      noise: the standard deviation of Gaussian noise added to the input.

    Parameters: `encoder/linear1`, ..., `decoder/linear1`, ...

    >>> model = autoencoder((8, 8, 1), (32,), 2)
    >>> model["encoder"].names
    ('flatten', 'linear1', 'relu1', 'linear2')

    References: Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, 2006; Vincent,
    Larochelle, Bengio and Manzagol, Extracting and composing robust features with denoising autoencoders, 2008.
    """
    d = math.prod(input)
    encoder = mlp((d, *widths, latent), activation)
    decoder = mlp((latent, *reversed(widths), d), activation)
    return nn.Chain(
        **_corruption(mask, noise),
        encoder=nn.Chain(flatten=nn.Flatten(len(input)), **encoder.children()),
        decoder=nn.Chain(**decoder.children(), reshape=nn.Reshape(tuple(input))),
    )


def conv_autoencoder(
    input: Shape = (28, 28, 1),
    channels: Sequence[int] = (32, 64),
    latent: int = 32,
    *,
    activation: str = "relu",
    mask: float = 0.0,
    noise: float = 0.0,
) -> nn.Chain:
    """An `autoencoder` of convolutions of stride 2, and transposed ones: `[B, *input]` in and out.

    Args:
      input: `(height, width, channels)`, height and width multiples of 2^len(channels).
      channels: those of the encoder's convolutions, each of which halves the picture.
      latent, activation, mask, noise: as in `autoencoder`.

    >>> model = conv_autoencoder((8, 8, 1), (4,), 2)
    >>> model["decoder"].names
    ('linear1', 'reshape', 'relu0', 'conv1')

    Raises:
      ValueError: the picture cannot be halved so often.
    """
    height, width, c_in = input
    times = 2 ** len(channels)
    if height % times or width % times:
        raise ValueError(f"conv_autoencoder halves the picture {len(channels)} times: expected multiples of {times}, "
                         f"got {height} x {width}")  # fmt: skip
    weights = hidden_weights(activation)
    encoder: dict[str, nn.Layer[Any, Any]] = {}
    for i, (a, b) in enumerate(zip((c_in, *channels), channels, strict=False), 1):
        encoder[f"conv{i}"] = nn.Conv(a, b, 3, stride=2, padding=1, w_init=weights)
        encoder[f"{activation}{i}"] = activation_layer(activation)
    small = (height // times, width // times, channels[-1])
    encoder |= {"flatten": nn.Flatten(), "linear1": nn.Linear(math.prod(small), latent)}
    decoder: dict[str, nn.Layer[Any, Any]] = {
        "linear1": nn.Linear(latent, math.prod(small), w_init=weights), "reshape": nn.Reshape(small),
        f"{activation}0": activation_layer(activation),
    }  # fmt: skip
    back = (*reversed(channels), c_in)
    for i, (a, b) in enumerate(itertools.pairwise(back), 1):
        decoder[f"conv{i}"] = nn.ConvTranspose(a, b, 3, stride=2, padding="SAME")
        if i < len(channels):
            decoder[f"{activation}{i}"] = activation_layer(activation)
    return nn.Chain(**_corruption(mask, noise), encoder=nn.Chain(**encoder), decoder=nn.Chain(**decoder))


def vae(
    input: Shape = (28, 28, 1), widths: Sequence[int] = (512, 256), latent: int = 20, *, activation: str = "relu"
) -> VAE:
    """A variational autoencoder of two multilayer perceptrons (`VAE`): `[B, *input]` in, a `VAEOutputs`.

    Args: as in `autoencoder`. With latent=2 the whole space of codes can be drawn.

    >>> vae((8, 8, 1), (32,), 2).latent
    2
    """
    d = math.prod(input)
    encoder = mlp((d, *widths, 2 * latent), activation)
    decoder = mlp((latent, *reversed(widths), d), activation)
    return VAE(
        nn.Chain(flatten=nn.Flatten(len(input)), **encoder.children()),
        nn.Chain(**decoder.children(), reshape=nn.Reshape(tuple(input))),
        latent,
    )
