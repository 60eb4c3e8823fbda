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

from dlkit.batches import as_float
from dlkit.losses.arrays import Scalar, is_number
from dlkit.tree import WEIGHTS, flatten, match_weights

__all__ = ["WEIGHTS", "Penalty", "elastic_net", "l1", "l2"]


def _is_zero(strength: Scalar) -> bool:
    return is_number(strength) and bool(strength == 0)


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
      over: a glob or several, each of which must match a leaf. The default, `WEIGHTS` (`**/w` and `**/table`: no bias,
        scale or shift), is content if one of its two does.

    Raises:
      ValueError: `over` is empty.
    """

    l1: Scalar = 0.0
    l2: Scalar = 0.0
    over: str | Sequence[str] = WEIGHTS

    def __post_init__(self):
        if not isinstance(self.over, str):
            object.__setattr__(self, "over", tuple(self.over))
        if not self.over:
            raise ValueError(
                "over: got no glob, so the penalty would cover nothing; for no penalty leave it out, "
                'for every parameter write over="**"'
            )

    def __call__(self, params: Any) -> Float[Array, ""]:
        """The penalty of `params`, a scalar in the widest dtype of the leaves it covers, float32 at least.

        Raises:
          ValueError: a glob matches no leaf.
          TypeError: a leaf is not floating point.
        """
        hits = flatten(match_weights(params, self.over))
        chosen = {path: as_float(leaf, f"parameter {path!r}") for path, leaf in flatten(params).items() if hits[path]}
        # Not a plain zeros(()): under x64 that is float64, whatever the parameters are.
        dtype = max((leaf.dtype for leaf in chosen.values()), key=lambda dtype: dtype.itemsize)
        value = jnp.zeros((), dtype)
        for leaf in chosen.values():
            if not _is_zero(self.l1):
                value = value + jnp.asarray(self.l1).astype(dtype) * jnp.sum(jnp.abs(leaf)).astype(dtype)
            if not _is_zero(self.l2):
                value = value + jnp.asarray(self.l2).astype(dtype) * jnp.sum(jnp.square(leaf)).astype(dtype)
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

    Keras `L2(strength)` is the same. Coupled decay, torch's `weight_decay=d` in SGD and Adam and the `l2=d` of
    `dlkit.optim`'s recipes, adds d W to the gradient: that is `l2(d / 2)` here, half the number. The decoupled decay of
    AdamW is another thing.

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
