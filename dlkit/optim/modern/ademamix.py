"""AdEMAMix: Adam with a second, much slower average of gradients; and its simplified form with one."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, schedule_value, settle
from dlkit.optim.leaves import abs_sq, leafwise, real_dtype, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = [
    "ScaleByAdemamix",
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMix",
    "ScaleBySimplifiedAdEMAMixState",
    "ademamix",
    "scale_by_ademamix",
    "scale_by_simplified_ademamix",
    "simplified_ademamix",
]


class ScaleByAdemamixState(NamedTuple):
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    count_m2: Int[Array, ""]  # what the schedules of b3 and alpha are given
    m1: Any  # the fast average of g
    m2: Any  # the slow one
    nu: Any  # the average of g^2


@dataclass(frozen=True)
class ScaleByAdemamix(Transform[ScaleByAdemamixState]):
    """u = (m1_hat + alpha m2) / (sqrt(nu_hat + eps_root) + eps): see `ademamix`. Here alpha is 6 by default.

    >>> tx = scale_by_ademamix()
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"].round(4)
    Array([ 1.0006, -1.0006], dtype=float32)

    Raises:
      ValueError: a decay outside of [0, 1), or a negative `eps` or `eps_root`.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.999
    b3: ScalarOrSchedule = 0.9999
    alpha: ScalarOrSchedule = 6.0
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    mu_dtype: Any = None

    def __post_init__(self) -> None:
        decays = ("b1", "b2") if callable(self.b3) else ("b1", "b2", "b3")
        settle(
            "scale_by_ademamix",
            self,
            decays=decays,
            nonnegative=("eps", "eps_root"),
            schedules=("b3", "alpha"),
            dtypes=("mu_dtype",),
        )

    def init(self, params: Any) -> ScaleByAdemamixState:
        m1, m2 = (zeros_like("scale_by_ademamix", params, self.mu_dtype) for _ in range(2))
        nu = zeros_like("scale_by_ademamix", params, real=True)
        return ScaleByAdemamixState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), m1, m2, nu)

    def update(self, grads: Any, state: ScaleByAdemamixState, params: Any = None) -> tuple[Any, ScaleByAdemamixState]:
        count = safe_increment(state.count)
        total_m, total_v = bias_correction(self.b1, count), bias_correction(self.b2, count)
        b3 = schedule_value("scale_by_ademamix", self.b3, state.count_m2)
        alpha = schedule_value("scale_by_ademamix", self.alpha, state.count_m2)

        def step(g: Array, m1: Array, m2: Array, nu: Array) -> tuple[Array, ...]:
            real = real_dtype(g.dtype)
            slow = b3.astype(real)
            m1 = self.b1 * m1 + (1 - self.b1) * g
            m2 = slow * m2 + (1 - slow) * g
            nu = self.b2 * nu + (1 - self.b2) * abs_sq(g)
            nu_hat = nu / total_v.astype(real)
            if self.eps_root:
                nu_hat = nu_hat + self.eps_root
            return (m1 / total_m.astype(real) + alpha.astype(real) * m2) / (jnp.sqrt(nu_hat) + self.eps), m1, m2, nu

        updates, m1, m2, nu = leafwise("scale_by_ademamix", step, grads, state.m1, state.m2, state.nu)
        return updates, ScaleByAdemamixState(count, safe_increment(state.count_m2), m1, m2, nu)


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    t: Int[Array, ""]
    m: Any  # a decaying sum of g
    n: Any  # the average of g^2


