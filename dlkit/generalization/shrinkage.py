"""Least squares in closed form: gradient descent that is stopped, weight decay, and how alike they are."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = [
    "Risk",
    "decay_factors",
    "descent_path",
    "fixed_design_risk",
    "ridge",
    "stopping_decay_gap",
    "stopping_factors",
]


def stopping_factors(eigenvalues: Float[Array, "*n"], rate: float, steps: Any) -> Float[Array, "..."]:
    r"""The share 1 - (1 - rate eigenvalue)^steps of the way to the minimum that gradient descent from 0 has gone.

    On a quadratic loss, by eigen-direction of its Hessian: after t steps the coefficient is this share of that at the
    minimum.

    Args:
      eigenvalues: of the Hessian. rate: the learning rate. steps: a number, or `[T]` for a result `[T, n]`.

    >>> stopping_factors(jnp.array([1.0, 0.5]), 0.5, 2)
    Array([0.75  , 0.4375], dtype=float32)
    """
    eigenvalues, steps = jnp.asarray(eigenvalues), jnp.asarray(steps)
    left = (1 - rate * eigenvalues).reshape((1,) * steps.ndim + eigenvalues.shape)
    steps = steps.astype(left.dtype).reshape(steps.shape + (1,) * eigenvalues.ndim)
    # A factor below 0 alternates: its sign is that of an odd or even number of steps.
    sign = jnp.where((left < 0) & (steps % 2 == 1), -1, 1).astype(left.dtype)
    return 1 - sign * jnp.abs(left) ** steps


def decay_factors(eigenvalues: Float[Array, "*n"], strength: Any) -> Float[Array, "..."]:
    r"""The share eigenvalue / (eigenvalue + strength) of the way to the minimum at which weight decay ends.

    With `strength / 2 |w|^2` added to a quadratic loss, by eigen-direction of its Hessian. 0 / 0 counts as 0: along
    what the loss does not feel nothing is learned.

    Args:
      eigenvalues: of the Hessian, not negative. strength: a number, or `[T]` for a result `[T, n]`.

    >>> decay_factors(jnp.array([1.0, 3.0]), 1.0)
    Array([0.5 , 0.75], dtype=float32)
    """
    eigenvalues = jnp.asarray(eigenvalues)
    strength = jnp.asarray(strength, eigenvalues.dtype)
    eigenvalues = eigenvalues.reshape((1,) * strength.ndim + eigenvalues.shape)
    total = eigenvalues + strength.reshape(strength.shape + (1,) * (eigenvalues.ndim - strength.ndim))
    return jnp.where(total > 0, eigenvalues / jnp.where(total > 0, total, 1), 0)


def stopping_decay_gap() -> tuple[float, float]:
    """The most by which stopping after t small steps and a decay of 1 / (rate t) differ, and where: (0.2036, 2.5129).

    With s = rate eigenvalue t the shares are 1 - e^-s and s / (1 + s). Their difference is largest where
    s = 2 ln(1 + s), and is s / (1 + s)^2 there. Large steps, for which (1 - s/t)^t is not yet e^-s, differ by more.

    >>> [round(value, 4) for value in stopping_decay_gap()]
    [0.2036, 2.5129]

    Reference: Ali, Kolter and Tibshirani, "A continuous-time view of early stopping for least squares", 2019, who bound
    the risk of stopping by 1.69 times that of ridge regression.
    """
    s = 2.0
    for _ in range(100):
        s = 2 * float(np.log1p(s))
    return s / (1 + s) ** 2, s


def ridge(x: Float[Array, "n p"], y: Float[Array, "n *outputs"], strength: Any = 0.0) -> Float[Array, "p *outputs"]:
    r"""The minimum of :math:`\|X w - y\|^2 / 2n + \lambda \|w\|^2 / 2`, the one of least norm where there are several.

    By the singular values of X, so that a strength of 0 gives the pseudo-inverse: the least-norm solution where there
    are several, which is where gradient descent from 0 ends. Singular values below `max(n, p) eps` of the largest count
    as 0, and so columns or rows of zeros change nothing. It may be batched with `vmap`, the strength too.

    Args:
      x: features. y: targets, one or several outputs. strength: lambda, as an optimizer's `weight_decay` for the
        loss |Xw - y|^2 / 2n.

    Differences. scikit-learn `Ridge(alpha=n strength, fit_intercept=False)`: equal.

    >>> ridge(jnp.array([[1.0, 1.0]]), jnp.array([2.0])).round(4)
    Array([1., 1.], dtype=float32)
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    n = x.shape[0]
    floor = max(x.shape) * jnp.finfo(x.dtype).eps * jnp.max(s, initial=0)
    kept = jnp.where(s > floor, s, 1)
    factors = jnp.where(s > floor, kept / (kept**2 + n * jnp.asarray(strength, x.dtype)), 0)
    shares = factors.reshape(-1, *(1,) * (y.ndim - 1)) * jnp.tensordot(u.T, y, 1)
    return jnp.tensordot(vt.T, shares, 1)


