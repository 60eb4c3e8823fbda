"""NovoGrad: one average of the squared length of the gradient for every array, in the place of one an element."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, schedule_value, settle
from dlkit.optim.leaves import abs_sq, check_like, leafwise, need_params, real_dtype, widest, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["ScaleByNovograd", "ScaleByNovogradState", "novograd", "scale_by_novograd"]


class ScaleByNovogradState(NamedTuple):
    """Updates so far (int32), the momentum, and one number for every array."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the momentum of the normalized gradients
    nu: Any  # the average of the squared lengths of the gradients: a scalar for every parameter


@dataclass(frozen=True)
class ScaleByNovograd(Transform[ScaleByNovogradState]):
    """mu = b1 mu + g / (sqrt(nu + eps_root) + eps) + weight_decay p and u = mu: see `novograd`.

    >>> tx = scale_by_novograd()
    >>> updates, _ = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init({"w": jnp.ones(2)}))
    >>> print([f"{u:.3f}" for u in updates["w"]])  # of length 1
    ['0.600', '0.800']

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), or another negative argument; from `update`, when there is a weight
        decay and `params` is None.
    """

    b1: Scalar = 0.9
    b2: Scalar = 0.25
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    weight_decay: ScalarOrSchedule = 0.0
    mu_dtype: Any = None

    def __post_init__(self) -> None:
        number = () if callable(self.weight_decay) else ("weight_decay",)
        settle(
            "scale_by_novograd",
            self,
            decays=("b1", "b2"),
            nonnegative=("eps", "eps_root", *number),
            dtypes=("mu_dtype",),
        )

    def init(self, params: Any) -> ScaleByNovogradState:
        mu = zeros_like("scale_by_novograd", params, self.mu_dtype)
        nu = jax.tree.map(lambda p: jnp.zeros((), real_dtype(jnp.result_type(p))), params)
        return ScaleByNovogradState(jnp.zeros((), jnp.int32), mu, nu)

    def update(self, grads: Any, state: ScaleByNovogradState, params: Any = None) -> tuple[Any, ScaleByNovogradState]:
        check_like("scale_by_novograd", "the gradients do not match the state", state.mu, grads)
        decay = self.weight_decay
        if callable(decay):
            decay = schedule_value("scale_by_novograd", decay, state.count)
        if decays := callable(self.weight_decay) or bool(self.weight_decay):
            need_params("scale_by_novograd", params)

        def average(g: Array, nu: Array) -> Array:
            length = jnp.sum(abs_sq(jnp.asarray(g, widest(jnp.result_type(g), nu.dtype)))).astype(nu.dtype)
            return jnp.where(state.count == 0, length, self.b2 * nu + (1 - self.b2) * length)

        def normalize(g: Array, nu: Array) -> Array:
            wide = widest(jnp.result_type(g), nu.dtype)
            return jnp.asarray(g, wide) / (jnp.sqrt(nu + self.eps_root) + self.eps).astype(wide)

        def step(g: Array, mu: Array, *p: Array) -> tuple[Array, Array]:
            mu = self.b1 * mu + g
            mu = mu + as_dtype(decay, mu.dtype) * p[0] if p else mu
            return mu, mu

        nu = jax.tree.map(average, grads, state.nu)
        read = (params,) if decays else ()
        updates, mu = leafwise("scale_by_novograd", step, jax.tree.map(normalize, grads, nu), state.mu, read=read)
        return updates, ScaleByNovogradState(safe_increment(state.count), mu, nu)


scale_by_novograd = ScaleByNovograd


def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
) -> Chain:
    """NovoGrad: momentum of gradients that are normalized array by array, at half of Adam's memory.

        nu = b2 nu + (1 - b2) |g|^2              |g|: the length of the whole array; nu = |g|^2 in the first update
        mu = b1 mu + g / (sqrt(nu + eps_root) + eps) + weight_decay p
        p  = p - eta mu

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old momentum; new gradients count in full, so steps add up to eta / (1 - b1).
      b2: the weight of the old average of squared lengths.
      eps: stands outside the root.
      eps_root: stands inside the root.
      weight_decay: is added to the normalized gradient, so it passes through the momentum. A number or a schedule.

    Differences. optax: equal. torch and Keras have none.

    Reference: Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for training of deep
    networks", 2019.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = novograd(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.563
    3.792
    2.823

    Raises:
      ValueError: as `ScaleByNovograd`.
    """
    direction = scale_by_novograd(b1, b2, eps, eps_root, weight_decay)
    return chain(direction, scale_by_learning_rate(learning_rate))
