"""Sharpness-aware minimization: descend with the gradient of a point uphill."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.clipping import global_norm
from dlkit.optim.hyper import Scalar, as_count, as_float, settle
from dlkit.optim.leaves import leafwise, need_params, real_dtype, widest
from dlkit.optim.modern.whole import copied
from dlkit.optim.scaling import scale
from dlkit.optim.transform import EmptyState, Transform, call_update, chain, check_link

__all__ = [
    "SAM",
    "NormalizeAdaptively",
    "SAMState",
    "asam",
    "normalize_adaptively",
    "sam",
]


def _divided(owner: str, grads: Any, norm: Float[Array, ""]) -> Any:
    norm = jnp.where(norm > 0, norm, jnp.ones_like(norm))  # a norm of 0 is that of zeros
    (updates,) = leafwise(owner, lambda g: g / norm.astype(real_dtype(g.dtype)), grads)
    return updates


@dataclass(frozen=True)
class NormalizeAdaptively(Transform[EmptyState]):
    """u = T^2 g / |T g| with T = |p| + eta, element by element: the ascent direction of ASAM.

    Among all steps e with |e / T| <= 1 this one raises the linearized loss most. It does not depend on the scale of a
    layer: where p is twice as large and g half as large, so is u.

    Args:
      eta: added to |p|, so that parameters of 0 move too.

    Reference: Kwon, Kim, Park, Choi, "ASAM: adaptive sharpness-aware minimization for scale-invariant learning of
    deep neural networks", 2021.

    >>> tx = normalize_adaptively(eta=0.0)
    >>> params = {"w": jnp.array([1.0, -2.0])}
    >>> tx.update({"w": jnp.array([3.0, 2.0])}, tx.init(params), params)[0]
    {'w': Array([0.6, 1.6], dtype=float32)}

    Raises:
      ValueError: a negative `eta`; from `update`, `params` is None.
    """

    eta: Scalar = 0.01

    def __post_init__(self) -> None:
        settle("normalize_adaptively", self, nonnegative=("eta",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("normalize_adaptively", params)

        def scaled(g: Array, p: Array) -> Array:
            return (jnp.abs(p) + self.eta) * g

        (tg,) = leafwise("normalize_adaptively", scaled, grads, read=(params,))
        (ttg,) = leafwise("normalize_adaptively", scaled, tg, read=(params,))
        return _divided("normalize_adaptively", ttg, global_norm(tg)), state


class SAMState(NamedTuple):
    steps_since_sync: Int[Array, ""]  # int32: adversarial steps since the last step of the outer optimizer
    opt_state: Any
    adv_state: Any
    cache: Any  # the parameters before the adversarial steps; None in opaque mode


@dataclass(frozen=True)
class SAM(Transform[SAMState]):
    """`sync_period - 1` steps uphill by `adv_optimizer`, then one step of `optimizer` from where they began.

        e = -adv_optimizer's update for the gradient at p         uphill: its sign is turned
        p = p + optimizer's update for the gradient at p + e

    `sam(sgd(eta), chain(normalize(), sgd(rho)))` is the paper's SAM: e = rho g / |g|.

    Transparent (the default): every call of `update` is one of these steps, with the gradient at the parameters as
    they are; only after each `sync_period` calls are the parameters those of the outer optimizer. Opaque: a call does
    all of them, and is given `grad_fn=`, called as grad_fn(params, i) for the gradients uphill (i counts from 0):

        updates, state = tx.update(grads, state, params, grad_fn=jax.grad(lambda p, i: loss(p)))

    Opaque mode costs the same, and no evaluation and no running average of batch norms sees the points uphill.

    Args:
      optimizer: the outer optimizer.
      adv_optimizer: the inner one; it descends as usual, and SAM turns its updates around.
      sync_period: after how many gradients the outer optimizer steps: 2 for one step uphill.
      reset_state: whether `adv_optimizer` starts afresh after each outer step.
      opaque_mode: see above.
      batch_axis_name: in opaque mode, the mapped axis over which the last gradient is averaged.

    Differences. optax: equal. torch and Keras have no SAM.

    Reference: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving
    generalization", 2021.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = sam(optim.sgd(0.1), optim.chain(optim.normalize(), optim.sgd(0.05)), opaque_mode=True)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     grads = jax.grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p))
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.164
    1.997
    1.255

    Raises:
      ValueError: `sync_period` below 1; from `update`, `params` is None.
      TypeError: from `update`, in opaque mode without `grad_fn`.
    """

    optimizer: Any
    adv_optimizer: Any
    sync_period: int = 2
    reset_state: bool = True
    opaque_mode: bool = False
    batch_axis_name: str | None = None

    def __post_init__(self) -> None:
        check_link("sam", self.optimizer)
        check_link("sam", self.adv_optimizer)
        object.__setattr__(self, "sync_period", as_count("sam", "sync_period", self.sync_period, 1))

    def init(self, params: Any) -> SAMState:
        cache = None if self.opaque_mode else copied("sam", params)
        return SAMState(jnp.zeros((), jnp.int32), self.optimizer.init(params), self.adv_optimizer.init(params), cache)

    def update(
        self, grads: Any, state: SAMState, params: Any = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[Any, SAMState]:
        need_params("sam", params)
        if self.opaque_mode:
            return self._opaque(grads, state, params, grad_fn, extra)
        return self._transparent(grads, state, params, extra)

    def _uphill(self, grads: Any, adv_state: Any, params: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        moves, adv_state = call_update(self.adv_optimizer, grads, adv_state, params, extra)
        return jax.tree.map(lambda u: -u, moves), adv_state

    def _opaque(
        self, grads: Any, state: SAMState, params: Any, grad_fn: Any, extra: dict[str, Any]
    ) -> tuple[Any, SAMState]:
        if grad_fn is None and self.sync_period > 1:
            raise TypeError("sam: opaque_mode needs update(grads, state, params, grad_fn=...), got no grad_fn")
        there, adv_state, uphill = params, state.adv_state, grads
        for i in range(self.sync_period - 1):
            moves, adv_state = self._uphill(uphill, adv_state, there, extra)
            there = jax.tree.map(_moved, there, moves)
            uphill = grad_fn(there, i)  # pyright: ignore[reportOptionalCall]
        if self.batch_axis_name is not None:
            uphill = jax.lax.pmean(uphill, self.batch_axis_name)
        updates, opt_state = call_update(self.optimizer, uphill, state.opt_state, params, extra)
        if self.reset_state:
            adv_state = self.adv_optimizer.init(params)
        return updates, SAMState(jnp.zeros((), jnp.int32), opt_state, adv_state, None)

    def _transparent(self, grads: Any, state: SAMState, params: Any, extra: dict[str, Any]) -> tuple[Any, SAMState]:
        first = state.steps_since_sync == 0
        last = state.steps_since_sync == self.sync_period - 1

        def pick(which: Array, yes: Any, no: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(which, a, b), yes, no)

        cache = jax.tree.map(lambda c, p: jnp.where(first, jnp.asarray(p, c.dtype), c), state.cache, params)
        uphill, adv_state = self._uphill(grads, state.adv_state, params, extra)
        moves, opt_state = call_update(self.optimizer, grads, state.opt_state, cache, extra)
        (back,) = leafwise("sam", lambda u, p, c: c - p + u, moves, read=(params, cache))
        (up,) = leafwise("sam", lambda u, p: u, uphill, read=(params,))
        updates = pick(last, back, jax.tree.map(lambda u, b: u.astype(b.dtype), up, back))
        opt_state = pick(last, opt_state, state.opt_state)
        adv_state = pick(last, self.adv_optimizer.init(params) if self.reset_state else state.adv_state, adv_state)
        since = jnp.where(last, 0, state.steps_since_sync + 1).astype(jnp.int32)
        return updates, SAMState(since, opt_state, adv_state, cache)


def _moved(p: Any, u: Any) -> Any:
    dtype = jnp.result_type(p)
    wide = widest(dtype, jnp.result_type(u))
    return (jnp.asarray(p, wide) + jnp.asarray(u, wide)).astype(dtype)


normalize_adaptively = NormalizeAdaptively
sam = SAM


def asam(
    optimizer: Any,
    rho: Scalar = 0.5,
    eta: Scalar = 0.01,
    sync_period: int = 2,
    *,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> SAM:
    """Adaptive SAM: uphill by rho in a norm that grows with the parameters, so that rescaled layers change nothing.

        T = |p| + eta                    element by element
        e = rho T^2 g / |T g|
        p = p + optimizer's update for the gradient at p + e

    Args:
      optimizer: the outer optimizer.
      rho: how far uphill. Kwon et al. use 0.5 for CIFAR-10 and 1 for CIFAR-100, ten times SAM's.
      eta: added to |p|, so that parameters of 0 move too.
      sync_period, opaque_mode, batch_axis_name: see `SAM`.

    Differences. optax, torch and Keras have no ASAM. The authors' code applies T = |p| + eta to weights and T = 1 to
    biases; here it is every leaf alike, as the paper writes it.

    Reference: Kwon, Kim, Park, Choi, "ASAM: adaptive sharpness-aware minimization for scale-invariant learning of
    deep neural networks", 2021.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = asam(optim.sgd(0.1), rho=0.05, opaque_mode=True)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     grads = jax.grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p))
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    3.134
    1.965
    1.231

    Raises:
      ValueError: `rho` or `eta` is negative, `sync_period` below 1; from `update`, `params` is None.
      TypeError: from `update`, in opaque mode without `grad_fn`.
    """
    rho = as_float("asam", "rho", rho)
    if isinstance(rho, float) and not rho >= 0:
        raise ValueError(f"asam: rho is {rho}, wanted 0 or more")
    uphill = chain(normalize_adaptively(eta), scale(-rho))
    return sam(optimizer, uphill, sync_period, True, opaque_mode, batch_axis_name)
