"""Steps in proportion to the length of the parameters, leaf by leaf: LARS, LAMB, Fromage."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, schedule_value, settle
from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.measures import leaf_norm
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, EmptyState, Transform, chain
from dlkit.optim.wrappers.masks import Mask, masked

__all__ = ["ScaleByTrustRatio", "fromage", "lamb", "lars", "scale_by_trust_ratio"]


@dataclass(frozen=True)
class ScaleByTrustRatio(Transform[EmptyState]):
    """u = g * trust_coefficient max(|p|, min_norm) / (max(|g|, min_norm) + eps), leaf by leaf.

    |p| and |g| are the l2 norms of the whole leaf. Where either is 0, u = g.

    Args:
      min_norm: a lower bound of both norms.
      trust_coefficient: a factor.
      eps: is added to the denominator.

    Reference: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017.

    >>> params = {"w": jnp.array([6.0, 8.0])}
    >>> scale_by_trust_ratio().update({"w": jnp.array([3.0, 4.0])}, EmptyState(), params)[0]
    {'w': Array([6., 8.], dtype=float32)}

    Raises:
      ValueError: a negative argument; from `update`, when `params` is None.
    """

    min_norm: Scalar = 0.0
    trust_coefficient: Scalar = 1.0
    eps: Scalar = 0.0

    def __post_init__(self) -> None:
        settle("scale_by_trust_ratio", self, nonnegative=("min_norm", "trust_coefficient", "eps"))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("scale_by_trust_ratio", params)

        def step(g: Array, p: Array) -> Array:
            of_p, of_g = leaf_norm(p, self.min_norm), leaf_norm(g, self.min_norm)
            none = (of_p == 0) | (of_g == 0)
            ratio = self.trust_coefficient * of_p / jnp.where(none, jnp.ones_like(of_g), of_g + self.eps)
            return g * jnp.where(none, jnp.ones_like(ratio), ratio).astype(g.real.dtype)

        (updates,) = leafwise("scale_by_trust_ratio", step, grads, read=(params,))
        return updates, state


scale_by_trust_ratio = ScaleByTrustRatio


def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
) -> Chain:
    """LARS: momentum SGD whose rate, leaf by leaf, is in proportion to |p| / |g|.

        g = g + weight_decay p
        g = g * trust_coefficient |p| / (|g| + eps)        1 for the ratio where a norm is 0
        v = momentum v - eta g
        p = p + v                                           (nesterov:  p + momentum v - eta g)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      weight_decay: a number or a schedule: coupled decay.
      weight_decay_mask: which parameters decay: True or None for all, path globs, a tree of booleans, or a callable.
      trust_coefficient: a factor of the ratio.
      eps: is added to |g|.
      trust_ratio_mask: which parameters are scaled by the ratio; biases and scales of norms are often left out.
      momentum: the weight of the old velocity.
      nesterov: whether to look ahead.

    Differences. optax: equal. Torch and Keras have none. The paper, and timm's, have |g| + weight_decay |p| in the
    denominator, with the norm of the gradient alone, where here (as in optax) it is the norm of the sum; and timm's
    momentum is not scaled by the rate: v = momentum v + g, p = p - eta v, which is the same at a constant rate.

    Reference: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = lars(0.2, trust_coefficient=1.0)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.200
    1.058
    0.019

    Raises:
      ValueError: a negative argument; from `update`, when `params` is None.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), _all_if_none(trust_ratio_mask)),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


def _all_if_none(mask: Mask) -> Mask:
    return True if mask is None else mask


def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Chain:
    """LAMB: Adam's direction, scaled leaf by leaf to the length of the parameters.

        d = adam's direction + weight_decay p
        p = p - eta d |p| / |d|                  1 for the ratio where a norm is 0

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1, b2, eps, eps_root: see `adam`.
      weight_decay: a number or a schedule.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal. Keras `Lamb`: eps = 1e-7, and its weight decay acts apart from the ratio; equal at
    `eps=1e-7` without decay. torch has none; timm's clips the gradient's global norm at 1 first, and leaves the ratio
    out for parameters without decay.

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
      ValueError: `b1` or `b2` outside of [0, 1), or a negative argument; from `update`, when `params` is None.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@dataclass(frozen=True)
class FromageRate:
    """eta / sqrt(1 + eta^2) at every count; with `shrink`, 1 / sqrt(1 + eta^2) - 1."""

    learning_rate: Any
    shrink: bool

    def __post_init__(self) -> None:
        settle("fromage", self, schedules=("learning_rate",))

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        rate = as_dtype(schedule_value("fromage", self.learning_rate, count), jnp.result_type(float))
        shrunk = 1 / jnp.sqrt(1 + rate * rate)
        return shrunk - 1 if self.shrink else rate * shrunk


def fromage(learning_rate: ScalarOrSchedule, min_norm: Scalar = 1e-6) -> Chain:
    """Fromage: relative steps of length eta, and a shrinkage that keeps the parameters from growing.

        p = (p - eta g max(|p|, min_norm) / max(|g|, min_norm)) / sqrt(1 + eta^2)           leaf by leaf

    If g is orthogonal to p, as it is where the loss does not depend on the length of p, |p| stays as it was.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate. The state reports
        eta / sqrt(1 + eta^2), which multiplies the direction.
      min_norm: a lower bound of both norms.

    Differences. optax: equal. torch and Keras have none.

    Reference: Bernstein, Vahdat, Yue, Liu, "On the distance between two neural networks and the stability of
    learning", 2020.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] - 1) ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = fromage(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    0.589
    0.310
    0.134

    Raises:
      ValueError: a negative `min_norm`; from `update`, when `params` is None.
    """
    return chain(
        scale_by_trust_ratio(min_norm),
        scale_by_learning_rate(FromageRate(learning_rate, shrink=False)),
        add_decayed_weights(FromageRate(learning_rate, shrink=True)),
    )
