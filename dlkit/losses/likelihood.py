"""Negative log-likelihoods of counts and of real values whose variance is predicted too."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.batches import as_float
from dlkit.losses.arrays import Scalar, matched, per_example

__all__ = ["gaussian_nll", "poisson_nll"]


def poisson_nll(
    log_rate: Float[ArrayLike, "..."],
    targets: ArrayLike,
    *,
    full: bool = False,
    log_input: bool = True,
    eps: Scalar = 1e-8,
    batch_axes: int = 1,
) -> Float[Array, "..."]:
    r"""Negative log-likelihood of counts k under a Poisson distribution whose log-rate is predicted.

    .. math:: \ell = e^{\eta} - k\, \eta \ \ [+ \log k!], \qquad \eta = \log \lambda

    >>> poisson_nll(jnp.array([0.0]), jnp.array([2]))
    Array([1.], dtype=float32)

    Args:
      log_rate: `[B, ...]`; the rate itself if `log_input` is False: :math:`\lambda - k \log(\lambda + \epsilon)`.
      targets: counts, the same shape.
      full: add log k!, so that the loss is the negative log-probability.
      log_input: the outputs are logs of rates.
      eps: added to the rate inside the logarithm, only if `log_input` is False.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    torch `PoissonNLLLoss` is the same, save that its `full` uses Stirling's approximation (and nothing for k of 0 and
    1) where this uses log k! itself: 0.65 against 0.69 at k = 2. Keras `Poisson` takes rates, with eps 1e-7. optax has
    none.
    """
    outputs, targets = matched("poisson_nll", log_rate, targets)
    loss = jnp.exp(outputs) - targets * outputs if log_input else outputs - targets * jnp.log(outputs + eps)
    if full:
        loss = loss + jax.scipy.special.gammaln(targets + 1)
    return per_example(loss, batch_axes)


def gaussian_nll(
    mean: Float[ArrayLike, "..."],
    targets: ArrayLike,
    variance: Float[ArrayLike, "..."],
    *,
    full: bool = False,
    eps: Scalar = 1e-6,
    batch_axes: int = 1,
) -> Float[Array, "..."]:
    r"""Negative log-likelihood under a Gaussian with predicted mean and variance.

    .. math:: \ell = \tfrac12 \left(\log v + \frac{(y - \mu)^2}{v}\right) \ [+ \tfrac12 \log 2\pi], \qquad
       v = \max(\text{variance}, \epsilon)

    >>> round(float(gaussian_nll(jnp.array([1.0]), jnp.array([3.0]), jnp.array([2.0]))[0]), 4)
    1.3466

    Args:
      mean: `[B, ...]`.
      targets: the same shape.
      variance: the same shape, positive (softplus or exp of an output).
      full: add log(2 pi) / 2, so that the loss is the negative log-density.
      eps: the least variance.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    torch `GaussianNLLLoss` is the same where variance > eps; below it torch lets the gradient through to the variance,
    here it is 0. torch raises for a negative variance. optax and Keras have none.

    Reference: Nix and Weigend, Estimating the Mean and Variance of the Target Probability Distribution, 1994.
    """
    mean, targets = matched("gaussian_nll", mean, targets)
    variance = as_float(variance, "variance")
    if variance.shape != mean.shape:
        raise ValueError(f"gaussian_nll: variance {list(variance.shape)} and mean {list(mean.shape)} differ in shape")
    variance = jnp.maximum(variance.astype(mean.dtype), eps)
    loss = 0.5 * (jnp.log(variance) + jnp.square(targets - mean) / variance)
    return per_example(loss + 0.5 * math.log(2 * math.pi) if full else loss, batch_axes)
