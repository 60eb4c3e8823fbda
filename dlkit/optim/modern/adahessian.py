"""AdaHessian: Adam with the Hessian's diagonal in the place of the gradient under the root."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, bias_correction, safe_increment, settle
from dlkit.optim.leaves import leafwise, need_params, zeros_like
from dlkit.optim.modern.curvature import hutchinson_estimator_diag_hessian
from dlkit.optim.modern.sophia import estimate_every
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain, check_link
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByAdaHessian", "ScaleByAdaHessianState", "adahessian", "scale_by_adahessian"]


class ScaleByAdaHessianState(NamedTuple):
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the average of g
    nu: Any  # that of the squared diagonal
    diagonal: Any  # the last estimate; None where each update makes one
    hessian_fn_state: Any


@dataclass(frozen=True)
class ScaleByAdaHessian(Transform[ScaleByAdaHessianState]):
    """u = mu_hat / (sqrt(nu_hat)^hessian_power + eps): see `adahessian`.

    >>> tx = scale_by_adahessian(eps=0.0)
    >>> params = {"w": jnp.array([1.0, -2.0])}
    >>> bowl = lambda p: jnp.sum(p["w"] ** 2)
    >>> grads, state = {"w": jnp.array([2.0, -4.0])}, tx.init(params)
    >>> tx.update(grads, state, params, obj_fn=bowl)[0]["w"].round(4)
    Array([ 1., -2.], dtype=float32)

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument, `update_interval` below 1.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-4
    hessian_power: Scalar = 1.0
    spatial_averaging: bool = False
    update_interval: int = 1
    hessian_diagonal_fn: Any = hutchinson_estimator_diag_hessian()

    def __post_init__(self) -> None:
        check_link("scale_by_adahessian", self.hessian_diagonal_fn)
        settle("scale_by_adahessian", self, decays=("b1", "b2"), nonnegative=("eps", "hessian_power"))
        interval = as_count("scale_by_adahessian", "update_interval", self.update_interval, 1)
        object.__setattr__(self, "update_interval", interval)

    def init(self, params: Any) -> ScaleByAdaHessianState:
        mu, nu, kept = (zeros_like("scale_by_adahessian", params) for _ in range(3))
        kept = kept if self.update_interval > 1 else None
        return ScaleByAdaHessianState(jnp.zeros((), jnp.int32), mu, nu, kept, self.hessian_diagonal_fn.init(params))

    def update(
        self, grads: Any, state: ScaleByAdaHessianState, params: Any = None, **extra: Any
    ) -> tuple[Any, ScaleByAdaHessianState]:
        need_params("scale_by_adahessian", params)
        diagonal, hessian_state = estimate_every(
            self.update_interval,
            state.count,
            self.hessian_diagonal_fn,
            grads,
            state.hessian_fn_state,
            params,
            extra,
            state.nu if state.diagonal is None else state.diagonal,
        )
        count = safe_increment(state.count)
        total_m, total_v = bias_correction(self.b1, count), bias_correction(self.b2, count)

        def step(g: Array, mu: Array, nu: Array, h: Array) -> tuple[Array, Array, Array]:
            h = self._averaged(h)
            mu = self.b1 * mu + (1 - self.b1) * g
            nu = self.b2 * nu + (1 - self.b2) * h * h
            root = jnp.sqrt(nu / total_v.astype(g.dtype)) ** as_dtype(self.hessian_power, g.dtype) + self.eps
            mu_hat = mu / total_m.astype(g.dtype)
            u = jnp.where(root > 0, mu_hat / jnp.where(root > 0, root, jnp.ones_like(root)), jnp.zeros_like(g))
            return u, mu, nu

        updates, mu, nu = leafwise("scale_by_adahessian", step, grads, state.mu, state.nu, read=(diagonal,))
        kept = None if state.diagonal is None else diagonal
        return updates, ScaleByAdaHessianState(count, mu, nu, kept, hessian_state)

    def _averaged(self, h: Array) -> Array:
        if not self.spatial_averaging or h.ndim < 3:
            return h
        window = tuple(range(h.ndim - 2))
        return jnp.broadcast_to(jnp.mean(jnp.abs(h), axis=window, keepdims=True), h.shape)


scale_by_adahessian = ScaleByAdaHessian


def adahessian(
    learning_rate: ScalarOrSchedule = 0.15,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-4,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    hessian_power: Scalar = 1.0,
    spatial_averaging: bool = False,
    update_interval: int = 1,
    hessian_diagonal_fn: Any = hutchinson_estimator_diag_hessian(),
) -> Chain:
    """AdaHessian: Adam, with an estimate h of the Hessian's diagonal where Adam squares the gradient.

        mu = b1 mu + (1 - b1) g           mu_hat = mu / (1 - b1^t)        t = 1 in the first update
        nu = b2 nu + (1 - b2) h^2         nu_hat = nu / (1 - b2^t)
        p  = p - eta (mu_hat / (sqrt(nu_hat)^hessian_power + eps) + weight_decay p)

    Call `update(grads, state, params, obj_fn=lambda p: loss(p, batch))`.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared diagonals.
      eps: stands outside the root.
      weight_decay: decoupled: a number or a schedule.
      mask: which parameters decay; see `add_decayed_weights`.
      hessian_power: 1 for a step of Newton's kind, 0 for plain momentum, and what lies between.
      spatial_averaging: whether a kernel's |h| is averaged over its window: all but the last two axes (in, out).
      update_interval: how many updates share an estimate.
      hessian_diagonal_fn: a transform whose updates are estimates of the diagonal.

    Differences. optax, torch and Keras have none. Defaults are those of the authors' code, which averages over the
    window of convolutions always.

    Reference: Yao, Gholami, Shen, Keutzer, Mahoney, "AdaHessian: an adaptive second order optimizer for machine
    learning", 2021.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adahessian()
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.01

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument, `update_interval` below 1; from `update`,
        `params` is None.
      TypeError: from `update`, without what the estimator needs.
    """
    direction = scale_by_adahessian(b1, b2, eps, hessian_power, spatial_averaging, update_interval, hessian_diagonal_fn)
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
