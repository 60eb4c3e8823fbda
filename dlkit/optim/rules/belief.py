"""AdaBelief: Adam with the squared distance of a gradient from its own average in the place of its square."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.rules.moments import ahead_factors, weigh
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByBelief", "ScaleByBeliefState", "adabelief", "scale_by_belief"]


class ScaleByBeliefState(NamedTuple):
    """Updates so far (int32), and the two moving averages, not bias-corrected."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the average of the gradients
    nu: Any  # the average of the squared distances (g - mu)^2


@dataclass(frozen=True)
class ScaleByBelief(Transform[ScaleByBeliefState]):
    """u = mu_hat / (sqrt(nu_hat) + eps), where nu averages (g - mu)^2: see `adabelief`.

    >>> tx = scale_by_belief()
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"].round(4)  # g - mu is 0.9 g in the first step
    Array([ 1.1111, -1.1111], dtype=float32)

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative `eps` or `eps_root`.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-16
    eps_root: Scalar = 1e-16
    _: KW_ONLY
    nesterov: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_belief", self, decays=("b1", "b2"), nonnegative=("eps", "eps_root"))

    def init(self, params: Any) -> ScaleByBeliefState:
        mu = zeros_like("scale_by_belief", params)
        return ScaleByBeliefState(jnp.zeros((), jnp.int32), mu, zeros_like("scale_by_belief", params, real=True))

    def update(self, grads: Any, state: ScaleByBeliefState, params: Any = None) -> tuple[Any, ScaleByBeliefState]:
        count = safe_increment(state.count)
        of_mu, of_g = ahead_factors(self.b1, count, self.nesterov)
        of_nu = 1 / bias_correction(self.b2, count)

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            # eps_root enters the average itself, as in the paper: its sum keeps nu from zero.
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g - mu) + self.eps_root
            return weigh(mu, g, of_mu, of_g) / (jnp.sqrt(of_nu.astype(nu.dtype) * nu) + self.eps), mu, nu

        updates, mu, nu = leafwise("scale_by_belief", step, grads, state.mu, state.nu)
        return updates, ScaleByBeliefState(count, mu, nu)


scale_by_belief = ScaleByBelief


def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """AdaBelief: long steps where the gradients are as expected, short ones where they scatter about their average.

        mu = b1 mu + (1 - b1) g                           mu_hat = mu / (1 - b1^t)      t = 1 in the first update
        nu = b2 nu + (1 - b2) (g - mu)^2 + eps_root       nu_hat = nu / (1 - b2^t)
        p  = p - eta mu_hat / (sqrt(nu_hat) + eps)

        nesterov:   mu_hat = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of squared distances.
      eps: stands outside the root.
      eps_root: is added to nu in every step, so that it stays there.
      nesterov: whether the average looks ahead.
      l2: coupled weight decay: g + l2 * p stands for g.
      mask: which parameters `l2` acts on: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal; it has no `l2`. torch and Keras have no AdaBelief.

    Reference: Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", 2020.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adabelief(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.358
    3.738
    3.150

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative argument.
    """
    return chain(
        *l2_links(l2, mask),
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