def descent_path(x: Float[Array, "n p"], y: Float[Array, "n"], rate: float, steps: Any) -> Float[Array, "..."]:
    r"""Where gradient descent from 0 on :math:`\frac{1}{2n}\|X w - y\|^2` is after so many steps, without making them.

    Along each singular direction the least-norm solution times `stopping_factors`, so that a million steps cost as
    much as one.

    Args:
      x: features. y: targets. rate: the learning rate; above 2 over the largest eigenvalue of X^T X / n it diverges.
      steps: a number, or `[T]` for a path `[T, p]`.

    >>> descent_path(jnp.array([[1.0], [1.0]]), jnp.array([1.0, 1.0]), 0.5, jnp.array([0, 1, 2]))[:, 0]
    Array([0.  , 0.5 , 0.75], dtype=float32)
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    floor = max(x.shape) * jnp.finfo(x.dtype).eps * jnp.max(s, initial=0)
    inverse = jnp.where(s > floor, 1 / jnp.where(s > floor, s, 1), 0)
    factors = stopping_factors(s**2 / x.shape[0], rate, steps)
    return (factors * (inverse * (u.T @ y)).reshape((1,) * (factors.ndim - 1) + (-1,))) @ vt


class Risk(NamedTuple):
    """The expected excess error of a linear estimator, `[...]`: `total` is `bias + variance`."""

    bias: Float[Array, "..."]
    variance: Float[Array, "..."]

    @property
    def total(self) -> Float[Array, "..."]:
        return self.bias + self.variance


def fixed_design_risk(
    factors: Float[Array, "*T n"],
    eigenvalues: Float[Array, "n"],
    coefficients: Float[Array, "n"],
    noise: float,
    samples: int,
) -> Risk:
    r"""The expected squared error, at the training inputs, of least squares whose directions are shrunk.

    .. math:: \text{bias} = \sum_i \lambda_i w_i^2 (1 - f_i)^2, \qquad
              \text{variance} = \frac{\sigma^2}{n} \sum_{i: \lambda_i > 0} f_i^2

    beside :math:`\sigma^2`, which no estimator escapes. One formula for `stopping_factors` and `decay_factors`.

    Directions with other eigenvalues are learned at other times, and each may be learned too well: then the sum falls,
    rises and falls again along the steps. That is double descent in epochs, without any network.

    Args:
      factors: f, `[n]` or `[T, n]`. eigenvalues: of X^T X / n. coefficients: of the truth in the same directions.
      noise: the variance of the labels' noise. samples: how many there are.

    >>> found = fixed_design_risk(jnp.ones(4), jnp.ones(4), jnp.ones(4), noise=2.0, samples=8)
    >>> float(found.bias), float(found.variance)  # unbiased, and the noise times parameters per sample
    (0.0, 1.0)

    Reference: Heckel and Yilmaz, "Early stopping in deep networks: double descent and how to eliminate it", 2021,
    section 2.
    """
    factors, eigenvalues = jnp.asarray(factors), jnp.asarray(eigenvalues)
    signal = (eigenvalues * jnp.asarray(coefficients) ** 2).reshape((1,) * (factors.ndim - 1) + (-1,))
    felt = (eigenvalues > 0).reshape(signal.shape)
    return Risk(
        jnp.sum(signal * (1 - factors) ** 2, axis=-1),
        noise / samples * jnp.sum(jnp.where(felt, factors**2, 0), axis=-1),
    )
