"""ADOPT: Adam whose second moment leaves the gradient of now out."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, settle
from dlkit.optim.leaves import abs_sq, check_real, leafwise, real_dtype, zeros_like
from dlkit.optim.rules.adam import ScaleByAdamState
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["FourthRoot", "ScaleByAdopt", "adopt", "scale_by_adopt"]


@dataclass(frozen=True)
class FourthRoot:
    """count^(1/4): ADOPT's bound on a normalized gradient in update number `count`; 0 in the first.

    >>> FourthRoot()(jnp.int32(16))
    Array(2., dtype=float32)
    """

    def __call__(self, count: Any) -> Array:
        return jnp.asarray(count, jnp.result_type(float)) ** 0.25


@dataclass(frozen=True)
class ScaleByAdopt(Transform[ScaleByAdamState]):
    """u = mu, the average of g / max(sqrt(nu), eps): see `adopt`.

    The state is `ScaleByAdamState`, as in optax.

    >>> tx = scale_by_adopt(use_clipping=False)
    >>> grads, state = {"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)})
    >>> for _ in range(2):
    ...     updates, state = tx.update(grads, state)
    ...     print(updates["w"].round(3))
    [0. 0.]
    [ 0.1 -0.1]

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative `eps`.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.9999
    eps: Scalar = 1e-6
    mu_dtype: Any = None
    _: KW_ONLY
    nesterov: bool = False
    use_clipping: bool = True
    clip_value_fn: Callable[[Any], Any] = FourthRoot()

    def __post_init__(self) -> None:
        settle("scale_by_adopt", self, decays=("b1", "b2"), nonnegative=("eps",), dtypes=("mu_dtype",))

    def init(self, params: Any) -> ScaleByAdamState:
        if self.use_clipping:
            check_real("scale_by_adopt with use_clipping", params)
        mu = zeros_like("scale_by_adopt", params, self.mu_dtype)
        return ScaleByAdamState(jnp.zeros((), jnp.int32), mu, zeros_like("scale_by_adopt", params, real=True))

    def update(self, grads: Any, state: ScaleByAdamState, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        first = state.count == 0
        bound = jnp.asarray(self.clip_value_fn(state.count)) if self.use_clipping else None

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            real = real_dtype(g.dtype)
            normed = g / jnp.maximum(jnp.sqrt(nu), as_dtype(self.eps, real))
            if bound is not None:
                most = bound.astype(real)
                normed = jnp.clip(normed, -most, most)
            # The first gradient only starts nu.
            ahead = jnp.where(first, mu, self.b1 * mu + (1 - self.b1) * normed)
            square = abs_sq(g)
            nu = jnp.where(first, square, self.b2 * nu + (1 - self.b2) * square)
            looked = self.b1 * ahead + (1 - self.b1) * normed if self.nesterov else ahead
            return jnp.where(first, jnp.zeros_like(g), looked), ahead, nu

        updates, mu, nu = leafwise("scale_by_adopt", step, grads, state.mu, state.nu)
        return updates, ScaleByAdamState(safe_increment(state.count), mu, nu)


scale_by_adopt = ScaleByAdopt


def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = FourthRoot(),
) -> Chain:
    """ADOPT: Adam in another order, which converges with any b2.

        n  = clip(g / max(sqrt(nu), eps), -c(t), c(t))        nu without the gradient of now; c(t) = t^(1/4)
        mu = b1 mu + (1 - b1) n
        p  = p - eta mu
        nu = b2 nu + (1 - b2) g^2

    The first update (t = 0) only sets nu = g^2.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of normalized gradients.
      b2: the weight of the old average of squared gradients.
      eps: the least divisor.
      mu_dtype: the dtype of mu; None means that of the parameters.
      nesterov: b1 mu + (1 - b1) n stands for mu in the step.
      use_clipping: whether n is clipped.
      clip_value_fn: c, from the number of the update to a bound; a frozen dataclass or a named function pickles.

    Differences. optax: equal.

    Reference: Taniguchi et al., "ADOPT: modified Adam can converge with any beta2 with the optimal rate", 2024.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adopt(0.2)
    >>> state = tx.init(params)
    >>> for _ in range(20):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.16

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative `eps`.
    """
    direction = scale_by_adopt(
        b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return chain(direction, scale_by_learning_rate(learning_rate))
