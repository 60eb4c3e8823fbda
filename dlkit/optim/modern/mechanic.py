"""Mechanic: learns the scale of another optimizer's updates."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.clipping import global_norm
from dlkit.optim.hyper import Scalar, as_count, safe_increment, settle
from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.modern.whole import copied, dot, wide_dtype
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform, call_update, check_link

__all__ = ["Mechanic", "MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    """optax's fields; r, m, v and s have an element for each of the betas."""

    base_optimizer_state: Any
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    r: Float[Array, "n"]  # the reward
    m: Float[Array, "n"]  # the largest |h|
    v: Float[Array, "n"]  # the sum of h^2
    s: Float[Array, "n"]  # the scales; their sum multiplies the updates
    x0: Any  # the first parameters


@dataclass(frozen=True)
class Mechanic(Transform[MechanicState]):
    """p = p0 + sum(s) D, where D is the sum of `base_optimizer`'s updates, and s is learned while training.

        h = <D, g + weight_decay sum(s) |g| / |p| p>, with its sign so that h > 0 where D leads downhill
        r = max(0, beta r + clip(h, -m, m) s)       one of each for every beta of 0.9, 0.99, ... (num_betas of them)
        m = max(beta m, |h| + eps)
        v = beta^2 v + h^2
        s = (s_init / num_betas m + r) / (sqrt(v) + eps)

    Give the base optimizer a learning rate of 1, or a schedule that peaks there: the scale is found.

    Args:
      base_optimizer: a transform whose updates are whole steps.
      weight_decay: keeps the scale from growing with the parameters.
      eps: keeps divisions finite.
      s_init: the first scale: small.
      num_betas: how many betas.

    Differences. optax: equal.

    Reference: Cutkosky, Defazio, Mehta, "Mechanic: a learning rate tuner", 2023.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = mechanize(optim.sgd(1.0))
    >>> state = tx.init(params)
    >>> for _ in range(40):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.01

    Raises:
      ValueError: a negative argument, `num_betas` below 1; from `update`, `params` is None.
    """

    base_optimizer: Any
    weight_decay: Scalar = 1e-2
    eps: Scalar = 1e-8
    s_init: Scalar = 1e-6
    num_betas: int = 6

    def __post_init__(self) -> None:
        check_link("mechanize", self.base_optimizer)
        settle("mechanize", self, nonnegative=("weight_decay", "eps", "s_init"))
        object.__setattr__(self, "num_betas", as_count("mechanize", "num_betas", self.num_betas, 1))

    def init(self, params: Any) -> MechanicState:
        x0, dtype = copied("mechanize", params), wide_dtype(params)
        r, m, v = (jnp.zeros(self.num_betas, dtype) for _ in range(3))
        first = jnp.broadcast_to(as_dtype(self.s_init, dtype), (self.num_betas,))
        base = self.base_optimizer.init(params)
        return MechanicState(base, jnp.zeros((), jnp.int32), r, m, v, first, x0)

    def update(self, grads: Any, state: MechanicState, params: Any = None, **extra: Any) -> tuple[Any, MechanicState]:
        need_params("mechanize", params)
        dtype = state.s.dtype
        eps, decay = as_dtype(self.eps, dtype), as_dtype(self.weight_decay, dtype)
        moves, base = call_update(self.base_optimizer, grads, state.base_optimizer_state, params, extra)
        scale = jnp.sum(state.s)
        # D is not kept: it is what the parameters have moved by, over the scale.
        (way,) = leafwise("mechanize", lambda p, p0: p0 - p, params, read=(state.x0,))
        ratio = decay * scale * (global_norm(grads) / (global_norm(params) + eps)).astype(dtype)
        (pull,) = leafwise("mechanize", lambda g, p: g + ratio.astype(g.dtype) * p, grads, read=(params,))
        h = dot(way, pull, dtype) / (scale + eps)

        betas = 1 - jnp.power(jnp.asarray(0.1, dtype), jnp.arange(1, self.num_betas + 1, dtype=dtype))
        m = jnp.maximum(betas * state.m, jnp.abs(h) + eps)
        v = jnp.square(betas) * state.v + jnp.square(h)
        r = jnp.maximum(betas * state.r + jnp.clip(h, -state.m, state.m) * state.s, 0)
        s = (as_dtype(self.s_init, dtype) / self.num_betas * m + r) / (jnp.sqrt(v) + eps)
        new = jnp.sum(s)

        def step(u: Array, p: Array, p0: Array) -> Array:
            more = ((new - scale - eps) / (scale + eps)).astype(u.dtype)
            return more * (p - p0) + new.astype(u.dtype) * u

        (updates,) = leafwise("mechanize", step, moves, read=(params, state.x0))
        return updates, MechanicState(base, safe_increment(state.count), r, m, v, s, state.x0)


mechanize = Mechanic
