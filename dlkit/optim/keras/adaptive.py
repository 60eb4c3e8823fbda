"""Keras's Adam, AdamW, Adamax and Nadam."""

from dlkit.optim.hyper import Scalar, ScalarOrSchedule
from dlkit.optim.keras.base import base
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.rules.adamax import scale_by_adamax
from dlkit.optim.rules.amsgrad import scale_by_amsgrad
from dlkit.optim.rules.nadam import scale_by_nadam
from dlkit.optim.transform import Chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["adam", "adamax", "adamw", "nadam"]


def adam(
    learning_rate: ScalarOrSchedule = 0.001,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7,
    amsgrad: bool = False,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Adam: `optim.adam(tf_style=True)`: epsilon is added to the root of the *uncorrected* average.

        p = p - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) mu / (sqrt(nu) + epsilon)

    Args:
      learning_rate: a number, or a schedule.
      beta_1: the weight of the old average of gradients.
      beta_2: the weight of the old average of squared gradients.
      epsilon: stands outside of the uncorrected root: the epsilon-hat of the paper.
      amsgrad: whether nu is replaced by its maximum so far, taken before the correction.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`; the decay is decoupled.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adam(0.1, amsgrad=True)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.881
    3.384

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("adam", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    kind = scale_by_amsgrad if amsgrad else scale_by_adam
    return shared.after(kind(beta_1, beta_2, epsilon, tf_style=True), rate=learning_rate)


def adamw(
    learning_rate: ScalarOrSchedule = 0.001,
    weight_decay: Scalar = 0.004,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7,
    amsgrad: bool = False,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.AdamW: `adam` with a weight decay of 0.004 by default.

    Args:
      weight_decay: decoupled: p loses learning_rate weight_decay p.
      learning_rate, beta_1, beta_2, epsilon, amsgrad: see `adam`.
      clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adamw(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.416
    3.874
    3.375

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("adamw", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    kind = scale_by_amsgrad if amsgrad else scale_by_adam
    return shared.after(kind(beta_1, beta_2, epsilon, tf_style=True), rate=learning_rate)


def adamax(
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
    """keras.optimizers.Adamax: `optim.adamax(eps_in_max=False)`: epsilon is added to the maximum.

    Args:
      learning_rate, beta_1, beta_2: see `adam`.
      epsilon: is added to the maximum when it divides.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adamax(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.897
    3.428

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("adamax", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    return shared.after(scale_by_adamax(beta_1, beta_2, epsilon, eps_in_max=False), rate=learning_rate)


def nadam(
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
    """keras.optimizers.Nadam: `optim.nadam` with a momentum that rises as beta_1 (1 - 0.96^t / 2).

    Args:
      learning_rate, beta_1, beta_2: see `adam`.
      epsilon: stands outside of the corrected root, unlike in Keras's Adam.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = nadam(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.385
    3.979
    3.631

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("nadam", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    return shared.after(scale_by_nadam(beta_1, beta_2, epsilon, momentum_decay=1.0), rate=learning_rate)
