"""Adam that estimates its own learning rate: D-Adaptation and Prodigy."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, bias_correction, safe_increment, settle
from dlkit.optim.leaves import check_real, leafwise, need_params, zeros_like
from dlkit.optim.modern.whole import copied, dot, rate_at, sum_of, wide_dtype
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Transform

__all__ = ["DAdaptAdamW", "DAdaptAdamWState", "Prodigy", "ProdigyState", "dadapt_adamw", "prodigy"]


def _settle(owner: str, record: Any) -> None:
    nonnegative = ("eps", "estim_lr0", "weight_decay")
    settle(owner, record, nonnegative=nonnegative, schedules=("learning_rate",))
    betas = tuple(as_float(owner, f"betas[{i}]", beta) for i, beta in enumerate(record.betas))
    if len(betas) != 2 or not all(isinstance(beta, Traced) or 0 <= beta < 1 for beta in betas):
        raise ValueError(f"{owner}: betas is {betas}, wanted two numbers in [0, 1)")
    object.__setattr__(record, "betas", betas)
    if not isinstance(record.estim_lr0, Traced) and not record.estim_lr0 > 0:
        raise ValueError(f"{owner}: estim_lr0 is {record.estim_lr0}, wanted more than 0: the estimate grows from it")


class DAdaptAdamWState(NamedTuple):
    exp_avg: Any  # m: the average of d eta g
    exp_avg_sq: Any  # v: the average of g^2
    grad_sum: Any  # s: a weighted sum of gradients
    estim_lr: Float[Array, ""]  # d, the estimated learning rate, in float32 or wider
    numerator_weighted: Float[Array, ""]
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class DAdaptAdamW(Transform[DAdaptAdamWState]):
    """AdamW whose learning rate is a lower bound on the distance to the solution, estimated as it goes.

        k  = d eta sqrt(1 - b2^t) / (1 - b1^t)                         t = 1 in the first update
        r  = sqrt(b2) r + (1 - sqrt(b2)) k <g, s / (sqrt(v) + eps)>
        m  = b1 m + (1 - b1) k g
        v  = b2 v + (1 - b2) g^2
        s  = sqrt(b2) s + (1 - sqrt(b2)) k g
        d' = max(d, r / ((1 - sqrt(b2)) |s|_1))
        p  = p - m / (sqrt(v) + eps) - k weight_decay p

    Args:
      learning_rate: eta, a factor on the estimate: leave it at 1, or give a schedule that starts there.
      betas: b1 and b2.
      eps: stands outside the root.
      estim_lr0: the first d: small, and smaller than the distance to the solution.
      weight_decay: decoupled.

    Differences. optax: equal. The update is complete: no `scale_by_learning_rate` follows.

    Reference: Defazio, Mishchenko, "Learning-rate-free learning by D-adaptation", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = dadapt_adamw()
    >>> state = tx.init(params)
    >>> for t in range(90):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.00

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument; from `update`, `params` is None.
    """

    learning_rate: ScalarOrSchedule = 1.0
    betas: tuple[Scalar, Scalar] = (0.9, 0.999)
    eps: Scalar = 1e-8
    estim_lr0: Scalar = 1e-6
    weight_decay: Scalar = 0.0

    def __post_init__(self) -> None:
        _settle("dadapt_adamw", self)

    def init(self, params: Any) -> DAdaptAdamWState:
        check_real("dadapt_adamw", params)
        m, v, s = (zeros_like("dadapt_adamw", params) for _ in range(3))
        dtype = wide_dtype(params)
        first = as_dtype(self.estim_lr0, dtype)
        return DAdaptAdamWState(m, v, s, first, jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    def update(self, grads: Any, state: DAdaptAdamWState, params: Any = None) -> tuple[Any, DAdaptAdamWState]:
        need_params("dadapt_adamw", params)
        b1, b2 = self.betas
        d, dtype = state.estim_lr, state.estim_lr.dtype
        count = safe_increment(state.count)
        rate = d * rate_at("dadapt_adamw", self.learning_rate, state.count, dtype)
        rate = rate * (jnp.sqrt(bias_correction(b2, count)) / bias_correction(b1, count)).astype(dtype)
        root = jnp.sqrt(as_dtype(b2, dtype))

        (along,) = leafwise(
            "dadapt_adamw",
            lambda g, v, s: g * s / (jnp.sqrt(v) + self.eps),
            grads,
            read=(state.exp_avg_sq, state.grad_sum),
        )
        numerator = root * state.numerator_weighted + (1 - root) * rate * sum_of(along, dtype)

        def moments(g: Array, m: Array, v: Array, s: Array) -> tuple[Array, ...]:
            k, of_s = rate.astype(g.dtype), root.astype(g.dtype)
            m = b1 * m + (1 - b1) * k * g
            v = b2 * v + (1 - b2) * g * g
            return g, m, v, of_s * s + (1 - of_s) * k * g

        _, m, v, s = leafwise("dadapt_adamw", moments, grads, state.exp_avg, state.exp_avg_sq, state.grad_sum)
        size = (1 - root) * sum_of(jax.tree.map(jnp.abs, s), dtype)
        d = jnp.where(size > 0, jnp.maximum(d, numerator / jnp.where(size > 0, size, jnp.ones_like(size))), d)

        def step(g: Array, m: Array, v: Array, p: Array) -> Array:
            return -m / (jnp.sqrt(v) + self.eps) - self.weight_decay * rate.astype(g.dtype) * p

        (updates,) = leafwise("dadapt_adamw", step, grads, read=(m, v, params))
        return updates, DAdaptAdamWState(m, v, s, d, numerator, count)


class ProdigyState(NamedTuple):
    exp_avg: Any  # m: the average of d g
    exp_avg_sq: Any  # v: the average of (d g)^2
    grad_sum: Any  # s: a weighted sum of gradients
    params0: Any  # the first parameters
    estim_lr: Float[Array, ""]  # d, the estimated learning rate, in float32 or wider
    numerator_weighted: Float[Array, ""]
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class Prodigy(Transform[ProdigyState]):
    """AdamW with D-Adaptation's estimate of the learning rate, where later gradients weigh more.

        k  = d eta sqrt(1 - b2^t) / (1 - b1^t)                         t = 1 in the first update
        r  = b3 r + d / d0 k <g, p0 - p>
        m  = b1 m + (1 - b1) d g
        v  = b2 v + (1 - b2) (d g)^2
        s  = b3 s + d / d0 k g                                         safeguard_warmup: d in the place of k
        d' = max(d, estim_lr_coef r / |s|_1)
        p  = p - k (m / (sqrt(v) + d' eps) + weight_decay p)

    Args:
      learning_rate: eta, a factor on the estimate: leave it at 1, or give a schedule that starts there.
      betas: b1 and b2.
      beta3: b3; None for sqrt(b2).
      eps: stands outside the root.
      estim_lr0: d0, the first d: small, and smaller than the distance to the solution.
      estim_lr_coef: a factor on the estimate.
      weight_decay: decoupled.
      safeguard_warmup: leaves eta out of s, so that a warmup does not inflate the estimate.

    Differences. optax: equal. The authors' code has the bias correction switched off. The update is complete: no
    `scale_by_learning_rate` follows.

    Reference: Mishchenko, Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = prodigy()
    >>> state = tx.init(params)
    >>> for t in range(60):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.15

    Raises:
      ValueError: a beta outside of [0, 1), a negative argument; from `update`, `params` is None.
    """

    learning_rate: ScalarOrSchedule = 1.0
    betas: tuple[Scalar, Scalar] = (0.9, 0.999)
    beta3: Scalar | None = None
    eps: Scalar = 1e-8
    estim_lr0: Scalar = 1e-6
    estim_lr_coef: Scalar = 1.0
    weight_decay: Scalar = 0.0
    safeguard_warmup: bool = False

    def __post_init__(self) -> None:
        _settle("prodigy", self)
        decays = () if self.beta3 is None else ("beta3",)
        settle("prodigy", self, decays=decays, nonnegative=("estim_lr_coef",))

    def init(self, params: Any) -> ProdigyState:
        check_real("prodigy", params)
        m, v, s = (zeros_like("prodigy", params) for _ in range(3))
        dtype = wide_dtype(params)
        first = as_dtype(self.estim_lr0, dtype)
        start = copied("prodigy", params)
        return ProdigyState(m, v, s, start, first, jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    def update(self, grads: Any, state: ProdigyState, params: Any = None) -> tuple[Any, ProdigyState]:
        need_params("prodigy", params)
        b1, b2 = self.betas
        old, dtype = state.estim_lr, state.estim_lr.dtype
        b3 = jnp.sqrt(as_dtype(b2, dtype)) if self.beta3 is None else as_dtype(self.beta3, dtype)
        count = safe_increment(state.count)
        rate = old * rate_at("prodigy", self.learning_rate, state.count, dtype)
        rate = rate * (jnp.sqrt(bias_correction(b2, count)) / bias_correction(b1, count)).astype(dtype)
        weight = old / as_dtype(self.estim_lr0, dtype)
        (back,) = leafwise("prodigy", lambda g, p, p0: p0 - p, grads, read=(params, state.params0))
        numerator = b3 * state.numerator_weighted + weight * rate * dot(grads, back, dtype)
        of_g = weight * (old if self.safeguard_warmup else rate)

        def moments(g: Array, m: Array, v: Array, s: Array) -> tuple[Array, ...]:
            dg = old.astype(g.dtype) * g
            m = b1 * m + (1 - b1) * dg
            v = b2 * v + (1 - b2) * dg * dg
            return g, m, v, b3.astype(g.dtype) * s + of_g.astype(g.dtype) * g

        _, m, v, s = leafwise("prodigy", moments, grads, state.exp_avg, state.exp_avg_sq, state.grad_sum)
        size = sum_of(jax.tree.map(jnp.abs, s), dtype)
        estimate = as_dtype(self.estim_lr_coef, dtype) * numerator / jnp.where(size > 0, size, jnp.ones_like(size))
        d = jnp.where(size > 0, jnp.maximum(old, estimate), old)

        def step(g: Array, m: Array, v: Array, p: Array) -> Array:
            k = rate.astype(g.dtype)
            floor = (d * as_dtype(self.eps, dtype)).astype(g.dtype)
            return -k * (m / (jnp.sqrt(v) + floor) + self.weight_decay * p)

        (updates,) = leafwise("prodigy", step, grads, read=(m, v, params))
        return updates, ProdigyState(m, v, s, state.params0, d, numerator, count)


dadapt_adamw = DAdaptAdamW
prodigy = Prodigy
