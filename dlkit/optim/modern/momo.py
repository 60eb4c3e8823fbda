"""MoMo: momentum with a step of Polyak's kind, cut off at the learning rate. `update` needs `value=`, the loss."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import check_real, leafwise, need_params, widest, zeros_like
from dlkit.optim.modern.whole import dot, rate_at, wide_dtype
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform


def _loss(owner: str, value: Any, dtype: Any) -> Float[Array, ""]:
    if value is None:
        raise TypeError(f"{owner}: it reads the loss: call update(grads, state, params, value=loss)")
    value = jnp.asarray(value, dtype)
    if value.shape != ():
        raise ValueError(f"{owner}: value is an array of shape {value.shape}, wanted the loss, a scalar")
    return value


__all__ = ["Momo", "MomoAdam", "MomoAdamState", "MomoState", "momo", "momo_adam"]


class MomoState(NamedTuple):
    exp_avg: Any  # d: the average of g
    barf: Float[Array, ""]  # f: that of the loss
    gamma: Float[Array, ""]  # c: that of <g, p>
    lb: Float[Array, ""]  # the lower bound of the loss
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class Momo(Transform[MomoState]):
    """SGD with momentum whose step is Polyak's, and at most the learning rate.

        d = beta d + (1 - beta) g        f = beta f + (1 - beta) loss        c = beta c + (1 - beta) <g, p>
        (the first update sets d = g, f = loss, c = <g, p>)
        h = f + <d, p> - c                                     what the model of the loss says at p
        k = min(eta, max((1 + eta weight_decay) (f - c - lb) + <d, p>, 0) / |d|^2)
        p = p / (1 + eta weight_decay) - k d

    Call `update(grads, state, params, value=loss)`.

    Args:
      learning_rate: eta, the largest step: large.
      beta: the weight of the old averages.
      lower_bound: lb, which the loss never goes below.
      weight_decay: decoupled, in its proximal form.
      adapt_lower_bound: whether lb is estimated while training, from `lower_bound` upwards.

    Differences. optax: equal. The update is complete: no `scale_by_learning_rate` follows.

    Reference: Schaipp, Ohana, Eickenberg, Defazio, Gower, "MoMo: momentum models for adaptive learning rates", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = momo()
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     value, grads = jax.value_and_grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, value=value)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.79

    Raises:
      ValueError: `beta` outside of [0, 1), a negative `weight_decay`; from `update`, when `params` is None.
      TypeError: from `update`, without `value`.
    """

    learning_rate: ScalarOrSchedule = 1.0
    beta: Scalar = 0.9
    lower_bound: Scalar = 0.0
    weight_decay: Scalar = 0.0
    adapt_lower_bound: bool = False

    def __post_init__(self) -> None:
        settle(
            "momo",
            self,
            decays=("beta",),
            nonnegative=("weight_decay",),
            numbers=("lower_bound",),
            schedules=("learning_rate",),
        )

    def init(self, params: Any) -> MomoState:
        dtype = wide_dtype(params)
        barf, gamma = (jnp.zeros((), dtype) for _ in range(2))
        lower = as_dtype(self.lower_bound, dtype)
        return MomoState(zeros_like("momo", params), barf, gamma, lower, jnp.zeros((), jnp.int32))

    def update(
        self, grads: Any, state: MomoState, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[Any, MomoState]:
        need_params("momo", params)
        dtype = state.barf.dtype
        value = _loss("momo", value, dtype)
        rate = rate_at("momo", self.learning_rate, state.count, dtype)
        # An average that the first gradient enters with all its weight.
        old = jnp.where(state.count == 0, 0, as_dtype(self.beta, dtype))

        def average(g: Array, d: Array) -> tuple[Array, Array]:
            b = old.astype(g.dtype)
            return g, b * d + (1 - b) * g

        _, d = leafwise("momo", average, grads, state.exp_avg)
        f = old * state.barf + (1 - old) * value
        c = old * state.gamma + (1 - old) * dot(grads, params, dtype)
        along, size = dot(d, params, dtype), dot(d, d, dtype)
        decay = rate * as_dtype(self.weight_decay, dtype)
        grown, shrunk = 1 + decay, decay / (1 + decay)  # p / grown - p = -shrunk p
        lower, least = state.lb, as_dtype(self.lower_bound, dtype)
        if self.adapt_lower_bound:
            cap = grown * (f - c) + along
            lower = jnp.where(cap < grown * lower, jnp.maximum(cap / (2 * grown), least), lower)
        length = _polyak(rate, grown * (f - c - lower) + along, size)
        if self.adapt_lower_bound:
            lower = jnp.maximum(f + along - c - length * size / 2, least)

        def step(d: Array, p: Array) -> Array:
            return -shrunk.astype(d.dtype) * p - length.astype(d.dtype) * d

        (updates,) = leafwise("momo", step, d, read=(params,))
        updates = jax.tree.map(lambda u, g: u.astype(widest(u.dtype, jnp.result_type(g))), updates, grads)
        return updates, MomoState(d, f, c, lower, safe_increment(state.count))


def _polyak(rate: Array, gap: Array, size: Array) -> Array:
    """min(rate, max(gap, 0) / size), and 0 where there is no direction."""
    some = size > 0
    return jnp.where(some, jnp.minimum(rate, jnp.maximum(gap, 0) / jnp.where(some, size, jnp.ones_like(size))), 0)


class MomoAdamState(NamedTuple):
    exp_avg: Any  # d: the average of g
    exp_avg_sq: Any  # v: that of g^2
    barf: Float[Array, ""]  # f: that of the loss
    gamma: Float[Array, ""]  # c: that of <g, p>
    lb: Float[Array, ""]  # the lower bound of the loss
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class MomoAdam(Transform[MomoAdamState]):
    """Adam whose step is Polyak's in Adam's norm, and at most the learning rate.

        d = b1 d + (1 - b1) g        f = b1 f + (1 - b1) loss        c = b1 c + (1 - b1) <g, p>
        v = b2 v + (1 - b2) g^2      D = sqrt(v / (1 - b2^t)) + eps      a = 1 - b1^t      t = 1 in the first update
        k = min(eta / a, max((1 + eta weight_decay) (f - c - a lb) + <d, p>, 0) / <d, d / D>)
        p = p / (1 + eta weight_decay) - k d / D

    Call `update(grads, state, params, value=loss)`.

    Args:
      learning_rate: eta, the largest step: large.
      b1, b2, eps: see `adam`.
      lower_bound: lb, which the loss never goes below.
      weight_decay: decoupled, in its proximal form.
      adapt_lower_bound: whether lb is estimated while training, from `lower_bound` upwards.

    Differences. optax: equal. The update is complete: no `scale_by_learning_rate` follows.

    Reference: Schaipp, Ohana, Eickenberg, Defazio, Gower, "MoMo: momentum models for adaptive learning rates", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = momo_adam(1.0)
    >>> state = tx.init(params)
    >>> for _ in range(20):
    ...     value, grads = jax.value_and_grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, value=value)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.12

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument; from `update`, when `params` is None.
      TypeError: from `update`, without `value`.
    """

    learning_rate: ScalarOrSchedule = 1e-2
    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    lower_bound: Scalar = 0.0
    weight_decay: Scalar = 0.0
    adapt_lower_bound: bool = False

    def __post_init__(self) -> None:
        settle(
            "momo_adam",
            self,
            decays=("b1", "b2"),
            nonnegative=("eps", "weight_decay"),
            numbers=("lower_bound",),
            schedules=("learning_rate",),
        )

    def init(self, params: Any) -> MomoAdamState:
        check_real("momo_adam", params)
        dtype = wide_dtype(params)
        barf, gamma = (jnp.zeros((), dtype) for _ in range(2))
        m, v = (zeros_like("momo_adam", params) for _ in range(2))
        return MomoAdamState(m, v, barf, gamma, as_dtype(self.lower_bound, dtype), jnp.zeros((), jnp.int32))

    def update(
        self, grads: Any, state: MomoAdamState, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[Any, MomoAdamState]:
        need_params("momo_adam", params)
        dtype = state.barf.dtype
        value = _loss("momo_adam", value, dtype)
        count = safe_increment(state.count)
        rate = rate_at("momo_adam", self.learning_rate, state.count, dtype)
        b1 = as_dtype(self.b1, dtype)
        total_v = bias_correction(self.b2, count)

        def moments(g: Array, d: Array, v: Array) -> tuple[Array, Array, Array]:
            d = self.b1 * d + (1 - self.b1) * g
            v = self.b2 * v + (1 - self.b2) * g * g
            return d / (jnp.sqrt(v / total_v.astype(g.dtype)) + self.eps), d, v

        scaled, d, v = leafwise("momo_adam", moments, grads, state.exp_avg, state.exp_avg_sq)
        f = b1 * state.barf + (1 - b1) * value
        c = b1 * state.gamma + (1 - b1) * dot(grads, params, dtype)
        along, size = dot(d, params, dtype), dot(d, scaled, dtype)
        decay = rate * as_dtype(self.weight_decay, dtype)
        grown, shrunk = 1 + decay, decay / (1 + decay)  # p / grown - p = -shrunk p
        total = bias_correction(self.b1, count).astype(dtype)
        lower, least = state.lb, as_dtype(self.lower_bound, dtype)
        if self.adapt_lower_bound:
            cap = grown * (f - c) + along
            lower = jnp.where(cap < grown * total * lower, jnp.maximum(cap / (2 * total * grown), least), lower)
        length = _polyak(rate / total, grown * (f - c - total * lower) + along, size)
        if self.adapt_lower_bound:
            lower = jnp.maximum((f + along - c - length * size / 2) / total, least)

        def step(u: Array, p: Array) -> Array:
            return -shrunk.astype(u.dtype) * p - length.astype(u.dtype) * u

        (updates,) = leafwise("momo_adam", step, scaled, read=(params,))
        return updates, MomoAdamState(d, v, f, c, lower, count)


momo = Momo
momo_adam = MomoAdam
