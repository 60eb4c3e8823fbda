"""Adan: Nesterov's momentum by the differences of gradients, with Adam's scaling."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import decay_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByAdan", "ScaleByAdanState", "adan", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    m: Any  # the average of the gradients
    v: Any  # the average of their differences
    n: Any  # the average of the squared extrapolated gradients
    g: Any  # the last gradient
    t: Int[Array, ""]  # updates so far (int32)


@dataclass(frozen=True)
class ScaleByAdan(Transform[ScaleByAdanState]):
    """u = (m_hat + (1 - b2) v_hat) / (sqrt(n_hat + eps_root) + eps): see `adan`.

    >>> tx = scale_by_adan()
    >>> tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))[0]["w"].round(4)
    Array([ 1., -1.], dtype=float32)

    Raises:
      ValueError: `b1`, `b2` or `b3` outside of [0, 1), a negative `eps` or `eps_root`.
    """

    b1: Scalar = 0.98
    b2: Scalar = 0.92
    b3: Scalar = 0.99
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0

    def __post_init__(self) -> None:
        settle("scale_by_adan", self, decays=("b1", "b2", "b3"), nonnegative=("eps", "eps_root"))

    def init(self, params: Any) -> ScaleByAdanState:
        m, v, g = (zeros_like("scale_by_adan", params) for _ in range(3))
        n = zeros_like("scale_by_adan", params, real=True)
        return ScaleByAdanState(m, v, n, g, jnp.zeros((), jnp.int32))

    def update(self, grads: Any, state: ScaleByAdanState, params: Any = None) -> tuple[Any, ScaleByAdanState]:
        t = safe_increment(state.t)
        of_m, of_v, of_n = (1 / bias_correction(b, t) for b in (self.b1, self.b2, self.b3))
        ahead = 1 - self.b2

        def step(g: Array, m: Array, v: Array, n: Array, last: Array) -> tuple[Array, ...]:
            difference = jnp.where(state.t == 0, jnp.zeros_like(g), g - last)
            m = self.b1 * m + (1 - self.b1) * g
            v = self.b2 * v + (1 - self.b2) * difference
            n = self.b3 * n + (1 - self.b3) * abs_sq(g + ahead * difference)
            direction = of_m.astype(g.dtype) * m + ahead * (of_v.astype(g.dtype) * v)
            return direction / (jnp.sqrt(of_n.astype(n.dtype) * n + self.eps_root) + self.eps), m, v, n, g

        updates, m, v, n, last = leafwise("scale_by_adan", step, grads, state.m, state.v, state.n, state.g)
        return updates, ScaleByAdanState(m, v, n, last, t)


scale_by_adan = ScaleByAdan


def adan(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Chain:
    """Adan: the gradient is extrapolated by how it changed, and both are averaged.

        d = g - (last g)                     0 in the first update, t = 1
        m = b1 m + (1 - b1) g                m_hat = m / (1 - b1^t)
        v = b2 v + (1 - b2) d                v_hat = v / (1 - b2^t)
        n = b3 n + (1 - b3) (g + (1 - b2) d)^2         n_hat = n / (1 - b3^t)
        p = p - eta ((m_hat + (1 - b2) v_hat) / (sqrt(n_hat + eps_root) + eps) + weight_decay p)

    The b's are the weights of the old values; the paper's are those of the new ones (0.02, 0.08, 0.01).

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of differences.
      b3: the weight of the old average of squares.
      eps: stands outside the root.
      eps_root: stands inside the root.
      weight_decay: decoupled, a number or a schedule.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal. The paper extrapolates by b2 in our letters (0.92) where optax has 1 - b2 (0.08), and
    divides by 1 + eta weight_decay where this subtracts the decay. torch and Keras have none.

    Reference: Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", 2022.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adan(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.420
    3.881
    3.382

    Raises:
      ValueError: as `ScaleByAdan`, or a negative `weight_decay`.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        *decay_links(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