@dataclass(frozen=True)
class ScaleBySimplifiedAdEMAMix(Transform[ScaleBySimplifiedAdEMAMixState]):
    """u = (m + alpha g) / (sqrt(n_hat + eps_root) + eps): see `simplified_ademamix`.

    >>> tx = scale_by_simplified_ademamix(alpha=0.5)
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"].round(4)
    Array([ 1.5, -1.5], dtype=float32)

    Raises:
      ValueError: a decay outside of [0, 1), or a negative `eps` or `eps_root`.
    """

    b1: Scalar = 0.99
    b2: Scalar = 0.95
    alpha: Scalar = 0.0
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0

    def __post_init__(self) -> None:
        settle(
            "scale_by_simplified_ademamix",
            self,
            decays=("b1", "b2"),
            nonnegative=("eps", "eps_root"),
            numbers=("alpha",),
        )

    def init(self, params: Any) -> ScaleBySimplifiedAdEMAMixState:
        m = zeros_like("scale_by_simplified_ademamix", params)
        n = zeros_like("scale_by_simplified_ademamix", params, real=True)
        return ScaleBySimplifiedAdEMAMixState(jnp.zeros((), jnp.int32), m, n)

    def update(
        self, grads: Any, state: ScaleBySimplifiedAdEMAMixState, params: Any = None
    ) -> tuple[Any, ScaleBySimplifiedAdEMAMixState]:
        count = safe_increment(state.t)
        total = bias_correction(self.b2, count)

        def step(g: Array, m: Array, n: Array) -> tuple[Array, Array, Array]:
            m = self.b1 * m + g
            n = self.b2 * n + (1 - self.b2) * abs_sq(g)
            n_hat = n / total.astype(real_dtype(g.dtype))
            if self.eps_root:
                n_hat = n_hat + self.eps_root
            return (m + self.alpha * g) / (jnp.sqrt(n_hat) + self.eps), m, n

        updates, m, n = leafwise("scale_by_simplified_ademamix", step, grads, state.m, state.n)
        return updates, ScaleBySimplifiedAdEMAMixState(count, m, n)


scale_by_ademamix = ScaleByAdemamix
scale_by_simplified_ademamix = ScaleBySimplifiedAdEMAMix


def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Chain:
    """AdamW with a fast and a slow average of gradients, so that very old ones still count.

        m1 = b1 m1 + (1 - b1) g           m1_hat = m1 / (1 - b1^t)        t = 1 in the first update
        m2 = b3 m2 + (1 - b3) g           (not corrected)
        nu = b2 nu + (1 - b2) g^2         nu_hat = nu / (1 - b2^t)
        p  = p - eta ((m1_hat + alpha m2) / (sqrt(nu_hat + eps_root) + eps) + weight_decay p)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1, b2, eps, eps_root: see `adam`.
      b3: the weight of the old slow average: a number or a schedule. For short runs 0.999 may be better.
      alpha: how much the slow average counts: a number or a schedule.
      mu_dtype: the dtype of m1 and m2; None means that of the parameters.
      weight_decay: decoupled: a number or a schedule.
      mask: which parameters decay; see `add_decayed_weights`.

    Differences. optax: equal; the paper's warmups of b3 and alpha are schedules to be given.

    Reference: Pagliardini, Ablin, Grangier, "The AdEMAMix optimizer: better, faster, older", 2024.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = ademamix(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(20):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.12

    Raises:
      ValueError: a decay outside of [0, 1), or a negative argument.
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Chain:
    """AdEMAMix with one sum of gradients beside the gradient itself.

        m = b1 m + g                      (a sum: up to 1 / (1 - b1) times an average, so take a smaller eta)
        n = b2 n + (1 - b2) g^2           n_hat = n / (1 - b2^t)          t = 1 in the first update
        p = p - eta ((m + alpha g) / (sqrt(n_hat + eps_root) + eps) + weight_decay p)

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old sum.
      b2, eps, eps_root: see `adam`.
      alpha: how much more the gradient of now counts.
      weight_decay: decoupled: a number or a schedule.
      mask: which parameters decay; see `add_decayed_weights`.

    Differences. optax: equal.

    Reference: Morwani et al., "Connections between schedule-free optimizers, AdEMAMix, and accelerated SGD variants",
    2025.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = simplified_ademamix(0.02, b1=0.9)
    >>> state = tx.init(params)
    >>> for _ in range(20):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.22

    Raises:
      ValueError: a decay outside of [0, 1), or a negative argument.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
