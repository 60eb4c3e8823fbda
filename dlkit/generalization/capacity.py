"""How much a class of functions can fit: the old measure of generalization, and the new one of interpolation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["EffectiveRanks", "effective_ranks", "margin_bound", "rademacher_linear"]


def rademacher_linear(key: Any, x: Float[Array, "n d"], radius: float, *, draws: int = 1000) -> float:
    r"""The empirical Rademacher complexity of x -> w.x with |w| <= radius: how well it fits coin tosses.

    .. math:: \hat R = E_\sigma \sup_{|w| \le B} \frac1n \sum_i \sigma_i w \cdot x_i
        = \frac{B}{n} E_\sigma \Big\| \sum_i \sigma_i x_i \Big\| \le \frac{B}{n} \sqrt{\textstyle\sum_i \|x_i\|^2}

    by so many draws of the signs. It does not count parameters: `d` may be infinite.

    >>> x = jnp.eye(4)  # the norm of the sum is 2, whatever the signs
    >>> round(rademacher_linear(jax.random.key(0), x, 3.0, draws=10), 6)
    1.5

    Reference: Bartlett and Mendelson, "Rademacher and Gaussian complexities", 2002, lemma 22.
    """
    x = jnp.asarray(x)
    signs = jax.random.rademacher(key, (draws, len(x)), x.dtype)
    return radius / len(x) * float(jnp.mean(jnp.sqrt(jnp.sum((signs @ x) ** 2, axis=1))))


def margin_bound(margins: Any, complexity: float, *, margin: float, delta: float = 0.05) -> float:
    r"""A bound on the error of a two-class classifier on new examples, which holds with probability 1 - delta.

    .. math:: \frac1n \#\{i : m_i < \rho\} + \frac{2}{\rho} \hat R + 3 \sqrt{\frac{\ln(2 / \delta)}{2n}}

    Args:
      margins: `[n]` on the training set, label (-1 or 1) times score.
      complexity: the empirical Rademacher complexity of the scores, `rademacher_linear`; its radius and `margin` must
        be fixed before the sample is seen, for the bound to hold as it is.
      margin: rho.

    >>> margin_bound([2.0, 2.0, 0.5, 2.0], 0.0, margin=1.0, delta=2.0)
    0.25

    Raises:
      ValueError: `margin` not above 0, or `delta` not in (0, 2].

    Reference: Koltchinskii and Panchenko 2002; as stated in Mohri, Rostamizadeh and Talwalkar, "Foundations of machine
    learning", 2018, theorem 5.8.
    """
    if not margin > 0 or not 0 < delta <= 2:
        raise ValueError(f"margin must be above 0 and delta in (0, 2], got {margin} and {delta}")
    margins = np.asarray(margins, np.float64)
    deviation = 3 * math.sqrt(math.log(2 / delta) / (2 * margins.size))
    return float(np.mean(margins < margin)) + 2 / margin * complexity + deviation


class EffectiveRanks(NamedTuple):
    """r and R of the tail of a spectrum behind its first k eigenvalues, `[p]`, k from 0 to p - 1."""

    r: np.ndarray
    R: np.ndarray


def effective_ranks(eigenvalues: Any) -> EffectiveRanks:
    r"""In how many directions the noise of a sample can hide without harm.

    .. math:: r_k = \frac{\sum_{i>k} \lambda_i}{\lambda_{k+1}}, \qquad
              R_k = \frac{(\sum_{i>k} \lambda_i)^2}{\sum_{i>k} \lambda_i^2}

    of the covariance of the features. The least-norm fit of n noisy labels is benign where, with k the first for which
    r_k is at least about n, k is small beside n and R_k large: its variance is about sigma^2 (k / n + n / R_k).

    >>> found = effective_ranks([4.0, 1.0, 1.0])
    >>> found.r.tolist(), found.R.tolist()
    ([1.5, 2.0, 1.0], [2.0, 2.0, 1.0])

    Raises:
      ValueError: eigenvalues that are not above 0.

    Reference: Bartlett, Long, Lugosi and Tsigler, "Benign overfitting in linear regression", 2020, definition 3 and
    theorem 4.
    """
    values = np.sort(np.asarray(eigenvalues, np.float64))[::-1]
    if values.ndim != 1 or not len(values) or not values[-1] > 0:
        raise ValueError("effective_ranks wants eigenvalues [p], all above 0")
    tail, squares = (np.cumsum(v[::-1])[::-1] for v in (values, values**2))
    return EffectiveRanks(tail / values, tail**2 / squares)
