"""Continuous coin betting: no learning rate at all."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import leafwise, need_params, zeros_like
from dlkit.optim.modern.whole import copied
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["COCOBState", "ScaleByCOCOB", "cocob", "scale_by_cocob"]


class COCOBState(NamedTuple):
    init_particles: Any  # the first parameters
    cumulative_gradients: Any  # C: the sum of the negative gradients
    scale: Any  # L: the largest |g|
    subgradients: Any  # G: the sum of |g|
    reward: Any  # R


@dataclass(frozen=True)
class ScaleByCOCOB(Transform[COCOBState]):
    """The whole step of coin betting: see `cocob`. It reads descent directions, so a sign flip comes before it.

    >>> tx = scale_by_cocob()
    >>> params = {"w": jnp.zeros(2)}
    >>> tx.update({"w": jnp.array([3.0, -4.0])}, tx.init(params), params)[0]
    {'w': Array([ 0.01, -0.01], dtype=float32)}

    Raises:
      ValueError: a negative argument; from `update`, `params` is None.
    """

    alpha: Scalar = 100.0
    eps: Scalar = 1e-8

    def __post_init__(self) -> None:
        settle("scale_by_cocob", self, nonnegative=("alpha", "eps"))

    def init(self, params: Any) -> COCOBState:
        def zeros() -> Any:
            return zeros_like("scale_by_cocob", params)

        scale = jax.tree.map(lambda z: z + as_dtype(self.eps, z.dtype), zeros())
        return COCOBState(copied("scale_by_cocob", params), zeros(), scale, zeros(), zeros())

    def update(self, grads: Any, state: COCOBState, params: Any = None) -> tuple[Any, COCOBState]:
        need_params("scale_by_cocob", params)

        def step(g: Array, c: Array, most: Array, s: Array, r: Array, p: Array, p0: Array) -> tuple[Array, ...]:
            most = jnp.maximum(most, jnp.abs(g))
            s = s + jnp.abs(g)
            r = jnp.maximum(r + (p - p0) * g, 0)
            c = c + g
            bet = c / (most * jnp.maximum(s + most, self.alpha * most))
            return bet * (most + r) - (p - p0), c, most, s, r

        moments = (state.cumulative_gradients, state.scale, state.subgradients, state.reward)
        updates, *moments = leafwise("scale_by_cocob", step, grads, *moments, read=(params, state.init_particles))
        return updates, COCOBState(state.init_particles, *moments)


scale_by_cocob = ScaleByCOCOB


def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: Scalar = 100.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """COCOB-Backprop: every coordinate bets a fraction of what its negative gradients (the coin) have won so far.

        c = -eta (g + weight_decay p)             the coin
        L = max(L, |c|)       G = G + |c|       R = max(R + (p - p0) c, 0)       C = C + c
        p = p0 + C / (L max(G + L, alpha L)) (L + R)

    Args:
      learning_rate: eta, a factor on the coin: leave it at 1.
      alpha: bounds the first bets: the first step is of 1 / alpha.
      eps: the first L.
      weight_decay: coupled.
      mask: which parameters decay; see `add_decayed_weights`.

    Differences. optax: equal. The update is complete: no `scale_by_learning_rate` follows.

    Reference: Orabona, Tommasi, "Training deep networks without learning rates through coin betting", 2017.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = cocob()
    >>> state = tx.init(params)
    >>> for _ in range(60):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.00

    Raises:
      ValueError: a negative argument; from `update`, `params` is None.
    """
    return chain(
        add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate), scale_by_cocob(alpha, eps)
    )
