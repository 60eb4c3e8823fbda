"""One schedule of steps, as each library writes it; optax's schedules in full precision."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

EVERY, FACTOR = 15, 0.2
STEP = ("StepLR", {"step_size": EVERY, "gamma": FACTOR})  # torch's class and arguments


def precise(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """optax computes most schedules in float32 from an int32 count, in 64-bit mode too."""
    return lambda count: schedule(count.astype(jnp.result_type(float)))


def optax_step(rate: float) -> Callable[[Any], Any]:
    return precise(optax.exponential_decay(rate, EVERY, FACTOR, staircase=True))


def keras_step(rate: float) -> Callable[[Any], Any]:
    return lambda keras: keras.optimizers.schedules.ExponentialDecay(rate, EVERY, FACTOR, staircase=True)
