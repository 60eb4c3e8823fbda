"""Penalties on parameters: L1, L2 and the elastic net, over path globs.

    penalty = l2(1e-4, over="**/w")
    loss = weighted_mean(cross_entropy(logits, y), weight) + penalty(params)

A penalty is a value: it compares, hashes and prints, so it can be part of a config.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.losses.arrays import Scalar, as_float
from dlkit.tree import select

__all__ = ["WEIGHTS", "Penalty", "elastic_net", "l1", "l2"]

WEIGHTS = ("**/w", "**/table")
"""The default of `over`: weights of affine maps and embedding tables, so no bias, scale or shift."""


def _is_zero(strength: Scalar) -> bool:
    return isinstance(strength, (int, float)) and strength == 0


@dataclass(frozen=True)
class Penalty:
    r"""A penalty on the leaves whose paths match: :math:`R(W) = \lambda_1 \sum |W| + \lambda_2 \sum W^2`.

    Made by `l1`, `l2` and `elastic_net`.

    >>> params = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([5.0])}
    >>> float(Penalty(l1=0.5, l2=2.0)(params))
    11.5

    Args:
      l1: the factor of the absolute values.
      l2: the factor of the squares (no 1/2).
      over: a glob or several, each of which must match a leaf. The default, `WEIGHTS`, is content if one of its two
        does.
    """

    l1: Scalar = 0.0
    l2: Scalar = 0.0
    over: str | Sequence[str] = WEIGHTS

    def __post_init__(self):
        if not isinstance(self.over, str):
            object.__setattr__(self, "over", tuple(self.over))

    def __call__(self, params: Any) -> Float[Array, ""]:
        """The penalty of `params`, a scalar in float32 at least.

        Raises:
          ValueError: a glob matches no leaf.
        """
        chosen = select(params, self.over, required=self.over != WEIGHTS) or select(params, WEIGHTS)
        value = jnp.zeros(())
        for path, leaf in chosen.items():
            leaf = as_float(jnp.asarray(leaf), f"parameter {path!r}")
            value = value.astype(leaf.dtype) if value.dtype.itemsize < leaf.dtype.itemsize else value
            if not _is_zero(self.l1):
                value = value + (self.l1 * jnp.sum(jnp.abs(leaf))).astype(value.dtype)
            if not _is_zero(self.l2):
                value = value + (self.l2 * jnp.sum(jnp.square(leaf))).astype(value.dtype)
        return value


def l1(strength: Scalar, over: str | Sequence[str] = WEIGHTS) -> Penalty:
    r"""The lasso: :math:`R(W) = \lambda \sum |W|`, with gradient :math:`\lambda\, \mathrm{sign}\, W` (0 at 0).

    >>> float(l1(0.5)({"w": jnp.array([1.0, -2.0])}))
    1.5

    Gradient descent on it makes weights small but not exactly 0; the proximal step (soft thresholding) does. Keras:
    `L1(strength)`. For the form with lambda / 2, give half the strength.

    Reference: Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.
    """
    return Penalty(l1=strength, over=over)


def l2(strength: Scalar, over: str | Sequence[str] = WEIGHTS) -> Penalty:
    r"""Ridge: :math:`R(W) = \lambda \sum W^2`, with gradient :math:`2 \lambda W`. There is no factor 1/2.

    >>> float(l2(0.5)({"w": jnp.array([1.0, -2.0])}))
    2.5

    Keras `L2(strength)` is the same. torch's `weight_decay=d` adds d W to the gradient, which is `l2(d / 2)`; and with
    Adam neither is the decoupled decay of AdamW.

    Reference: Hoerl and Kennard, Ridge Regression, 1970.
    """
    return Penalty(l2=strength, over=over)


def elastic_net(strength: Scalar, beta: Scalar, over: str | Sequence[str] = WEIGHTS) -> Penalty:
    r"""Both at once: :math:`R(W) = \lambda \sum (\beta W^2 + |W|)`.

    >>> float(elastic_net(0.5, beta=2.0)({"w": jnp.array([1.0, -2.0])}))
    6.5

    With :math:`\beta = 0` it is `l1`. Keras: `L1L2(l1=strength, l2=strength * beta)`. scikit-learn's `ElasticNet(alpha,
    l1_ratio)` is :math:`\lambda = \alpha\rho,\ \beta = (1 - \rho) / (2 \rho)`.

    Reference: Zou and Hastie, Regularization and Variable Selection via the Elastic Net, 2005.
    """
    return Penalty(l1=strength, l2=strength * beta, over=over)
