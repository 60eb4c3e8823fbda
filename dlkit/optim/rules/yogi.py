"""Yogi: Adam whose average of squared gradients moves by a fixed share of g^2, not towards it."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.rules.adam import ScaleByAdamState
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByYogi", "scale_by_yogi", "yogi"]


@dataclass(frozen=True)
class ScaleByYogi(Transform[ScaleByAdamState]):
    """nu = nu - (1 - b2) sign(nu - g^2) g^2 and u = mu_hat / (sqrt(nu_hat + eps_root) + eps): see `yogi`.

    >>> tx = scale_by_yogi()
    >>> updates, _ = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> print([f"{u:.3f}" for u in updates["w"]])
    ['1.000', '-0.944']

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or another negative argument.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-3
    eps_root: Scalar = 0.0
    initial_accumulator_value: Scalar = 1e-6

    def __post_init__(self) -> None:
        others = ("eps", "eps_root", "initial_accumulator_value")
        settle("scale_by_yogi", self, decays=("b1", "b2"), nonnegative=others)

    def init(self, params: Any) -> ScaleByAdamState:
        mu = zeros_like("scale_by_yogi", params, fill=self.initial_accumulator_value)
        nu = zeros_like("scale_by_yogi", params, fill=self.initial_accumulator_value, real=True)
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(self, grads: Any, state: ScaleByAdamState, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        count = safe_increment(state.count)
        of_mu, of_nu = (1 / bias_correction(b, count) for b in (self.b1, self.b2))

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            square = abs_sq(g)
            nu = nu - (1 - self.b2) * (jnp.sign(nu - square) * square)
            root = jnp.sqrt(of_nu.astype(nu.dtype) * nu + self.eps_root)
            return of_mu.astype(g.dtype) * mu / (root + self.eps), mu, nu

        updates, mu, nu = leafwise("scale_by_yogi", step, grads, state.mu, state.nu)
        return updates, ScaleByAdamState(count, mu, nu)


scale_by_yogi = ScaleByYogi


def yogi(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    *,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """Yogi: Adam that forgets large gradients slowly: where they become small, nu falls by a share of the small ones.

        mu = b1 mu + (1 - b1) g                           mu_hat = mu / (1 - b1^t)      t = 1 in the first update
        nu = nu - (1 - b2) sign(nu - g^2) g^2             nu_hat = nu / (1 - b2^t)
        p  = p - eta mu_hat / (sqrt(nu_hat) + eps)

    Both averages start from 1e-6 (`scale_by_yogi(initial_accumulator_value=)`), and are corrected as if from 0.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: 1 - b2 is the share of g^2 by which nu moves.
      eps: stands outside the root.
      l2: coupled weight decay: g + l2 * p stands for g.
      mask: which parameters `l2` acts on: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal; it has no `l2`. torch and Keras have none.

    Reference: Zaheer et al., "Adaptive methods for nonconvex optimization", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = yogi(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.882
    3.385

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative argument.
    """
    return chain(*l2_links(l2, mask), scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
