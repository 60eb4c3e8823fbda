"""Optimistic gradients: extrapolation against the cycling of two players."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.scaling import scale, scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain

__all__ = [
    "ScaleByOptimisticGradient",
    "ScaleByOptimisticGradientState",
    "optimistic_adam",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "scale_by_optimistic_gradient",
]


class ScaleByOptimisticGradientState(NamedTuple):
    is_initial_step: Bool[Array, ""]
    previous_gradient: Any


@dataclass(frozen=True)
class ScaleByOptimisticGradient(Transform[ScaleByOptimisticGradientState]):
    """u_t = (alpha + beta) g_t - beta g_(t-1), and alpha g in the first step: see `optimistic_gradient_descent`.

    >>> tx = scale_by_optimistic_gradient()
    >>> state = tx.init({"w": jnp.ones(1)})
    >>> for g in (1.0, 3.0, 3.0):
    ...     updates, state = tx.update({"w": jnp.array([g])}, state)
    ...     print(updates["w"])
    [1.]
    [5.]
    [3.]
    """

    alpha: Scalar = 1.0
    beta: Scalar = 1.0

    def __post_init__(self) -> None:
        settle("scale_by_optimistic_gradient", self, numbers=("alpha", "beta"))

    def init(self, params: Any) -> ScaleByOptimisticGradientState:
        previous = zeros_like("scale_by_optimistic_gradient", params)
        return ScaleByOptimisticGradientState(jnp.ones((), jnp.bool_), previous)

    def update(
        self, grads: Any, state: ScaleByOptimisticGradientState, params: Any = None
    ) -> tuple[Any, ScaleByOptimisticGradientState]:
        def step(g: Array, previous: Array) -> tuple[Array, Array]:
            previous = jnp.where(state.is_initial_step, g, previous)
            return (self.alpha + self.beta) * g - self.beta * previous, g

        updates, previous = leafwise("scale_by_optimistic_gradient", step, grads, state.previous_gradient)
        return updates, ScaleByOptimisticGradientState(jnp.zeros((), jnp.bool_), previous)


scale_by_optimistic_gradient = ScaleByOptimisticGradient


def optimistic_gradient_descent(learning_rate: ScalarOrSchedule, alpha: Scalar = 1.0, beta: Scalar = 1.0) -> Chain:
    """Optimistic gradient descent: it converges where two players circle around each other.

        p = p - eta (alpha g_t + beta (g_t - g_(t-1)))          g_(t-1) = g_t in the first step

    On min over x, max over y of x y, gradient descent spirals outwards for every rate; this spirals inwards.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      alpha: the weight of the gradient.
      beta: the weight of its last change.

    Differences. optax: equal. torch and Keras have none.

    References: Mokhtari, Ozdaglar, Pattathil, "A unified analysis of extra-gradient and optimistic gradient methods for
    saddle point problems", 2020. Popov, "A modification of the Arrow-Hurwicz method for search of saddle points", 1980.

    >>> from dlkit import optim
    >>> params = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    >>> tx = optimistic_gradient_descent(0.3)
    >>> state = tx.init(params)
    >>> for t in range(61):
    ...     if t % 20 == 0:
    ...         print(f"{jnp.hypot(params['x'], params['y']):.3f}")
    ...     grads = {"x": params["y"], "y": -params["x"]}  # of the two players' losses x y and -x y
    ...     updates, state = tx.update(grads, state, params)
    ...     params = optim.apply_updates(params, updates)
    1.414
    0.555
    0.193
    0.067
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = True,
) -> Chain:
    """Adam with optimism: its direction d in the place of the gradient.

        p = p - eta (alpha d_t + beta (d_t - d_(t-1)))          d_(t-1) = d_t in the first step

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      alpha: the weight of Adam's direction.
      beta: the weight of its last change.
      b1, b2, eps, eps_root, mu_dtype, nesterov: see `adam`; here Nesterov's look-ahead is the default, as in optax.

    Differences. optax: equal. torch and Keras have none.

    Reference: Daskalakis, Ilyas, Syrgkanis, Zeng, "Training GANs with optimism", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = optimistic_adam_v2(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.159
    3.749
    3.276

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or a negative `eps` or `eps_root`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )


def optimistic_adam(
    learning_rate: Scalar,
    optimism: Scalar | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
) -> Chain:
    """The older form of `optimistic_adam_v2`: the rate and the optimism are the two weights themselves.

        p = p - (learning_rate d_t + optimism (d_t - d_(t-1)))

    It takes no schedule: `optimistic_adam_v2(learning_rate, beta=optimism / learning_rate)` takes the same steps and
    does.

    Args:
      learning_rate: the weight of Adam's direction; a number.
      optimism: the weight of its last change; None means the learning rate.
      b1, b2, eps, eps_root, mu_dtype, nesterov: see `adam`; here Nesterov's look-ahead is the default, as in optax.

    Differences. optax: equal; there it is deprecated, and warns.

    >>> optimistic_adam(0.1).links[1:]
    (ScaleByOptimisticGradient(alpha=0.1, beta=0.1), Scale(step_size=-1.0))

    Raises:
      TypeError: the learning rate is a schedule.
      ValueError: `b1` or `b2` outside of [0, 1), or a negative `learning_rate`, `eps` or `eps_root`.
    """
    if callable(learning_rate):
        raise TypeError("optimistic_adam: the learning rate is a schedule, wanted a number; see optimistic_adam_v2")
    learning_rate = as_float("optimistic_adam", "learning_rate", learning_rate)
    if isinstance(learning_rate, float) and not learning_rate >= 0:
        raise ValueError(f"optimistic_adam: learning_rate is {learning_rate}, wanted 0 or more")
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(learning_rate, learning_rate if optimism is None else optimism),
        scale(-1.0),
    )
