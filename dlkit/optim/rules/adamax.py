"""Adamax and AdamaxW: Adam with the largest gradient of late in the place of the root of the average square."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import add_decayed_weights, l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.rules.adam import ScaleByAdamState
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByAdamax", "adamax", "adamaxw", "scale_by_adamax"]


@dataclass(frozen=True)
class ScaleByAdamax(Transform[ScaleByAdamState]):
    """nu = max(b2 nu, |g| + eps) and u = mu_hat / nu: see `adamax`. With `eps_in_max=False`, u = mu_hat / (nu + eps).

    >>> tx = scale_by_adamax(b1=0.5)
    >>> tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))[0]["w"].round(4)
    Array([ 1., -1.], dtype=float32)

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative `eps`.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    _: KW_ONLY
    eps_in_max: bool = True

    def __post_init__(self) -> None:
        settle("scale_by_adamax", self, decays=("b1", "b2"), nonnegative=("eps",))

    def init(self, params: Any) -> ScaleByAdamState:
        mu, nu = zeros_like("scale_by_adamax", params), zeros_like("scale_by_adamax", params, real=True)
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(self, grads: Any, state: ScaleByAdamState, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        count = safe_increment(state.count)
        of_mu = 1 / bias_correction(self.b1, count)

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            size = jnp.abs(g)
            nu = jnp.maximum(self.b2 * nu, size + self.eps if self.eps_in_max else size)
            return of_mu.astype(g.dtype) * mu / (nu if self.eps_in_max else nu + self.eps), mu, nu

        updates, mu, nu = leafwise("scale_by_adamax", step, grads, state.mu, state.nu)
        return updates, ScaleByAdamState(count, mu, nu)


scale_by_adamax = ScaleByAdamax


def adamax(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    eps_in_max: bool = True,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """Adamax: Adam in the maximum norm; its steps are never longer than the learning rate, up to the correction of mu.

        mu = b1 mu + (1 - b1) g              mu_hat = mu / (1 - b1^t)        t = 1 in the first update
        nu = max(b2 nu, |g| + eps)
        p  = p - eta mu_hat / nu

        eps_in_max=False:   nu = max(b2 nu, |g|)     p = p - eta mu_hat / (nu + eps)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the factor by which the old maximum falls in every step.
      eps: keeps the denominator from zero.
      eps_in_max: whether eps is added to |g| inside of the maximum (optax, torch) or to the denominator (Keras).
      l2: coupled weight decay: g + l2 * p stands for g (torch's `weight_decay`).
      mask: which parameters `l2` acts on: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal. torch `Adamax`: equal, default rate 0.002. Keras `Adamax`: eps = 1e-7 beside the maximum:
    `adamax(lr, **preset("keras", "adamax"))`.

    Reference: Kingma, Ba, "Adam: a method for stochastic optimization", 2015, section 7.1.

    >>> import jax
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
      ValueError: `b1` or `b2` outside of [0, 1), or a negative argument.
    """
    return chain(
        *l2_links(l2, mask),
        scale_by_adamax(b1, b2, eps, eps_in_max=eps_in_max),
        scale_by_learning_rate(learning_rate),
    )


def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    eps_in_max: bool = True,
) -> Chain:
    """Adamax with decoupled weight decay: p = p - eta (adamax's direction + weight_decay p).

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate. It scales the decay too.
      b1, b2, eps, eps_in_max: see `adamax`.
      weight_decay: a number or a schedule.
      mask: which parameters decay; None means all. `optim.WEIGHTS` leaves out biases and scales of norms.

    Differences. optax: equal. torch has none. Keras `Adamax(weight_decay=)` is this, with the eps of its Adamax.

    Reference: Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adamaxw(0.1, weight_decay=0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.326
    3.732
    3.208

    Raises:
      ValueError: as `adamax`; from `update`, when `params` is None.
    """
    return chain(
        scale_by_adamax(b1, b2, eps, eps_in_max=eps_in_max),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
