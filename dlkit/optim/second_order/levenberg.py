"""Levenberg-Marquardt for least squares: Gauss-Newton with a damping that makes every step lower the loss."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.leaves import check_like, zeros_like
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs
from dlkit.optim.second_order.gauss_newton import damped_least_squares
from dlkit.optim.second_order.trials import TrialInfo, damped_search, no_info
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform

__all__ = ["LevenbergMarquardt", "LevenbergMarquardtState", "levenberg_marquardt"]


class LevenbergMarquardtState(NamedTuple):
    """The damping for the next step, the scales of the parameters, and |r|^2 / 2 with its gradient."""

    damping: Float[Array, ""]
    scales: Float[Array, "n"] | None  # the largest norm so far of each column of J; None without `scaling`
    value: Float[Array, ""]  # where the last step led; infinite before the first update
    grad: Any
    info: TrialInfo


@dataclass(frozen=True)
class LevenbergMarquardt(Transform[LevenbergMarquardtState]):
    """Levenberg-Marquardt: between Gauss-Newton and steepest descent, as far as the model can be trusted.

        d = -(J' J + damping top^2 D^2)^-1 J' r        J: the Jacobian of the residuals r(p)
        ratio = (|r(p)|^2 - |r(p + d)|^2) / (|r(p)|^2 - |r + J d|^2)
        ratio > 1e-4:  p = p + d,   damping = damping max(1/3, 1 - (2 ratio - 1)^3)
        otherwise:     damping grows 2, 4, 8, ... fold, and the step is tried again

    D holds the largest norm that each column of J has had (Marquardt's scaling, as in MINPACK: the steps do not depend
    on the units of the parameters), or ones; top is the largest norm of a column of J D^-1. One decomposition of J
    serves all trials of a step. Where none lowers the loss, the update is zero and `state.info.failed` says so.

    `update` needs `residual_fn=`, which gives r, an array or a tree of arrays; the gradients that come in are not read.
    `state.value` is |r|^2 / 2. It is a whole optimizer, without a learning rate. `least_squares` runs it.

    Args:
      damping: at the start, relative to the largest squared column of J D^-1.
      scaling: whether to scale by the columns of J.
      max_trials: evaluations of r in one step at most.

    Differences. scipy `least_squares(method="lm")` (MINPACK) chooses the damping from a trust region instead. None of
    optax, torch and Keras has it.

    References: Levenberg, 1944. Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", 1963.
    Moré, "The Levenberg-Marquardt algorithm: implementation and theory", 1978. Nielsen, 1999.

    >>> from dlkit import optim
    >>> x = jnp.linspace(0, 2, 9)
    >>> residuals = lambda p: p["a"] * jnp.exp(p["b"] * x) - 2.0 * jnp.exp(-x)
    >>> start = {"a": jnp.array(0.1), "b": jnp.array(1.0)}
    >>> params, result = optim.least_squares(residuals, start, levenberg_marquardt())
    >>> print(f"{params['a']:.3f} {params['b']:.3f}")
    2.000 -1.000

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `residual_fn` is missing.
    """

    damping: Scalar = 1e-3
    scaling: bool = True
    max_trials: int = 30

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_trials", as_count("levenberg_marquardt", "max_trials", self.max_trials, 1))
        settle("levenberg_marquardt", self, nonnegative=("damping",))

    def init(self, params: Any) -> LevenbergMarquardtState:
        owner = "levenberg_marquardt"
        vectors.real_only(owner, params)
        dtype = vectors.scalar_dtype(params)
        scales = jnp.zeros(vectors.flat(params)[0].size, dtype) if self.scaling else None
        infinite = jnp.full((), jnp.inf, dtype)
        grad = zeros_like(owner, params)
        return LevenbergMarquardtState(as_dtype(self.damping, dtype), scales, infinite, grad, no_info(dtype))

    def update(
        self,
        grads: Any,
        state: LevenbergMarquardtState,
        params: Any = None,
        *,
        residual_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, LevenbergMarquardtState]:
        owner, dtype = "levenberg_marquardt", state.value.dtype
        needs(owner, params=params, residual_fn=residual_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        residuals = bind(owner, "residual_fn", residual_fn, extra)
        back = vectors.flat(vectors.wide(grads))[1]
        r, jacobian = (a.astype(dtype) for a in products.jacobian_matrix(residuals, params))
        scales = state.scales
        if scales is None:
            by = jnp.ones(jacobian.shape[1], dtype)
        else:
            scales = jnp.maximum(scales, jnp.sqrt(jnp.sum(jacobian**2, axis=0)))
            by = jnp.where(scales > 0, scales, jnp.ones_like(scales))
        scaled = jacobian / by[None]
        solve_scaled = damped_least_squares(scaled, r)
        top = jnp.sqrt(jnp.max(jnp.sum(scaled**2, axis=0), initial=0.0))
        top = jnp.where(top > 0, top, jnp.ones_like(top))
        high = jax.lax.Precision.HIGHEST

        def solve(damping: Any) -> tuple[Any, Any]:
            u = solve_scaled(damping * top**2)
            product = jnp.matmul(scaled, u, precision=high)
            # |r|^2 / 2 - |r - J u|^2 / 2, without the difference of large numbers.
            return back(-u / by), jnp.vdot(product, r, precision=high) - jnp.vdot(product, product, precision=high) / 2

        def loss(p: Any) -> Any:
            return half_square(residuals(p), dtype)

        found = damped_search(solve, loss, params, half_square(r, dtype), state.damping, self.max_trials)
        value, grad = jax.value_and_grad(loss)(vectors.move(params, found.direction))
        grad = vectors.cast_like(grad, state.grad)
        return found.direction, LevenbergMarquardtState(found.damping, scales, value, grad, found.info)


def half_square(residuals: Any, dtype: Any) -> Any:
    """|r|^2 / 2 of an array or a tree of arrays."""
    return vectors.dot(residuals, residuals).astype(dtype) / 2


levenberg_marquardt = LevenbergMarquardt
