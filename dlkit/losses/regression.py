"""Losses of residuals: squared, absolute, Huber, log-cosh."""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from dlkit.losses.arrays import Scalar, is_number, matched, own_axes, per_example

__all__ = ["huber", "l2_loss", "log_cosh", "mae", "mse", "smooth_l1"]


def mse(outputs: Float[ArrayLike, "..."], targets: ArrayLike, *, batch_axes: int = 1) -> Float[Array, "..."]:
    r"""Mean squared error, the **mean** over an example's D elements: :math:`\ell = \frac1D \sum_d (\hat y_d - y_d)^2`.

    >>> mse(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.5], dtype=float32)

    Args:
      outputs: `[B, ...]`.
      targets: the same shape.
      batch_axes: how many leading axes count examples: 2 gives one loss a token, `outputs.ndim` one an element, 0
        one in all (inside `jax.vmap`).

    Returns: `[B]`.

    Raises:
      ValueError: the shapes differ (nothing is broadcast, so `[B, 1]` beside `[B]` is an error).

    No factor 1/2: that is `l2_loss`. torch `MSELoss` and Keras `MeanSquaredError` are the mean of this over the batch;
    optax `squared_error` is the square of each element.
    """
    outputs, targets = matched("mse", outputs, targets)
    return per_example(jnp.square(outputs - targets), batch_axes)


def l2_loss(outputs: Float[ArrayLike, "..."], targets: ArrayLike, *, batch_axes: int = 1) -> Float[Array, "..."]:
    r"""Half the squared residual, **summed** over an example's elements: :math:`\ell = \frac12 \|\hat y - y\|^2`.

    Its gradient with respect to the outputs is the residual itself.

    >>> l2_loss(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]))
    Array([2.5], dtype=float32)

    Args:
      outputs: `[B, ...]`.
      targets: the same shape.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`.

    Raises:
      ValueError: the shapes differ.

    optax `l2_loss` is half the square of each element, not summed. torch and Keras have no factor 1/2 anywhere, so for
    one output a learning rate tuned with `MSELoss` is half as large as one tuned with this.
    """
    outputs, targets = matched("l2_loss", outputs, targets)
    half = 0.5 * jnp.square(outputs - targets)
    return jnp.sum(half, axis=own_axes(batch_axes, half.ndim))


def mae(outputs: Float[ArrayLike, "..."], targets: ArrayLike, *, batch_axes: int = 1) -> Float[Array, "..."]:
    r"""Mean absolute error, the **mean** over an example's D elements: :math:`\ell = \frac1D \sum_d |\hat y_d - y_d|`.

    >>> mae(jnp.array([[1.0, -2.0]]), jnp.array([[0.0, 0.0]]))
    Array([1.5], dtype=float32)

    Args:
      outputs: `[B, ...]`.
      targets: the same shape.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`. The gradient of a residual of exactly 0 is 0.

    Raises:
      ValueError: the shapes differ.

    torch: `L1Loss`; Keras: `MeanAbsoluteError`.
    """
    outputs, targets = matched("mae", outputs, targets)
    return per_example(jnp.abs(outputs - targets), batch_axes)


def _huber(residual: Array, delta: Scalar) -> Array:
    size = jnp.abs(residual)
    return jnp.where(size <= delta, 0.5 * jnp.square(residual), delta * (size - 0.5 * delta))


def huber(
    outputs: Float[ArrayLike, "..."], targets: ArrayLike, *, delta: Scalar = 1.0, batch_axes: int = 1
) -> Float[Array, "..."]:
    r"""Squared near zero, linear beyond delta; with :math:`r = \hat y - y`, the **mean** over an example's elements of

    .. math:: \ell = \tfrac12 r^2 \ \text{ if } |r| \le \delta, \quad \delta (|r| - \tfrac12 \delta) \ \text{ otherwise}

    >>> huber(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0]), delta=1.0)
    Array([0.125, 2.5  ], dtype=float32)

    Args:
      outputs: `[B, ...]`.
      targets: the same shape.
      delta: where the square ends, above 0.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`.

    Raises:
      ValueError: the shapes differ.

    torch `HuberLoss`, optax `huber_loss` and Keras `Huber` are the same per element; torch's `SmoothL1Loss` is this
    divided by delta (`smooth_l1`).

    Reference: Huber, Robust Estimation of a Location Parameter, 1964.
    """
    outputs, targets = matched("huber", outputs, targets)
    return per_example(_huber(outputs - targets, delta), batch_axes)


def smooth_l1(
    outputs: Float[ArrayLike, "..."], targets: ArrayLike, *, beta: Scalar = 1.0, batch_axes: int = 1
) -> Float[Array, "..."]:
    r"""Huber's loss divided by its threshold, so that the slope far out is 1; :math:`r = \hat y - y`:

    .. math:: \ell = \tfrac12 r^2 / \beta \ \text{ if } |r| \le \beta, \quad |r| - \tfrac12 \beta \ \text{ otherwise}

    >>> smooth_l1(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0]), beta=2.0)
    Array([0.0625, 2.    ], dtype=float32)

    Args:
      outputs: `[B, ...]`.
      targets: the same shape.
      beta: where the square ends; the number 0 gives `mae`.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`, the **mean** over an example's elements.

    Raises:
      ValueError: the shapes differ.

    torch: `SmoothL1Loss(beta=...)`, the same. optax and Keras have only Huber.

    Reference: Girshick, Fast R-CNN, 2015.
    """
    if is_number(beta) and beta == 0:
        return mae(outputs, targets, batch_axes=batch_axes)
    outputs, targets = matched("smooth_l1", outputs, targets)
    return per_example(_huber(outputs - targets, beta) / beta, batch_axes)


def log_cosh(outputs: Float[ArrayLike, "..."], targets: ArrayLike, *, batch_axes: int = 1) -> Float[Array, "..."]:
    r"""The logarithm of the hyperbolic cosine of the residual, the **mean** of :math:`\log\cosh(\hat y_d - y_d)`.

    About :math:`r^2/2` near zero and :math:`|r| - \log 2` far out, smooth everywhere; its gradient is tanh.

    >>> [round(float(loss), 3) for loss in log_cosh(jnp.array([1.0, -1e4]), jnp.array([0.0, 0.0]))]
    [0.434, 9999.307]

    Args:
      outputs: `[B, ...]`.
      targets: the same shape.
      batch_axes: how many leading axes count examples.

    Returns: `[B]`.

    Raises:
      ValueError: the shapes differ.

    optax `log_cosh` is the same per element, Keras `LogCosh` its mean; torch has none.
    """
    outputs, targets = matched("log_cosh", outputs, targets)
    size = jnp.abs(outputs - targets)
    # |r| + log1p(exp(-2|r|)) - log 2 cancels near zero, where log1p(2 sinh(r/2)^2) is exact.
    near = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.minimum(size, 1))))
    far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return per_example(jnp.where(size < 1, near, far), batch_axes)
