"""Momentum, and stochastic gradient descent."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["Trace", "TraceState", "sgd", "trace"]


class TraceState(NamedTuple):
    """The velocity, and with dampening, which spares the first gradient, the updates so far (int32)."""

    trace: Any  # v, one for every parameter
    count: Int[Array, ""] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class Trace(Transform[TraceState]):
    """Momentum: v = decay * v + (1 - dampening) * g, and u = v (with `nesterov`, u = decay * v + g).

    Args:
      decay: the weight of the old velocity.
      nesterov: whether to look ahead.
      accumulator_dtype: the dtype of v; None means that of the parameters.
      dampening: how much less a gradient counts, all but the first one (torch's).

    Differences. optax's `trace` has no dampening.

    References: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964. Sutskever et al.,
    "On the importance of initialization and momentum in deep learning", 2013.

    >>> tx = trace(0.5)
    >>> grads, state = {"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)})
    >>> for _ in range(3):
    ...     updates, state = tx.update(grads, state)
    ...     print(updates["w"])
    [1.]
    [1.5]
    [1.75]

    Raises:
      ValueError: `decay` outside of [0, 1), or Nesterov momentum with dampening.
    """

    decay: Scalar
    nesterov: bool = False
    accumulator_dtype: Any = None
    _: KW_ONLY
    dampening: Scalar = 0.0

    def __post_init__(self) -> None:
        settle("trace", self, numbers=("decay", "dampening"), dtypes=("accumulator_dtype",))
        if isinstance(self.decay, float) and not 0 <= self.decay < 1:
            raise ValueError(f"trace: decay, the momentum, is {self.decay}, wanted 0 <= decay < 1")
        if self.nesterov and self.dampening:
            raise ValueError(f"trace: nesterov=True with dampening={self.dampening}, wanted dampening=0")

    def init(self, params: Any) -> TraceState:
        count = jnp.zeros((), jnp.int32) if self.dampening else None
        return TraceState(zeros_like("trace", params, self.accumulator_dtype), count)

    def update(self, grads: Any, state: TraceState, params: Any = None) -> tuple[Any, TraceState]:
        weight, count = None, state.count
        if count is not None:
            later = as_dtype(1.0 - self.dampening, jnp.result_type(float))
            weight = jnp.where(count == 0, jnp.ones_like(later), later)
            count = safe_increment(count)

        def step(g: Array, v: Array) -> tuple[Array, Array]:
            v = self.decay * v + (g if weight is None else weight.astype(g.dtype) * g)
            return (g + self.decay * v if self.nesterov else v), v

        updates, velocity = leafwise("trace", step, grads, state.trace)
        return updates, TraceState(velocity, count)


trace = Trace


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    *,
    dampening: Scalar = 0.0,
    lr_in_velocity: bool = False,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """Stochastic gradient descent, with momentum in either of its two forms.

        plain                          p = p - eta g
        momentum = alpha               v = alpha v + g         p = p - eta v
        lr_in_velocity=True            v = alpha v - eta g     p = p + v

    With `nesterov`, alpha v + g (or alpha v - eta g) stands for v in the step. At a constant eta both forms of momentum
    take the same steps. Under a schedule they part: in the first, a new rate acts on the whole velocity at once; in
    the second, only on the gradients still to come.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      momentum: alpha; None for no velocity at all.
      nesterov: whether to look ahead.
      accumulator_dtype: the dtype of v; None means that of the parameters.
      dampening: v = alpha v + (1 - dampening) g from the second gradient on.
      lr_in_velocity: whether the rate enters the velocity.
      l2: coupled weight decay: g + l2 * p stands for g (torch's `weight_decay`).
      mask: which parameters `l2` acts on: None for all, path globs, a tree of booleans, or a callable.

    Differences. torch `SGD`: equal (`l2` is its `weight_decay`). optax `sgd`: equal; it has no dampening, no second
    form and no l2. Keras `SGD`: equals `lr_in_velocity=True`.

    References: see `Trace`.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = sgd(0.1, momentum=0.9)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.200
    1.058
    0.019

    Raises:
      ValueError: Nesterov momentum without momentum or with dampening; a negative momentum or l2.
    """
    if momentum is None and (nesterov or dampening):
        raise ValueError(f"sgd: nesterov={nesterov} and dampening={dampening} need a momentum, got momentum=None")
    rate = scale_by_learning_rate(learning_rate)
    if momentum is None:
        return chain(*l2_links(l2, mask), rate)
    velocity = trace(momentum, nesterov, accumulator_dtype, dampening=dampening)
    return chain(*l2_links(l2, mask), *((rate, velocity) if lr_in_velocity else (velocity, rate)))
