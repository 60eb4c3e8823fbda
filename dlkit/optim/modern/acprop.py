"""ACProp: a centered second moment that leaves the gradient of now out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, real_dtype, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByACProp", "ScaleByACPropState", "acprop", "scale_by_acprop"]


class ScaleByACPropState(NamedTuple):
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the average of g
    nu: Any  # that of (g - mu)^2


@dataclass(frozen=True)
class ScaleByACProp(Transform[ScaleByACPropState]):
    """u = g / (sqrt(nu_hat) + eps), with nu_hat of the update before: see `acprop`.

    >>> tx = scale_by_acprop()
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"].round(4)
    Array([ 3.        , -0.09999999], dtype=float32)

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative `eps` or `eps_root`.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-16
    eps_root: Scalar = 1e-16

    def __post_init__(self) -> None:
        settle("scale_by_acprop", self, decays=("b1", "b2"), nonnegative=("eps", "eps_root"))

    def init(self, params: Any) -> ScaleByACPropState:
        mu, nu = zeros_like("scale_by_acprop", params), zeros_like("scale_by_acprop", params, real=True)
        return ScaleByACPropState(jnp.zeros((), jnp.int32), mu, nu)

    def update(self, grads: Any, state: ScaleByACPropState, params: Any = None) -> tuple[Any, ScaleByACPropState]:
        first = state.count == 0
        total = jnp.where(first, 1, bias_correction(self.b2, state.count))

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            real = real_dtype(g.dtype)
            root = jnp.sqrt(jnp.where(first, jnp.ones_like(nu), nu / total.astype(real))) + self.eps
            # Where all gradients so far were 0, so are nu and g: no step, rather than 0 / 0.
            u = jnp.where(root > 0, g / jnp.where(root > 0, root, jnp.ones_like(root)), jnp.zeros_like(g))
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g - mu) + self.eps_root
            return u, self.b1 * mu + (1 - self.b1) * g, nu

        updates, mu, nu = leafwise("scale_by_acprop", step, grads, state.mu, state.nu)
        return updates, ScaleByACPropState(safe_increment(state.count), mu, nu)


scale_by_acprop = ScaleByACProp


def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Chain:
    """ACProp: the gradient over the spread of the gradients before it.

        u  = g / (sqrt(nu / (1 - b2^(t-1))) + eps)         in the first update (t = 1) u = g
        nu = b2 nu + (1 - b2) (g - mu)^2 + eps_root        mu without the gradient of now
        mu = b1 mu + (1 - b1) g
        p  = p - eta (u + weight_decay p)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared deviations.
      eps: stands outside the root.
      eps_root: is added to nu in every update.
      weight_decay: decoupled: a number or a schedule.
      mask: which parameters decay; see `add_decayed_weights`.

    Differences. optax: equal; the formula in its documentation has mu with the gradient of now, its code has not.

    Reference: Zhuang et al., "Momentum centering and asynchronous update for adaptive gradient methods", 2021.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = acprop(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.82

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative argument.
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
