"""Expected error = noise + bias + variance, over models that learned from other samples."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["BiasVariance", "bias_variance"]


class BiasVariance(NamedTuple):
    """The expected error and its parts, `[N]`, one an example: `error = bias + variance`, exactly."""

    error: Float[Array, "..."]
    bias: Float[Array, "..."]
    variance: Float[Array, "..."]

    def mean(self) -> "BiasVariance":
        """Averaged over the examples: three numbers."""
        return BiasVariance(*(jnp.mean(part) for part in self))


def bias_variance(
    predictions: Float[Array, "members examples *outputs"],
    targets: Float[Array, "examples *outputs"],
    *,
    kind: Literal["squared", "kl"] = "squared",
) -> BiasVariance:
    r"""How much of the expected error is the average model's, and how much is that models differ.

    With f the prediction of a model that was trained on one random sample, and expectations over the K of them:

    .. math::
        \text{squared:}\quad E(f - y)^2 = (\bar f - y)^2 + E(f - \bar f)^2, \qquad \bar f = E f

        \text{kl:}\quad E\,D(\pi \| f) = D(\pi \| \bar f) + E\,D(\bar f \| f), \qquad \bar f \propto \exp E \log f

    The bias is what is wrong with the class of models and the way they are trained (the modelling error), the variance
    what comes of having one finite sample (the estimation error). Both are exact for the K models at hand; as estimates
    of what infinitely many would give, the variance is a factor (K - 1)/K low and the bias takes up the rest.

    Where the targets are noisy, the noise is a part of the bias: give noiseless ones where they are known, and add the
    variance of the noise to the error.

    Args:
      predictions: of K models on N examples, `[K, N]` or `[K, N, C]`; for "kl" log-probabilities over the last axis.
      targets: `[N]` or `[N, C]`; for "kl" probabilities, such as one-hot labels.
      kind: what the error is. Outputs `[C]` of "squared" are summed over.

    >>> found = bias_variance(jnp.array([[1.0], [3.0]]), jnp.array([0.0]))
    >>> [float(part[0]) for part in found]
    [5.0, 4.0, 1.0]

    Raises:
      ValueError: shapes that do not fit, or an unknown `kind`.

    References: Geman, Bienenstock and Doursat, "Neural networks and the bias/variance dilemma", 1992; for "kl" Heskes
    1998, and Yang et al., "Rethinking bias-variance trade-off for generalization of neural networks", 2020.
    """
    f, y = jnp.asarray(predictions), jnp.asarray(targets)
    if f.ndim < 2 or f.shape[1:] != y.shape:
        raise ValueError(f"predictions must be [K, *targets.shape], got {f.shape} and targets {y.shape}")
    if kind == "squared":
        mean = jnp.mean(f, axis=0)
        parts = (jnp.mean((f - y[None]) ** 2, axis=0), (mean - y) ** 2, jnp.mean((f - mean[None]) ** 2, axis=0))
        return BiasVariance(*(jnp.sum(part, axis=tuple(range(1, part.ndim))) for part in parts))
    if kind != "kl":
        raise ValueError(f"kind must be 'squared' or 'kl', got {kind!r}")
    if f.ndim < 3:
        raise ValueError(f"kind='kl' wants log-probabilities [K, N, C], got {f.shape}")
    f = jax.nn.log_softmax(f)  # log-probabilities stay as they are, logits become some
    mean = jax.nn.log_softmax(jnp.mean(f, axis=0))

    def divergence(p: Array, log_q: Array) -> Array:
        return jnp.sum(jax.scipy.special.xlogy(p, p) - p * log_q, axis=-1)

    p = jnp.exp(mean)[None]
    return BiasVariance(
        jnp.mean(divergence(y[None], f), axis=0), divergence(y, mean), jnp.mean(divergence(p, f), axis=0)
    )
