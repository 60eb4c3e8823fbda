"""Lookahead: k steps forward, one step back."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.leaves import by_real, need_params, widest
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.branches import do_or_skip

__all__ = ["Lookahead", "LookaheadParams", "LookaheadState", "lookahead"]


class LookaheadParams(NamedTuple):
    """Fast parameters, of which gradients are taken, and slow ones, with which the model is used."""

    fast: Any
    slow: Any

    @classmethod
    def init_synced(cls, params: Any) -> "LookaheadParams":
        """Both start as the same parameters."""
        return cls(params, params)


class LookaheadState(NamedTuple):
    """The state of the fast optimizer, its steps since the last synchronization, and the slow parameters (or None)."""

    fast_state: Any
    steps_since_sync: Int[Array, ""]
    slow: Any


@dataclass(frozen=True)
class Lookahead(Transform[LookaheadState]):
    """A fast optimizer; after each `sync_period` of its steps both parameters meet between the slow and the fast ones.

        fast = fast + u                                      u from fast_optimizer
        every sync_period steps:   slow = slow + slow_step_size (fast - slow);   fast = slow

    With plain parameters, the slow ones are kept in the state, and the transform is used like any other one: right
    after a synchronization the parameters are the slow ones. With `LookaheadParams` (optax's form) the updates are
    `LookaheadParams`, too; gradients are those of the fast ones alone, and `optim.chain` has no place for it.
    Updates must be applied as they are.

    Args:
      fast_optimizer: a transform.
      sync_period: fast steps between two synchronizations.
      slow_step_size: how far the slow parameters go.
      reset_state: whether the fast optimizer begins anew after each.

    Differences. optax: equal; plain parameters are new.

    Reference: Zhang, Lucas, Hinton, Ba, "Lookahead optimizer: k steps forward, 1 step back", 2019.

    >>> from dlkit import optim
    >>> tx = lookahead(optim.sgd(1.0), sync_period=2, slow_step_size=0.5)
    >>> params = {"w": jnp.zeros(1)}
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update({"w": -jnp.ones(1)}, state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(params["w"])
    [1.]
    [1.]

    Raises:
      TypeError: `fast_optimizer` is no transform. ValueError: `sync_period` below 1, a negative step size.
    """

    fast_optimizer: Any
    sync_period: int
    slow_step_size: Scalar
    reset_state: bool = False

    def __post_init__(self) -> None:
        check_link("lookahead", self.fast_optimizer)
        object.__setattr__(self, "sync_period", as_count("lookahead", "sync_period", self.sync_period, 1))
        settle("lookahead", self, nonnegative=("slow_step_size",))

    def init(self, params: Any) -> LookaheadState:
        pair = isinstance(params, LookaheadParams)
        fast = params.fast if pair else params
        slow = None if pair else jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), params)
        return LookaheadState(self.fast_optimizer.init(fast), jnp.zeros((), jnp.int32), slow)

    def update(self, grads: Any, state: LookaheadState, params: Any = None, **extra: Any) -> tuple[Any, LookaheadState]:
        need_params("lookahead", params)
        pair = isinstance(params, LookaheadParams)
        fast, slow = (params.fast, params.slow) if pair else (params, state.slow)
        updates, fast_state = call_update(self.fast_optimizer, grads, state.fast_state, fast, extra)
        sync = state.steps_since_sync == self.sync_period - 1

        def move(s: Any, f: Any, u: Any) -> Any:
            """The step of the slow parameters, and that of the fast ones to the same place."""
            wide = widest(jnp.result_type(f), jnp.result_type(u))
            s, f, u = (jnp.asarray(x, wide) for x in (s, f, u))
            with by_real(f):
                step = as_dtype(self.slow_step_size, jnp.finfo(wide).dtype) * (f + u - s)
            return jnp.where(sync, step, jnp.zeros_like(step)), jnp.where(sync, s + step - f, u)

        moved = jax.tree.map(move, slow, fast, updates)
        slow_updates, fast_updates = (jax.tree.map(lambda _, m, i=i: m[i], updates, moved) for i in range(2))
        if self.reset_state:
            fast_state = do_or_skip(sync, lambda: self.fast_optimizer.init(fast), lambda: fast_state)
        count = (state.steps_since_sync + 1) % self.sync_period
        if pair:
            return LookaheadParams(fast_updates, slow_updates), LookaheadState(fast_state, count, None)

        def add(s: Any, u: Any) -> Any:
            return (jnp.asarray(s, widest(jnp.result_type(s), u.dtype)) + u).astype(jnp.result_type(s))

        return fast_updates, LookaheadState(fast_state, count, jax.tree.map(add, slow, slow_updates))


lookahead = Lookahead
