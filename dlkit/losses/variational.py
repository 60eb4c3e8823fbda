"""The variational bound of an autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.batches import as_float, check_same_shape
from dlkit.losses.arrays import Scalar

__all__ = ["gaussian_kl", "negative_elbo", "simple_diffusion"]


def gaussian_kl(mean: Float[ArrayLike, "*batch d"], log_var: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch"]:
    r"""The Kullback-Leibler divergence of a diagonal Gaussian from the standard one, in nats: `[...]`.

    .. math:: \mathrm{KL}(N(\mu, \mathrm{diag}\, v) \,\|\, N(0, I)) = \tfrac12 \sum_j (\mu_j^2 + v_j - \log v_j - 1)

    Args: `mean` and `log_var`, log v, of one shape `[..., d]`.

    >>> gaussian_kl(jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2)))
    Array([0.5], dtype=float32)

    Raises:
      ValueError: the shapes differ. TypeError: not floating point.
    """
    mean, log_var = as_float(mean, "mean"), as_float(log_var, "log_var")
    check_same_shape("gaussian_kl (mean, log_var)", mean, log_var)
    # expm1: near 0, e^v - 1 - v would cancel.
    return 0.5 * jnp.sum(jnp.square(mean) + (jnp.expm1(log_var) - log_var), axis=-1)


def negative_elbo(outputs: Any, targets: ArrayLike, *, beta: Scalar = 1.0) -> Float[Array, "B"]:
    r"""The negative evidence lower bound of a variational autoencoder with Bernoulli pixels, in nats: `[B]`.

    .. math:: \ell = -\sum_i \big(x_i \log p_i + (1 - x_i) \log (1 - p_i)\big)
        + \beta\, \mathrm{KL}(q(z \mid x) \,\|\, N(0, I)), \qquad p = \sigma(\text{logits})

    The **sum** over pixels, not their mean, as only then are both terms on one scale. Grey values in [0, 1] are taken
    as probabilities, as is usual, though a Bernoulli has none. `beta` above 1 is a beta-VAE.

    Args:
      outputs: what has `logits` `[B, ...]`, `mean` and `log_var` `[B, d]`: `models.VAEOutputs`.
      targets: x in [0, 1], shaped as the logits.

    >>> from collections import namedtuple
    >>> outputs = namedtuple("Outputs", "logits mean log_var")(jnp.zeros((1, 2)), jnp.zeros((1, 3)), jnp.zeros((1, 3)))
    >>> negative_elbo(outputs, jnp.ones((1, 2))).round(4)      # 2 log 2
    Array([1.3863], dtype=float32)

    Raises:
      ValueError: shapes that differ. TypeError: not floating point.

    References: Kingma and Welling, Auto-encoding variational Bayes, 2013, arXiv:1312.6114; Higgins et al., beta-VAE,
    2017.
    """
    logits, x = as_float(outputs.logits, "logits"), as_float(targets, "targets")
    check_same_shape("negative_elbo", logits, x)
    pixels = jax.nn.softplus(logits) - x.astype(logits.dtype) * logits
    pixels = jnp.sum(pixels, axis=tuple(range(1, pixels.ndim)))
    return pixels + beta * gaussian_kl(outputs.mean, outputs.log_var)


def simple_diffusion(outputs: Any, targets: ArrayLike) -> Float[Array, "B"]:
    r"""The simple loss of a denoising diffusion model: the mean squared error of the noise it predicts, `[B]`.

    .. math:: \ell = \frac1d \sum_j (\varepsilon_j - \hat\varepsilon_j)^2

    The variational bound without its weights, which would make much of the times with little noise. A model that knows
    nothing predicts 0 and has the loss 1.

    Args:
      outputs: what has `predicted` and `noise`, both `[B, ...]`: `models.DiffusionOutputs`.
      targets: not looked at: what is to be predicted was drawn with the outputs.

    >>> from collections import namedtuple
    >>> outputs = namedtuple("Outputs", "predicted noise")(jnp.zeros((1, 2)), jnp.array([[1.0, 2.0]]))
    >>> simple_diffusion(outputs, jnp.zeros((1, 2)))
    Array([2.5], dtype=float32)

    Raises:
      ValueError: shapes that differ. TypeError: not floating point.

    Reference: Ho, Jain and Abbeel, Denoising diffusion probabilistic models, 2020, arXiv:2006.11239, equation 14.
    """
    predicted, noise = as_float(outputs.predicted, "predicted"), as_float(outputs.noise, "noise")
    check_same_shape("simple_diffusion", predicted, noise)
    return jnp.mean(jnp.square(predicted - noise), axis=tuple(range(1, noise.ndim)))
