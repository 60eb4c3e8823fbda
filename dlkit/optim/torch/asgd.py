"""torch's ASGD: gradient descent at a falling rate, and the average of its parameters beside it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, schedule_value, settle
from dlkit.optim.leaves import leafwise, need_params, zeros_like
from dlkit.optim.report import find_states
from dlkit.optim.scaling import ScaleByLearningRateState
from dlkit.optim.torch.base import ascent
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["AveragedSgd", "AveragedSgdState", "asgd", "asgd_average"]


class AveragedSgdState(NamedTuple):
    rate: ScaleByLearningRateState  # updates so far, and the rate last used
    average: Any  # of the parameters


@dataclass(frozen=True)
class AveragedSgd(Transform[AveragedSgdState]):
    """u = -eta (g + lambd p), and an average of the parameters in the state: see `asgd`.

    Raises:
      ValueError: a negative argument; from `update`, when `params` is None.
    """

    learning_rate: ScalarOrSchedule = 1e-2
    lambd: Scalar = 1e-4
    alpha: Scalar = 0.75
    t0: Scalar = 1e6

    def __post_init__(self) -> None:
        settle("asgd", self, schedules=("learning_rate",), nonnegative=("lambd", "alpha", "t0"))

    def init(self, params: Any) -> AveragedSgdState:
        average = jax.tree.map(jnp.add, zeros_like("asgd", params), params)  # a copy, strongly typed
        count = jnp.zeros((), jnp.int32)
        rate = schedule_value("asgd", self.learning_rate, count).astype(jnp.float32)
        return AveragedSgdState(ScaleByLearningRateState(count, rate), average)

    def update(self, grads: Any, state: AveragedSgdState, params: Any = None) -> tuple[Any, AveragedSgdState]:
        need_params("asgd", params)
        count = state.rate.count
        # torch computes the next rate at the end of a step: a schedule of its base acts one update late.
        base = schedule_value("asgd", self.learning_rate, jnp.maximum(count - 1, 0))
        t = count.astype(base.dtype)
        alpha, t0 = (as_dtype(value, base.dtype) for value in (self.alpha, self.t0))
        eta = base / jnp.power(1 + self.lambd * base * t, alpha)
        share = 1 / jnp.maximum(t - t0, jnp.ones_like(t))

        def step(g: Array, average: Array, p: Array) -> tuple[Array, Array]:
            u = -eta.astype(g.dtype) * (g + self.lambd * p)
            new = p + u
            return u, jnp.where(share == 1, new, average + share.astype(g.dtype) * (new - average))

        updates, average = leafwise("asgd", step, grads, state.average, read=(params,))
        rate = ScaleByLearningRateState(safe_increment(count), eta.astype(jnp.float32))
        return updates, AveragedSgdState(rate, average)


def asgd(
    lr: ScalarOrSchedule = 1e-2,
    lambd: Scalar = 1e-4,
    alpha: Scalar = 0.75,
    t0: Scalar = 1e6,
    weight_decay: Scalar = 0.0,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.ASGD: descent at a falling rate, with the average of the parameters from step t0 on.

        eta = lr / (1 + lambd lr t)^alpha              t = 0 in the first update
        p   = p - eta (g + lambd p)
        average = average + (p - average) / max(1, t - t0)

    The average, which `asgd_average(opt_state)` reads, is p itself up to step t0. torch keeps eta in its default
    dtype: with float64 parameters and a float32 default its steps are off by some 1e-9.

    Args:
      lr: the first learning rate, or a schedule; as in torch, a schedule acts one update late.
      lambd: the weight decay that also sets how fast the rate falls.
      alpha: the power with which it falls.
      t0: the step from which on the parameters are averaged.
      weight_decay: coupled: g + weight_decay p stands for g.
      maximize: climb instead of descending.
      mask: which parameters `weight_decay` acts on; None for all.

    Reference: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = asgd(0.1, t0=0)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.200
    2.048
    1.311

    Raises:
      ValueError: a negative argument.
    """
    return chain(*ascent(maximize), *l2_links(weight_decay, mask), AveragedSgd(lr, lambd, alpha, t0))


def asgd_average(opt_state: Any) -> Any:
    """The averaged parameters, from the state of an optimizer with `asgd`; before the first update, the parameters.

    >>> tx = asgd(0.5, lambd=0.0, t0=0)
    >>> p, state = jnp.array([4.0]), tx.init(jnp.array([4.0]))
    >>> for _ in range(3):
    ...     updates, state = tx.update(p, state, p)
    ...     p = p + updates
    >>> p, asgd_average(state)  # p went 2, 1, 0.5, and t0 counts from the second
    (Array([0.5], dtype=float32), Array([0.75], dtype=float32))

    Raises:
      ValueError: the state holds no such average, or more than one.
    """
    found = find_states(opt_state, AveragedSgdState)
    if len(found) != 1:
        raise ValueError(f"asgd_average: the state holds {len(found) or 'no'} averages, wanted one asgd in it")
    return next(iter(found.values())).average
