"""Adadelta: steps in the unit of the parameters, without a learning rate to choose."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import decay_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByAdaDelta", "ScaleByAdaDeltaState", "adadelta", "scale_by_adadelta"]


class ScaleByAdaDeltaState(NamedTuple):
    e_g: Any  # the average of the squared gradients
    e_x: Any  # the average of the squared directions


@dataclass(frozen=True)
class ScaleByAdaDelta(Transform[ScaleByAdaDeltaState]):
    """u = sqrt(e_x + eps) / sqrt(e_g + eps) g: see `adadelta`.

    >>> tx = scale_by_adadelta(rho=0.75, eps=1e-4)
    >>> tx.update({"w": jnp.array([3.0, 0.0])}, tx.init({"w": jnp.ones(2)}))[0]["w"].round(4)
    Array([0.02, 0.  ], dtype=float32)

    Raises:
      ValueError: `rho` outside of [0, 1), or a negative `eps`.
    """

    rho: Scalar = 0.9
    eps: Scalar = 1e-6

    def __post_init__(self) -> None:
        settle("scale_by_adadelta", self, decays=("rho",), nonnegative=("eps",))

    def init(self, params: Any) -> ScaleByAdaDeltaState:
        of_g, of_x = (zeros_like("scale_by_adadelta", params, real=True) for _ in range(2))
        return ScaleByAdaDeltaState(of_g, of_x)

    def update(self, grads: Any, state: ScaleByAdaDeltaState, params: Any = None) -> tuple[Any, ScaleByAdaDeltaState]:
        def step(g: Array, e_g: Array, e_x: Array) -> tuple[Array, Array, Array]:
            e_g = self.rho * e_g + (1 - self.rho) * abs_sq(g)
            u = jnp.sqrt(e_x + self.eps) / jnp.sqrt(e_g + self.eps) * g
            return u, e_g, self.rho * e_x + (1 - self.rho) * abs_sq(u)

        updates, e_g, e_x = leafwise("scale_by_adadelta", step, grads, state.e_g, state.e_x)
        return updates, ScaleByAdaDeltaState(e_g, e_x)


scale_by_adadelta = ScaleByAdaDelta


def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
) -> Chain:
    """Adadelta: the average size of the last steps over that of the last gradients is the rate.

        e_g = rho e_g + (1 - rho) g^2
        u   = sqrt(e_x + eps) / sqrt(e_g + eps) g
        e_x = rho e_x + (1 - rho) u^2
        p   = p - eta u

    It starts slowly, with steps of about sqrt(eps).

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate; None means 1, as in the paper.
      rho: the weight of both old averages.
      eps: stands inside both roots.
      weight_decay: *coupled*, as in optax and torch: g + weight_decay p stands for g. A number or a schedule.
      weight_decay_mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal, except that its default learning rate, None, raises there. torch `Adadelta`: equal, with
    a default rate of 1. Keras `Adadelta`: rho = 0.95, eps = 1e-7, default rate 0.001: `preset("keras", "adadelta")`.
    The averages of complex gradients are of |g|^2.

    Reference: Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adadelta(1.0, eps=1e-2)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.311
    2.113
    1.330

    Raises:
      ValueError: `rho` outside of [0, 1), or a negative argument.
    """
    return chain(
        *decay_links(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(1.0 if learning_rate is None else learning_rate),
    )
