"""Losses of one score an element: binary cross-entropy, focal, logistic, hinge.

`binary_cross_entropy` and `binary_focal` take labels in {0, 1}; `logistic`, `hinge` and `squared_hinge` take labels in
{-1, +1}. Values cannot be checked inside a compiled step: a 0 given to `hinge` is a constant loss of 1, so mind which.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.losses.arrays import Scalar, matched, per_example

__all__ = ["binary_cross_entropy", "binary_focal", "hinge", "logistic", "squared_hinge"]


def binary_cross_entropy(
    logits: Float[ArrayLike, "..."], targets: ArrayLike, *, pos_weight: ArrayLike | None = None, batch_axes: int = 1
) -> Float[Array, "..."]:
    r"""Sigmoid cross-entropy with labels in [0, 1].

    .. math:: \ell = -a\, t \log \sigma(s) - (1 - t) \log \sigma(-s)

    computed from the logit :math:`s`, so it neither overflows nor loses its gradient at :math:`|s| = 10^4`;
    :math:`a` is `pos_weight`.

    >>> [round(float(loss), 4) for loss in binary_cross_entropy(jnp.array([0.0, 1e4]), jnp.array([1, 0]))]
    [0.6931, 10000.0]

    Args:
      logits: `[B, ...]`.
      targets: the same shape; booleans, integers or probabilities.
      pos_weight: the weight of the positive term: a scalar, or `[D]` for the last axis.
      batch_axes: how many leading axes count examples: 2 for one loss a token, `[B, T]`.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    torch `BCEWithLogitsLoss(pos_weight=...)` and optax `sigmoid_binary_cross_entropy` are the same per element. Keras
    `BinaryCrossentropy` reads probabilities unless `from_logits=True` and means over the last axis only.
    """
    logits, targets = matched("binary_cross_entropy", logits, targets)
    positive = targets * jax.nn.softplus(-logits)
    if pos_weight is not None:
        positive = positive * jnp.broadcast_to(jnp.asarray(pos_weight).astype(logits.dtype), logits.shape)
    return per_example(positive + (1 - targets) * jax.nn.softplus(logits), batch_axes)


def binary_focal(
    logits: Float[ArrayLike, "..."],
    targets: ArrayLike,
    *,
    gamma: Scalar = 2.0,
    alpha: Scalar | None = None,
    batch_axes: int = 1,
) -> Float[Array, "..."]:
    r"""Focal loss with one logit and labels in {0, 1}.

    .. math:: \ell = -\alpha_t (1 - p_t)^\gamma \log p_t, \qquad p_t = \sigma((2t - 1)\, s)

    with :math:`\alpha_t = \alpha` for positives and :math:`1 - \alpha` for negatives (1 for both if alpha is None).

    >>> [round(float(loss), 4) for loss in binary_focal(jnp.array([0.0, 1e4]), jnp.array([1, 1]))]
    [0.1733, 0.0]

    Args:
      logits: `[B, ...]`.
      targets: the same shape, in {0, 1}.
      gamma: the focus; 0 is binary cross-entropy.
      alpha: the weight of the positives, in [0, 1].
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    optax `sigmoid_focal_loss` is the same per element; torchvision's has alpha 0.25 by default, Keras
    `BinaryFocalCrossentropy` takes probabilities and applies its alpha only with `apply_class_balancing=True`.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    logits, targets = matched("binary_focal", logits, targets)
    signed = (2 * targets - 1) * logits
    loss = jnp.exp(-gamma * jax.nn.softplus(signed)) * jax.nn.softplus(-signed)
    if alpha is not None:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return per_example(loss, batch_axes)


def logistic(scores: Float[ArrayLike, "..."], targets: ArrayLike, *, batch_axes: int = 1) -> Float[Array, "..."]:
    r"""The loss of logistic regression with labels in {-1, +1}: :math:`\ell = \log(1 + e^{-y s})`.

    It is `binary_cross_entropy` with the labels renamed, and finite at :math:`|s| = 10^3`.

    >>> [round(float(loss), 4) for loss in logistic(jnp.array([0.0, 1e3, -1e3]), jnp.array([1, 1, 1]))]
    [0.6931, 0.0, 1000.0]

    Args:
      scores: `[B, ...]`, unbounded.
      targets: the same shape, in {-1, +1}.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    torch: `SoftMarginLoss` (which overflows to inf near y s = -90 in float32). optax:
    `sigmoid_binary_cross_entropy(s, (y + 1) / 2)`.
    """
    scores, targets = matched("logistic", scores, targets)
    return per_example(jax.nn.softplus(-targets * scores), batch_axes)


def hinge(
    scores: Float[ArrayLike, "..."], targets: ArrayLike, *, margin: Scalar = 1.0, batch_axes: int = 1
) -> Float[Array, "..."]:
    r"""Binary hinge loss with labels in {-1, +1}: :math:`\ell = \max(0,\, m - y s)`.

    >>> hinge(jnp.array([2.0, 0.5, -1.0]), jnp.array([1, 1, 1]))
    Array([0. , 0.5, 2. ], dtype=float32)

    Args:
      scores: `[B, ...]`.
      targets: the same shape, in {-1, +1}.
      margin: m.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    optax `hinge_loss` is the same per element. Keras `Hinge` turns labels {0, 1} into {-1, +1} silently. torch has no
    such loss: its `HingeEmbeddingLoss` is another function.

    Reference: Cortes and Vapnik, Support-Vector Networks, 1995.
    """
    scores, targets = matched("hinge", scores, targets)
    return per_example(jnp.maximum(margin - targets * scores, 0), batch_axes)


def squared_hinge(
    scores: Float[ArrayLike, "..."], targets: ArrayLike, *, margin: Scalar = 1.0, batch_axes: int = 1
) -> Float[Array, "..."]:
    r"""The square of the binary hinge loss, labels in {-1, +1}: :math:`\ell = \max(0,\, m - y s)^2`.

    Its gradient is continuous, which the hinge's is not.

    >>> squared_hinge(jnp.array([2.0, 0.5, -1.0]), jnp.array([1, 1, 1]))
    Array([0.  , 0.25, 4.  ], dtype=float32)

    Args:
      scores: `[B, ...]`.
      targets: the same shape, in {-1, +1}.
      margin: m.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    Keras `SquaredHinge` turns labels {0, 1} into {-1, +1} silently; torch and optax have none.

    Reference: Rosasco et al., Are Loss Functions All the Same?, 2004.
    """
    scores, targets = matched("squared_hinge", scores, targets)
    return per_example(jnp.square(jnp.maximum(margin - targets * scores, 0)), batch_axes)
