"""Keras's ScheduleFreeAdamW: an average of the iterates in the place of a falling rate."""

import jax.numpy as jnp  # noqa: F401  (the doctests)

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count
from dlkit.optim.keras.base import base
from dlkit.optim.modern.schedule_free import schedule_free
from dlkit.optim.rules.rmsprop import scale_by_rms
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.schedules import linear_schedule, product_schedule
from dlkit.optim.transform import Chain, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["schedule_free_adamw"]


def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-8,
    warmup_steps: int = 0,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.ScheduleFreeAdamW: gradients are taken at y, between the iterate z and its plain average x.

        z = z - eta g / (sqrt(nu / (1 - beta_2^t)) + epsilon)        nu = beta_2 nu + (1 - beta_2) g^2, g at y = p
        x = (1 - 1 / t) x + z / t                                    t = 1 in the first update
        p = (1 - beta_1) z + beta_1 x                                eta = learning_rate min(1, t / warmup_steps)

    The parameters of the model are y in training; the average x = (p - (1 - beta_1) z) / beta_1 is what to evaluate:
    `optim.schedule_free_eval_params`.

    Args:
      learning_rate: a number, or a schedule.
      beta_1: how far y is on the way from z to x; above 0.
      beta_2: the weight of the old average of squared gradients.
      epsilon: stands outside of the corrected root.
      warmup_steps: over how many updates the rate rises.
      weight_decay, clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Differences. optax's `contrib.schedule_free_adamw` weighs the average by the rates: this is `schedule_free` with
    `weight_lr_power=0`.

    Reference: Defazio et al., "The road less scheduled", 2024.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = schedule_free_adamw(0.3)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.380
    2.720
    2.161

    Raises:
      ValueError: `beta_2` outside of [0, 1), `beta_1` outside of (0, 1], a negative argument, or two of the clipping
        arguments.
    """
    shared = base("schedule_free_adamw", weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
    steps = as_count("schedule_free_adamw", "warmup_steps", warmup_steps)
    # The decay goes by the rate without its warm-up.
    rate = product_schedule(learning_rate, linear_schedule(1 / steps, 1.0, steps - 1)) if steps else learning_rate
    descent = chain(
        scale_by_rms(beta_2, epsilon, eps_in_sqrt=False, bias_correction=True), scale_by_learning_rate(rate)
    )
    return shared.before(schedule_free(descent, rate, beta_1, weight_lr_power=0.0), rate=learning_rate)
