"""MADGRAD: dual averaging with a cube root and momentum."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, schedule_value, settle
from dlkit.optim.leaves import check_real, leafwise, need_params, zeros_like
from dlkit.optim.modern.whole import copied
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["MadgradState", "ScaleByMadgrad", "madgrad", "scale_by_madgrad"]


class MadgradState(NamedTuple):
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    grad_sum_sq: Any  # v: the weighted sum of g^2
    s: Any  # the weighted sum of g
    x0: Any  # the first parameters


@dataclass(frozen=True)
class ScaleByMadgrad(Transform[MadgradState]):
    """The whole step of MADGRAD, its learning rate included: see `madgrad`.

    >>> tx = scale_by_madgrad(0.5, momentum=0.0, eps=0.0)
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update({"w": jnp.array([1.0, -1.0])}, tx.init(params), params)[0]["w"].round(3)
    Array([-0.63000005,  0.63000005], dtype=float32)

    Raises:
      ValueError: `momentum` outside of [0, 1), or a negative `eps`; from `update`, `params` is None.
    """

    learning_rate: ScalarOrSchedule
    momentum: Scalar = 0.9
    eps: Scalar = 1e-6

    def __post_init__(self) -> None:
        settle("scale_by_madgrad", self, decays=("momentum",), nonnegative=("eps",), schedules=("learning_rate",))

    def init(self, params: Any) -> MadgradState:
        check_real("scale_by_madgrad", params)
        v, s = (zeros_like("scale_by_madgrad", params) for _ in range(2))
        return MadgradState(jnp.zeros((), jnp.int32), v, s, copied("scale_by_madgrad", params))

    def update(self, grads: Any, state: MadgradState, params: Any = None) -> tuple[Any, MadgradState]:
        need_params("scale_by_madgrad", params)
        count = safe_increment(state.count)
        rate = schedule_value("scale_by_madgrad", self.learning_rate, state.count)
        weight = (rate + as_dtype(self.eps, rate.dtype)) * jnp.sqrt(count.astype(rate.dtype))

        def step(g: Array, v: Array, s: Array, p: Array, x0: Array) -> tuple[Array, Array, Array]:
            k = weight.astype(g.dtype)
            v, s = v + k * g * g, s + k * g
            root = jnp.cbrt(v) + self.eps
            down = jnp.where(root > 0, s / jnp.where(root > 0, root, jnp.ones_like(root)), jnp.zeros_like(s))
            return (1 - self.momentum) * (x0 - p - down), v, s

        updates, v, s = leafwise("scale_by_madgrad", step, grads, state.grad_sum_sq, state.s, read=(params, state.x0))
        return updates, MadgradState(count, v, s, state.x0)


scale_by_madgrad = ScaleByMadgrad


def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    eps: Scalar = 1e-6,
) -> Chain:
    """MADGRAD: from the first parameters, a sum of gradients over the cube root of a sum of squares.

        k = (eta + eps) sqrt(t)          t = 1 in the first update
        s = s + k g                      v = v + k g^2
        z = p0 - s / (cbrt(v) + eps)
        p = momentum p + (1 - momentum) z

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      momentum: how slowly p follows z.
      weight_decay: coupled: g + weight_decay p stands for g.
      eps: stands outside the root, and is added to eta.

    Differences. optax and the authors' code: equal. The update is complete: no
    `scale_by_learning_rate` follows.

    Reference: Defazio, Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient
    method for stochastic optimization", 2021.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = madgrad(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(40):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.04

    Raises:
      ValueError: `momentum` outside of [0, 1), or a negative argument; from `update`, `params` is None.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
