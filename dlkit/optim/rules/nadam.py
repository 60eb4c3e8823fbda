"""NAdam: Adam with Nesterov's look-ahead, at a constant momentum (optax) or one that rises (torch, Keras)."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.decay import add_decayed_weights, l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.rules.adam import ScaleByAdam, scale_by_adam
from dlkit.optim.rules.moments import weigh
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByNadam", "ScaleByNadamState", "nadam", "nadamw", "scale_by_nadam"]


class ScaleByNadamState(NamedTuple):
    """Updates so far (int32), the product of all momenta so far, and the two moving averages."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    momentum_product: Float[Array, ""]  # in the default float dtype
    mu: Any  # the average of the gradients
    nu: Any  # the average of the squared gradients


@dataclass(frozen=True)
class ScaleByNadam(Transform[ScaleByNadamState]):
    """NAdam's direction with the momentum of its paper, m_t = b1 (1 - 0.96^(t momentum_decay) / 2): see `nadam`.

    >>> tx = scale_by_nadam()
    >>> tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))[0]["w"].round(4)
    Array([ 1.0565, -1.0565], dtype=float32)

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or another negative argument.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    mu_dtype: Any = None
    momentum_decay: Scalar = 4e-3

    def __post_init__(self) -> None:
        settle(
            "scale_by_nadam",
            self,
            decays=("b1", "b2"),
            nonnegative=("eps", "eps_root", "momentum_decay"),
            dtypes=("mu_dtype",),
        )

    def init(self, params: Any) -> ScaleByNadamState:
        mu, nu = zeros_like("scale_by_nadam", params, self.mu_dtype), zeros_like("scale_by_nadam", params, real=True)
        return ScaleByNadamState(jnp.zeros((), jnp.int32), jnp.ones((), jnp.result_type(float)), mu, nu)

    def update(self, grads: Any, state: ScaleByNadamState, params: Any = None) -> tuple[Any, ScaleByNadamState]:
        count = safe_increment(state.count)
        now, after = self._momentum(count), self._momentum(safe_increment(count))
        product = (state.momentum_product * now).astype(state.momentum_product.dtype)
        of_mu, of_g = after / (1 - product * after), (1 - now) / (1 - product)
        of_nu = 1 / bias_correction(self.b2, count)

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g)
            root = jnp.sqrt(of_nu.astype(nu.dtype) * nu + self.eps_root)
            return weigh(mu, g, of_mu, of_g) / (root + self.eps), mu, nu

        updates, mu, nu = leafwise("scale_by_nadam", step, grads, state.mu, state.nu)
        return updates, ScaleByNadamState(count, product, mu, nu)

    def _momentum(self, count: Int[Array, ""]) -> Float[Array, ""]:
        exponent = math.log(0.96) * (count.astype(jnp.result_type(float)) * self.momentum_decay)
        return self.b1 * (1 - jnp.exp(exponent) / 2)


scale_by_nadam = ScaleByNadam


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    momentum_decay: Scalar | None = None,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """NAdam: Adam that takes the average of gradients where it will be after the step.

        mu = b1 mu + (1 - b1) g              t = 1 in the first update
        nu = b2 nu + (1 - b2) g^2            nu_hat = nu / (1 - b2^t)
        ahead = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)
        p  = p - eta ahead / (sqrt(nu_hat + eps_root) + eps)

    With `momentum_decay` the momentum rises to b1, from half of it when `momentum_decay` is small:

        m_t   = b1 (1 - 0.96^(t momentum_decay) / 2)            M_t = m_1 m_2 ... m_t
        ahead = m_(t+1) mu / (1 - M_(t+1)) + (1 - m_t) g / (1 - M_t)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared gradients.
      eps: stands outside the root.
      eps_root: stands inside the root.
      mu_dtype: the dtype of mu; None means that of the parameters.
      nesterov: False is `adam`.
      momentum_decay: None for a constant momentum (optax), 0.004 is torch's default, 1 is Keras's.
      l2: coupled weight decay: g + l2 * p stands for g (torch's `weight_decay`).
      mask: which parameters `l2` acts on: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal. torch `NAdam`: `nadam(lr, **preset("torch", "nadam"))`; Keras `Nadam`, with eps = 1e-7:
    `preset("keras", "nadam")`. torch keeps the product of the momenta in its default dtype: of float64 parameters the
    steps differ by some 1e-8 unless that is float64 too.

    Reference: Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = nadam(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.159
    3.575
    3.081

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument, or `momentum_decay` without `nesterov`.
    """
    direction = _direction("nadam", b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay)
    return chain(*l2_links(l2, mask), direction, scale_by_learning_rate(learning_rate))


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    momentum_decay: Scalar | None = None,
) -> Chain:
    """NAdam with decoupled weight decay: p = p - eta (nadam's direction + weight_decay p).

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate. It scales the decay too.
      b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay: see `nadam`.
      weight_decay: a number or a schedule.
      mask: which parameters decay; None means all. `optim.WEIGHTS` leaves out biases and scales of norms.

    Differences. optax: equal. torch: `NAdam(decoupled_weight_decay=True)` is this with `momentum_decay=4e-3`.

    References: see `nadam`. Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = nadamw(0.1, weight_decay=0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.069
    3.417
    2.875

    Raises:
      ValueError: as `nadam`; from `update`, when `params` is None.
    """
    direction = _direction("nadamw", b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay)
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))


def _direction(
    owner: str, b1: Any, b2: Any, eps: Any, eps_root: Any, mu_dtype: Any, nesterov: bool, momentum_decay: Any
) -> ScaleByAdam | ScaleByNadam:
    if momentum_decay is None:
        return scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    if not nesterov:
        raise ValueError(f"{owner}: momentum_decay={momentum_decay} needs nesterov=True")
    return scale_by_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay)
