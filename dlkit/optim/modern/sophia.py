"""Sophia: a clipped step of Newton's with an estimated diagonal of the Hessian."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, bias_correction, safe_increment, settle
from dlkit.optim.leaves import check_real, leafwise, need_params, zeros_like
from dlkit.optim.modern.curvature import hutchinson_estimator_diag_hessian
from dlkit.optim.modern.whole import sum_of
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, call_update, chain, check_link
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleBySophia", "SophiaState", "scale_by_sophia", "sophia"]


def estimate_every(
    interval: int, count: Int[Array, ""], estimator: Any, grads: Any, state: Any, params: Any, extra: Any, old: Any
) -> tuple[Any, Any]:
    """The new diagonal and state of `estimator` in updates 0, interval, 2 interval ...; `old` and `state` otherwise."""

    def fresh() -> tuple[Any, Any]:
        diagonal, after = call_update(estimator, grads, state, params, extra)
        return jax.tree.map(lambda d, o: jnp.asarray(d, o.dtype), diagonal, old), after

    return fresh() if interval == 1 else jax.lax.cond(count % interval == 0, fresh, lambda: (old, state))


class SophiaState(NamedTuple):
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any  # the average of g
    nu: Any  # that of the diagonal
    hessian_fn_state: Any


@dataclass(frozen=True)
class ScaleBySophia(Transform[SophiaState]):
    """u = clip(mu_hat / max(gamma nu, eps), -clip_threshold, clip_threshold): see `sophia`.

    >>> tx = scale_by_sophia(gamma=1.0)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> bowl = lambda p: jnp.sum(p["w"] ** 2)
    >>> grads, state = {"w": jnp.array([2.0, -4.0])}, tx.init(params)
    >>> tx.update(grads, state, params, obj_fn=bowl)[0]
    {'w': Array([ 1., -1.], dtype=float32)}

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument, `update_interval` below 1.
    """

    b1: Scalar = 0.965
    b2: Scalar = 0.99
    eps: Scalar = 1e-8
    gamma: Scalar = 0.01
    clip_threshold: Scalar | None = 1.0
    update_interval: int = 10
    hessian_diagonal_fn: Any = hutchinson_estimator_diag_hessian()
    mu_dtype: Any = None
    verbose: bool = False
    print_win_rate_every_n_steps: int = 0

    def __post_init__(self) -> None:
        check_link("scale_by_sophia", self.hessian_diagonal_fn)
        clip = () if self.clip_threshold is None else ("clip_threshold",)
        nonnegative = ("eps", "gamma", *clip)
        settle("scale_by_sophia", self, decays=("b1", "b2"), nonnegative=nonnegative, dtypes=("mu_dtype",))
        for name, least in (("update_interval", 1), ("print_win_rate_every_n_steps", 0)):
            object.__setattr__(self, name, as_count("scale_by_sophia", name, getattr(self, name), least))

    def init(self, params: Any) -> SophiaState:
        check_real("scale_by_sophia", params)
        mu, nu = zeros_like("scale_by_sophia", params, self.mu_dtype), zeros_like("scale_by_sophia", params)
        return SophiaState(jnp.zeros((), jnp.int32), mu, nu, self.hessian_diagonal_fn.init(params))

    def update(self, grads: Any, state: SophiaState, params: Any = None, **extra: Any) -> tuple[Any, SophiaState]:
        need_params("scale_by_sophia", params)
        count = safe_increment(state.count)
        total = bias_correction(self.b1, count)

        def direction(g: Array, mu: Array, nu: Array) -> tuple[Array, Array]:
            mu = self.b1 * mu + (1 - self.b1) * g
            u = mu / total.astype(g.dtype) / jnp.maximum(self.gamma * nu, as_dtype(self.eps, g.dtype))
            return u, mu

        def first_two(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            return *direction(g, mu, nu), nu

        updates, mu, _ = leafwise("scale_by_sophia", first_two, grads, state.mu, state.nu)
        if self.clip_threshold is not None:
            most = self.clip_threshold
            self._report(count, updates, most)
            updates = jax.tree.map(lambda u: jnp.clip(u, -as_dtype(most, u.dtype), as_dtype(most, u.dtype)), updates)

        diagonal, hessian_state = estimate_every(
            self.update_interval,
            state.count,
            self.hessian_diagonal_fn,
            grads,
            state.hessian_fn_state,
            params,
            extra,
            state.nu,
        )
        # Between two estimates nu stays as it is.
        due = state.count % self.update_interval == 0

        def average(h: Array, nu: Array) -> tuple[Array, Array]:
            return h, jnp.where(due, self.b2 * nu + (1 - self.b2) * h, nu)

        _, nu = leafwise("scale_by_sophia", average, diagonal, state.nu)
        return updates, SophiaState(count, mu, nu, hessian_state)

    def _report(self, count: Int[Array, ""], updates: Any, most: Any) -> None:
        if not (self.verbose and self.print_win_rate_every_n_steps):
            return
        within = jax.tree.map(lambda u: jnp.abs(u) < as_dtype(most, u.dtype), updates)
        size = sum(leaf.size for leaf in jax.tree.leaves(within))
        rate = sum_of(within, jnp.float32) / size
        jax.lax.cond(
            count % self.print_win_rate_every_n_steps == 0,
            lambda: jax.debug.print("sophia: not clipped: {}", rate),
            lambda: None,
        )


scale_by_sophia = ScaleBySophia


def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Any = hutchinson_estimator_diag_hessian(),
    mu_dtype: Any = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> Chain:
    """Sophia: momentum over an average of the Hessian's diagonal, clipped where that is small or negative.

        mu = b1 mu + (1 - b1) g                            mu_hat = mu / (1 - b1^t)        t = 1 in the first update
        u  = clip(mu_hat / max(gamma nu, eps), -c, c)
        nu = b2 nu + (1 - b2) h                            in updates 1, 1 + update_interval, ... alone
        p  = p - eta (u + weight_decay p)

    h is what `hessian_diagonal_fn` estimates. Call `update(grads, state, params, obj_fn=lambda p: loss(p, batch))`, or
    with what else that estimator needs: `logits_fn=` for `gauss_newton_bartlett_estimator_diag_hessian` (Sophia-G).

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients.
      b2: the weight of the old average of diagonals.
      eps: the least divisor.
      weight_decay: decoupled: a number or a schedule.
      weight_decay_mask: which parameters decay; see `add_decayed_weights`.
      gamma: how much of the curvature counts: the larger, the fewer updates are clipped.
      clip_threshold: c; None for no clipping.
      update_interval: how many updates share an estimate.
      hessian_diagonal_fn: a transform whose updates are estimates of the diagonal.
      mu_dtype: the dtype of mu; None means that of the parameters.
      verbose, print_win_rate_every_n_steps: print the share of updates that are not clipped, every n updates.

    Differences. optax: equal, the same draws included; as there, u is made with nu before this update's estimate. The
    paper clips to 1 and has it the other way around. Averaging the diagonal over devices is the estimator's work.

    Reference: Liu, Li, Hall, Liang, Ma, "Sophia: a scalable stochastic second-order optimizer for language model
    pre-training", 2023.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = sophia(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    1.22

    Raises:
      ValueError: `b1` or `b2` outside of [0, 1), a negative argument, `update_interval` below 1; from `update`,
        `params` is None.
      TypeError: from `update`, without what the estimator needs.
    """
    direction = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        hessian_diagonal_fn,
        mu_dtype,
        verbose,
        print_win_rate_every_n_steps,
    )
    return chain(direction, add_decayed_weights(weight_decay, weight_decay_mask), scale_by_learning_rate(learning_rate))
