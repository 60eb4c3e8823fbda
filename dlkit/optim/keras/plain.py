"""Keras's SGD, RMSprop, Adagrad, Adadelta and Lion."""

import jax.numpy as jnp  # noqa: F401  (the doctests)

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float
from dlkit.optim.keras.base import base
from dlkit.optim.rules.adadelta import scale_by_adadelta
from dlkit.optim.rules.adagrad import scale_by_rss
from dlkit.optim.rules.momentum import trace
from dlkit.optim.rules.rmsprop import scale_by_rms, scale_by_stddev
from dlkit.optim.rules.sign import scale_by_lion
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["adadelta", "adagrad", "lion", "rmsprop", "sgd"]


def sgd(
    learning_rate: ScalarOrSchedule = 0.01,
    momentum: Scalar = 0.0,
    nesterov: bool = False,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.SGD: v = momentum v - learning_rate g; p = p + v. See `optim.sgd(lr_in_velocity=True)`.

    Args:
      learning_rate: a number, or a schedule.
      momentum: the weight of the old velocity; 0 for none.
      nesterov: steps by momentum v - learning_rate g.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = sgd(0.1, momentum=0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.200
    1.458
    0.456

    Raises:
      ValueError: a negative argument, or two of the clipping arguments.
    """
    shared = base("sgd", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    weight = as_float("sgd", "momentum", momentum)
    rate = scale_by_learning_rate(learning_rate)
    if not weight:
        return shared.after(rate=learning_rate)
    return shared.before(rate, trace(weight, nesterov), rate=learning_rate)


def rmsprop(
    learning_rate: ScalarOrSchedule = 0.001,
    rho: Scalar = 0.9,
    momentum: Scalar = 0.0,
    epsilon: Scalar = 1e-7,
    centered: bool = False,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.RMSprop: `optim.rmsprop` with Keras's names and epsilon.

        nu = rho nu + (1 - rho) g^2
        v  = momentum v + learning_rate g / sqrt(nu + epsilon)
        p  = p - v

    Args:
      learning_rate: a number, or a schedule.
      rho: the weight of the old average.
      momentum: the weight of the old velocity; 0 for none.
      epsilon: stands inside the root.
      centered: whether nu is the variance.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = rmsprop(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.303
    2.421
    1.849

    Raises:
      ValueError: `rho` outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("rmsprop", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    direction = (scale_by_stddev if centered else scale_by_rms)(rho, epsilon)
    weight = as_float("rmsprop", "momentum", momentum)
    if not weight:
        return shared.after(direction, rate=learning_rate)
    return shared.before(direction, scale_by_learning_rate(learning_rate), trace(weight), rate=learning_rate)


def adagrad(
    learning_rate: ScalarOrSchedule = 0.001,
    initial_accumulator_value: Scalar = 0.1,
    epsilon: Scalar = 1e-7,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Adagrad: s = s + g^2; p = p - learning_rate g / sqrt(s + epsilon). See `optim.adagrad`.

    Args:
      learning_rate: a number, or a schedule.
      initial_accumulator_value: what s starts from.
      epsilon: stands inside the root.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adagrad(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    2.511
    1.525
    0.998

    Raises:
      ValueError: a negative argument, or two of the clipping arguments.
    """
    shared = base("adagrad", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    return shared.after(scale_by_rss(initial_accumulator_value, epsilon), rate=learning_rate)


def adadelta(
    learning_rate: ScalarOrSchedule = 0.001,
    rho: Scalar = 0.95,
    epsilon: Scalar = 1e-7,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Adadelta: `optim.adadelta` with Keras's numbers (a rate of 0.001 is far from the paper's 1).

    Args:
      learning_rate: a number, or a schedule.
      rho: the weight of the old averages.
      epsilon: stands inside both roots.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adadelta(1.0, epsilon=1e-2)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    2.737
    1.421
    0.728

    Raises:
      ValueError: `rho` outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("adadelta", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    return shared.after(scale_by_adadelta(rho, epsilon), rate=learning_rate)


def lion(
    learning_rate: ScalarOrSchedule = 0.001,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.99,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Lion: p = p - learning_rate sign(beta_1 mu + (1 - beta_1) g); mu = beta_2 mu + (1 - beta_2) g.

    Differences. optax's `lion` takes the same steps, with a weight decay of 0.001 by default where Keras has none.

    Args:
      learning_rate: a number, or a schedule.
      beta_1: the weight of the average in the step.
      beta_2: the weight of the old average.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Reference: Chen et al., "Symbolic discovery of optimization algorithms", 2023.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = lion(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.880
    3.380

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument, or two of the clipping arguments.
    """
    shared = base("lion", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    return shared.after(scale_by_lion(beta_1, beta_2), rate=learning_rate)
