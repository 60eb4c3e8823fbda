"""RMSProp: a rate for every parameter, from a moving average of its squared gradients."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import l2_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, bias_correction, safe_increment, settle
from dlkit.optim.leaves import abs_sq, leafwise, zeros_like
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = [
    "ScaleByRms",
    "ScaleByRmsState",
    "ScaleByStddev",
    "ScaleByStddevState",
    "rmsprop",
    "scale_by_rms",
    "scale_by_stddev",
]


class ScaleByRmsState(NamedTuple):
    """The average of squared gradients, and with bias correction the updates so far (int32)."""

    nu: Any  # the average of the squared gradients, one for every parameter
    count: Int[Array, ""] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class ScaleByRms(Transform[ScaleByRmsState]):
    """nu = decay * nu + (1 - decay) * g^2 and u = g / sqrt(nu + eps): see `rmsprop`.

    With `eps_in_sqrt=False`, u = g / (sqrt(nu) + eps). With `bias_correction`, nu / (1 - decay^t) stands for nu.

    >>> tx = scale_by_rms(decay=0.75)
    >>> tx.update({"w": jnp.array([3.0])}, tx.init({"w": jnp.ones(1)}))[0]
    {'w': Array([2.], dtype=float32)}

    Raises:
      ValueError: `decay` outside of [0, 1), or another negative argument.
    """

    decay: Scalar = 0.9
    eps: Scalar = 1e-8
    initial_scale: Scalar = 0.0
    eps_in_sqrt: bool = True
    bias_correction: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_rms", self, decays=("decay",), nonnegative=("eps", "initial_scale"))

    def init(self, params: Any) -> ScaleByRmsState:
        count = jnp.zeros((), jnp.int32) if self.bias_correction else None
        return ScaleByRmsState(zeros_like("scale_by_rms", params, fill=self.initial_scale, real=True), count)

    def update(self, grads: Any, state: ScaleByRmsState, params: Any = None) -> tuple[Any, ScaleByRmsState]:
        count, total = _counted(state.count, self.decay)

        def step(g: Array, nu: Array) -> tuple[Array, Array]:
            nu = self.decay * nu + (1 - self.decay) * abs_sq(g)
            return g * _inverse_root(_over(nu, total), self.eps, self.eps_in_sqrt), nu

        updates, nu = leafwise("scale_by_rms", step, grads, state.nu)
        return updates, ScaleByRmsState(nu, count)


class ScaleByStddevState(NamedTuple):
    """Both averages, and with bias correction the updates so far (int32)."""

    mu: Any  # the average of the gradients
    nu: Any  # the average of the squared gradients
    count: Int[Array, ""] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class ScaleByStddev(Transform[ScaleByStddevState]):
    """As `scale_by_rms`, with the variance nu - mu^2 of the gradients in the place of nu: centered RMSProp.

    mu = decay * mu + (1 - decay) * g. Rounding can make nu - mu^2 of a steady gradient negative; it is cut off at 0,
    where optax and torch return NaN.

    >>> tx = scale_by_stddev(decay=0.5)
    >>> tx.update({"w": jnp.array([3.0])}, tx.init({"w": jnp.ones(1)}))[0]
    {'w': Array([2.], dtype=float32)}

    Raises:
      ValueError: `decay` outside of [0, 1), or another negative argument.
    """

    decay: Scalar = 0.9
    eps: Scalar = 1e-8
    initial_scale: Scalar = 0.0
    eps_in_sqrt: bool = True
    bias_correction: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_stddev", self, decays=("decay",), nonnegative=("eps", "initial_scale"))

    def init(self, params: Any) -> ScaleByStddevState:
        count = jnp.zeros((), jnp.int32) if self.bias_correction else None
        mu = zeros_like("scale_by_stddev", params)
        return ScaleByStddevState(mu, zeros_like("scale_by_stddev", params, fill=self.initial_scale, real=True), count)

    def update(self, grads: Any, state: ScaleByStddevState, params: Any = None) -> tuple[Any, ScaleByStddevState]:
        count, total = _counted(state.count, self.decay)

        def step(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = self.decay * mu + (1 - self.decay) * g
            nu = self.decay * nu + (1 - self.decay) * abs_sq(g)
            variance = jnp.maximum(_over(nu, total) - abs_sq(_over(mu, total)), 0)
            return g * _inverse_root(variance, self.eps, self.eps_in_sqrt), mu, nu

        updates, mu, nu = leafwise("scale_by_stddev", step, grads, state.mu, state.nu)
        return updates, ScaleByStddevState(mu, nu, count)


def _counted(count: Any, decay: Any) -> tuple[Any, Any]:
    if count is None:
        return None, None
    count = safe_increment(count)
    return count, bias_correction(decay, count)


def _over(moment: Array, total: Any) -> Array:
    return moment if total is None else moment / total.astype(moment.dtype)


def _inverse_root(nu: Array, eps: Any, eps_in_sqrt: bool) -> Array:
    return jax.lax.rsqrt(nu + eps) if eps_in_sqrt else 1 / (jnp.sqrt(nu) + eps)


scale_by_rms = ScaleByRms
scale_by_stddev = ScaleByStddev


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    lr_in_velocity: bool = True,
    l2: Scalar = 0.0,
    mask: Mask = None,
) -> Chain:
    """RMSProp, plain, centered and with momentum.

        nu = decay nu + (1 - decay) g^2      starting from initial_scale
        d  = g / sqrt(nu + eps)              (eps_in_sqrt=False:  g / (sqrt(nu) + eps))
        p  = p - eta d
        momentum = alpha                     v = alpha v - eta d   p = p + v
        lr_in_velocity=False                 v = alpha v + d       p = p - eta v

    `centered` puts the variance of the gradients in the place of nu.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      decay: the weight of the old average (torch calls it alpha, Keras rho).
      eps: keeps the denominator from zero.
      initial_scale: what nu starts from.
      eps_in_sqrt: whether eps stands inside the root.
      centered: whether to subtract the squared average gradient from nu.
      momentum: alpha; None for none.
      nesterov: whether the momentum looks ahead.
      bias_correction: whether to divide the averages by the weight of the gradients in them.
      lr_in_velocity: whether the rate enters the velocity (optax, Keras, TF) or scales it (torch).
      l2: coupled weight decay: g + l2 * p stands for g.
      mask: which parameters `l2` acts on.

    Differences. optax: equal. torch `RMSprop`: decay 0.99, eps outside the root, the rate outside the velocity:
    `rmsprop(lr, **preset("torch", "rmsprop"))`. TensorFlow 1: nu starts at 1, eps = 1e-10: `preset("tf1", "rmsprop")`.
    Keras: eps = 1e-7.

    Reference: Tieleman, Hinton, "Lecture 6.5: RMSProp", 2012. Centered: Graves, "Generating sequences with recurrent
    neural networks", 2013.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = rmsprop(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.303
    2.421
    1.849

    Raises:
      ValueError: `decay` outside of [0, 1), Nesterov momentum without momentum, or a negative argument.
    """
    if momentum is None and nesterov:
        raise ValueError("rmsprop: nesterov=True needs a momentum, got momentum=None")
    kind = scale_by_stddev if centered else scale_by_rms
    links = [*l2_links(l2, mask), kind(decay, eps, initial_scale, eps_in_sqrt, bias_correction)]
    rate = scale_by_learning_rate(learning_rate)
    if momentum is None:
        return chain(*links, rate)
    velocity = trace(momentum, nesterov)
    return chain(*links, *((rate, velocity) if lr_in_velocity else (velocity, rate)))
