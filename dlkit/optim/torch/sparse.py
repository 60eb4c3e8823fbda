"""torch's SparseAdam: what had no gradient is not touched, moments included."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.rules.adam import ScaleByAdamState
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.torch.base import ascent, pair
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["ScaleBySparseAdam", "sparse_adam"]


@dataclass(frozen=True)
class ScaleBySparseAdam(Transform[ScaleByAdamState]):
    """Adam's direction for the rows with a gradient, 0 and unchanged moments for the others: see `sparse_adam`.

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or an `eps` that is not above 0.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8

    def __post_init__(self) -> None:
        settle("sparse_adam", self, decays=("b1", "b2"), nonnegative=("eps",))
        if not self.eps:
            raise ValueError("sparse_adam: eps is 0.0, wanted more than 0")

    def init(self, params: Any) -> ScaleByAdamState:
        mu, nu = (zeros_like("sparse_adam", params) for _ in range(2))
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(self, grads: Any, state: ScaleByAdamState, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        count = safe_increment(state.count)
        factor = jnp.sqrt(bias_correction(self.b2, count)) / bias_correction(self.b1, count)

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            touched = jnp.any(g != 0, axis=tuple(range(1, g.ndim)), keepdims=True)
            mu = jnp.where(touched, self.b1 * mu + (1 - self.b1) * g, mu)
            nu = jnp.where(touched, self.b2 * nu + (1 - self.b2) * (g * g), nu)
            return (
                jnp.where(touched, factor.astype(g.dtype) * mu / (jnp.sqrt(nu) + self.eps), jnp.zeros_like(g)),
                mu,
                nu,
            )

        updates, mu, nu = leafwise("sparse_adam", step, grads, state.mu, state.nu)
        return updates, ScaleByAdamState(count, mu, nu)


def sparse_adam(
    lr: ScalarOrSchedule = 1e-3,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    *,
    maximize: bool = False,
) -> Chain:
    """torch.optim.SparseAdam for the tables of embeddings: rows without a gradient keep their values and moments.

        for the rows (first axis) of g that are not all zero:
        mu = b1 mu + (1 - b1) g              t = 1 in the first update, for all rows
        nu = b2 nu + (1 - b2) g^2
        p  = p - lr sqrt(1 - b2^t) / (1 - b1^t) mu / (sqrt(nu) + eps)

    Adam moves rare words long after they were seen, by the momentum that is left, and lets their nu fall; this does
    not. torch reads the rows from a sparse gradient; here gradients are dense, and a row is one that holds a number
    other than 0. The corrections count all updates, not those of a row, in torch too.

    Args:
      lr: the learning rate, or a schedule.
      betas: the weights of the old averages of gradients and of squared gradients.
      eps: stands outside of the uncorrected root; above 0.
      maximize: climb instead of descending.

    >>> from dlkit import optim
    >>> params = {"table": jnp.ones((2, 2))}
    >>> tx = sparse_adam(0.1)
    >>> state = tx.init(params)
    >>> for row in (0, 1):
    ...     g = {"table": jnp.zeros((2, 2)).at[row].set(1.0)}
    ...     updates, state = tx.update(g, state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(params["table"].round(3))  # row 0 has moved once
    [[0.90000004 0.90000004]
     [0.92600006 0.92600006]]

    Raises:
      ValueError: betas outside of [0, 1), or an `eps` that is not above 0.
    """
    return chain(
        *ascent(maximize), ScaleBySparseAdam(*pair("sparse_adam", "betas", betas), eps), scale_by_learning_rate(lr)
    )
