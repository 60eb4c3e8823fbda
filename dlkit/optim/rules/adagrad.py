"""Adagrad: a rate for every parameter, from the sum of its squared gradients."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByRss", "ScaleByRssState", "adagrad", "scale_by_rss"]


class ScaleByRssState(NamedTuple):
    sum_of_squares: Any  # s, one for every parameter


@dataclass(frozen=True)
class ScaleByRss(Transform[ScaleByRssState]):
    """s = s + g^2 and u = g / sqrt(s + eps): see `adagrad`. With `eps_in_sqrt=False`, u = g / (sqrt(s) + eps).

    A parameter whose gradients were all zero (s = 0) gets a zero update, at eps = 0 too.

    >>> tx = scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
    >>> tx.update({"w": jnp.array([3.0, 0.0])}, tx.init({"w": jnp.ones(2)}))[0]
    {'w': Array([1., 0.], dtype=float32)}

    Raises:
      ValueError: a negative argument.
    """

    initial_accumulator_value: Scalar = 0.1
    eps: Scalar = 1e-7
    _: KW_ONLY
    eps_in_sqrt: bool = True

    def __post_init__(self) -> None:
        settle("scale_by_rss", self, nonnegative=("initial_accumulator_value", "eps"))

    def init(self, params: Any) -> ScaleByRssState:
        return ScaleByRssState(zeros_like("scale_by_rss", params, fill=self.initial_accumulator_value, real=True))

    def update(self, grads: Any, state: ScaleByRssState, params: Any = None) -> tuple[Any, ScaleByRssState]:
        def step(g: Array, s: Array) -> tuple[Array, Array]:
            s = s + abs_sq(g)
            inverse = jax.lax.rsqrt(s + self.eps) if self.eps_in_sqrt else 1 / (jnp.sqrt(s) + self.eps)
            return jnp.where(s > 0, g * inverse, jnp.zeros_like(g)), s

        updates, sums = leafwise("scale_by_rss", step, grads, state.sum_of_squares)
        return updates, ScaleByRssState(sums)


scale_by_rss = ScaleByRss


def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: Scalar = 0.1,
    eps: Scalar = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """Adagrad.

        s = s + g^2             starting from initial_accumulator_value
        p = p - eta g / sqrt(s + eps)              (eps_in_sqrt=False:  p - eta g / (sqrt(s) + eps))

    The sum only grows, so the rate of every parameter only falls: good for sparse gradients, slow in long runs.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      initial_accumulator_value: what s starts from.
      eps: keeps the denominator from zero.
      eps_in_sqrt: whether eps stands inside the root.
      l2: coupled weight decay: g + l2 * p stands for g.
      mask: which parameters `l2` acts on.

    Differences. optax: equal. torch `Adagrad`: starts from 0, eps = 1e-10 outside the root
    (`adagrad(lr, **preset("torch", "adagrad"))`); its `lr_decay` is a schedule here. Keras: as here.

    Reference: Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adagrad(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    2.511
    1.525
    0.998

    Raises:
      ValueError: a negative argument.
    """
    return chain(
        *l2_links(l2, mask),
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
    )
