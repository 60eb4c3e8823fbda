"""Keras's Lamb and Adafactor: steps in proportion to the size of an array."""

import jax.numpy as jnp  # noqa: F401  (the doctests)

from dlkit.optim.hyper import Scalar, ScalarOrSchedule
from dlkit.optim.keras.base import base
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.rules.trust_ratio import scale_by_trust_ratio
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.torch.factored import FactoredRms
from dlkit.optim.transform import Chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["adafactor", "lamb"]


def lamb(
    learning_rate: ScalarOrSchedule = 0.001,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Lamb: Adam's direction, array by array as long as the parameters are.

        d = mu_hat / (sqrt(nu_hat) + epsilon)           as in `optim.adam`
        p = p - learning_rate |p| / |d| d               where both lengths are above 0; else p - learning_rate d

    The weight decay comes before this, so it is no part of d: unlike in the paper and in optax's `lamb`.

    Args:
      learning_rate: a number, or a schedule.
      beta_1: the weight of the old average of gradients.
      beta_2: the weight of the old average of squared gradients.
      epsilon: stands outside of the corrected root.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Reference: You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = lamb(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.101
    3.373
    2.782

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("lamb", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    rate = scale_by_learning_rate(learning_rate)
    return shared.before(scale_by_adam(beta_1, beta_2, epsilon), scale_by_trust_ratio(), rate, rate=learning_rate)


def adafactor(
    learning_rate: ScalarOrSchedule = 0.001,
    beta_2_decay: Scalar = -0.8,
    epsilon_1: Scalar = 1e-30,
    epsilon_2: Scalar = 1e-3,
    clip_threshold: Scalar = 1.0,
    relative_step: bool = True,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Adafactor: `optim.torch.adafactor` with epsilon_1 added to the squares.

        w = t^beta_2_decay                               t = 1 in the first update
        r = r + w (mean over columns of g^2 + epsilon_1 - r)         c likewise over rows
        u = g / sqrt(r c / mean(r))                      of a vector: n = n + w (g^2 + epsilon_1 - n), u = g / sqrt(n)
        p = p - max(epsilon_2, rms(p)) min(learning_rate, 1 / sqrt(t)) u / max(1, rms(u) / clip_threshold)

    Rows and columns are those of the last two axes.

    Args:
      learning_rate: the upper limit of the relative rate, or a schedule.
      beta_2_decay: the power with which new squares lose weight; 0 or less.
      epsilon_1: is added to the squares.
      epsilon_2: the least size of an array.
      clip_threshold: the root mean square above which u is shortened; 1 or more.
      relative_step: has no effect, in Keras either: the rate is limited by 1 / sqrt(t) in both cases.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Reference: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adafactor(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    1.507
    0.780
    0.458

    Raises:
      ValueError: an argument out of range, or two of the clipping arguments.
    """
    shared = base("adafactor", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    del relative_step
    step = FactoredRms(learning_rate, beta_2_decay, epsilon_1, epsilon_2, clip_threshold, eps_in_square=True)
    return shared.before(step, rate=learning_rate)
