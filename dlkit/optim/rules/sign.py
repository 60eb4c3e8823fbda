"""The sign of the gradient, of a momentum, and Lion."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, EmptyState, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = [
    "ScaleByLion",
    "ScaleByLionState",
    "ScaleBySign",
    "lion",
    "scale_by_lion",
    "scale_by_sign",
    "sign_sgd",
    "signum",
]


@dataclass(frozen=True)
class ScaleBySign(Transform[EmptyState]):
    """u = sign(g), which is 0 where g is 0. Of a complex gradient, g / |g|.

    >>> scale_by_sign().update({"w": jnp.array([-3.0, 0.0, 0.1])}, EmptyState())[0]
    {'w': Array([-1.,  0.,  1.], dtype=float32)}
    """

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        (updates,) = leafwise("scale_by_sign", jnp.sign, grads)
        return updates, state


scale_by_sign = ScaleBySign


def sign_sgd(learning_rate: ScalarOrSchedule) -> Chain:
    """Sign descent: every parameter moves by the learning rate.

        p = p - eta sign(g)

    It is steepest descent in the l-infinity norm (`steepest_descent`). With a constant eta it does not come closer to a
    minimum than eta: let a schedule lower it.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.

    Differences. optax: equal. torch and Keras have none.

    Reference: Bernstein et al., "signSGD: compressed optimisation for non-convex problems", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = sign_sgd(0.25)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.625
    2.500
    1.625
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


def signum(learning_rate: ScalarOrSchedule, beta: Scalar = 0.9, accumulator_dtype: Any = None) -> Chain:
    """Sign descent along a momentum.

        v = beta v + g
        p = p - eta sign(v)

    The average beta m + (1 - beta) g of the paper is (1 - beta) v, and has the same sign.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      beta: the weight of the old velocity.
      accumulator_dtype: the dtype of v; None means that of the parameters.

    Differences. optax: equal; it holds the average. torch and Keras have none.

    Reference: Bernstein et al., "signSGD: compressed optimisation for non-convex problems", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = signum(0.25)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.625
    2.500
    1.625

    Raises:
      ValueError: a negative `beta`.
    """
    return chain(
        trace(beta, accumulator_dtype=accumulator_dtype), scale_by_sign(), scale_by_learning_rate(learning_rate)
    )


class ScaleByLionState(NamedTuple):
    mu: Any  # the average of the gradients, one for every parameter


@dataclass(frozen=True)
class ScaleByLion(Transform[ScaleByLionState]):
    """u = sign(b1 mu + (1 - b1) g), and then mu = b2 mu + (1 - b2) g: see `lion`.

    Args:
      b1: the weight of mu in the direction.
      b2: the weight of the old average in the new one.
      mu_dtype: the dtype of mu; None means that of the parameters.
      mode: what stands for the sign of c = b1 mu + (1 - b1) g: `"hard"`, sign(c); `"smooth"`, tanh(smooth_beta c);
        `"refined"`, c itself where |c| < 1, and its sign beyond.
      smooth_beta: how steep the tanh is.

    Differences. optax: equal; its state has a count too, which nothing reads.

    >>> tx = scale_by_lion()
    >>> updates, state = tx.update({"w": jnp.array([3.0, -0.1])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"], state.mu["w"]
    (Array([ 1., -1.], dtype=float32), Array([ 0.03 , -0.001], dtype=float32))

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or an unknown mode.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.99
    mu_dtype: Any = None
    _: KW_ONLY
    mode: Literal["hard", "smooth", "refined"] = "hard"
    smooth_beta: Scalar = 1.0

    def __post_init__(self) -> None:
        settle("scale_by_lion", self, decays=("b1", "b2"), numbers=("smooth_beta",), dtypes=("mu_dtype",))
        if self.mode not in ("hard", "smooth", "refined"):
            raise ValueError(f"scale_by_lion: mode is {self.mode!r}, wanted 'hard', 'smooth' or 'refined'")

    def init(self, params: Any) -> ScaleByLionState:
        return ScaleByLionState(zeros_like("scale_by_lion", params, self.mu_dtype))

    def update(self, grads: Any, state: ScaleByLionState, params: Any = None) -> tuple[Any, ScaleByLionState]:
        def step(g: Array, mu: Array) -> tuple[Array, Array]:
            new = self.b2 * mu + (1 - self.b2) * g
            # The same c, of the new average: nothing reads the old one any more, and XLA writes over it. Else, with
            # state and parameters donated, it copies every leaf first: three times the time. In 16 bits the rounding of
            # the new average would show.
            if isinstance(self.b1, float) and isinstance(self.b2, float) and self.b1 <= self.b2 and wide(g.dtype):
                share = self.b1 / self.b2 if self.b2 else 0.0
                return self._sign((1 - share) * g + share * new), new
            return self._sign((1 - self.b1) * g + self.b1 * mu), new

        def wide(dtype: Any) -> bool:
            return jnp.finfo(dtype).bits > 16 and self.mu_dtype is None

        updates, mu = leafwise("scale_by_lion", step, grads, state.mu)
        return updates, ScaleByLionState(mu)

    def _sign(self, c: Array) -> Array:
        if self.mode == "smooth":
            return jnp.tanh(self.smooth_beta * c)
        if self.mode == "refined":
            return jnp.where(jnp.abs(c) < 1, c, jnp.sign(c))
        return jnp.sign(c)


scale_by_lion = ScaleByLion


def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
) -> Chain:
    """Lion: the sign of a mixture of gradient and momentum, with decoupled weight decay.

        c  = b1 mu + (1 - b1) g
        mu = b2 mu + (1 - b2) g
        p  = p - eta (sign(c) + weight_decay p)

    It remembers one number a parameter. Every step has length eta in each coordinate, so its rates are 3 to 10 times
    smaller than Adam's, and its decay larger by as much.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate. It scales the decay too.
      b1, b2, mu_dtype: see `ScaleByLion`.
      weight_decay: a number or a schedule.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal. Keras `Lion`: equal with weight_decay=0, which is its default. torch has none. A
    coordinate whose mixture c cancels to about zero gets its sign from rounding: there float32 and float64 take
    different steps, and so do two libraries that add in another order.

    Reference: Chen et al., "Symbolic discovery of optimization algorithms", 2023.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = lion(0.25, weight_decay=0.0)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.625
    2.500
    1.625

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative decay.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
