"""Gauss-Newton for least squares: the Hessian of |r|^2 / 2 without the residuals' own curvature."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dlkit.functional import decompositions
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, settle
from dlkit.optim.leaves import check_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs
from dlkit.optim.second_order.conjugate import cg
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, EmptyState, Transform, chain, identity

__all__ = ["ScaleByGaussNewton", "gauss_newton", "scale_by_gauss_newton"]


@dataclass(frozen=True)
class ScaleByGaussNewton(Transform[EmptyState]):
    """u = (J' J + damping I)^-1 J' r, where J is the Jacobian of the residuals r: see `gauss_newton`.

    >>> r = lambda p: jnp.array([p[0] - 1.0, 10 * (p[1] - p[0])])
    >>> p = jnp.zeros(2)
    >>> tx = scale_by_gauss_newton()
    >>> tx.update(jax.grad(lambda p: jnp.sum(r(p) ** 2))(p), tx.init(p), p, residual_fn=r)[0].round(3)
    Array([-1., -1.], dtype=float32)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `residual_fn` is missing.
    """

    damping: Scalar = 0.0
    solver: Literal["dense", "cg"] = "dense"
    max_cg_steps: int = 100
    cg_tol: Scalar = 1e-6

    def __post_init__(self) -> None:
        owner = "scale_by_gauss_newton"
        object.__setattr__(self, "max_cg_steps", as_count(owner, "max_cg_steps", self.max_cg_steps, 1))
        settle(owner, self, nonnegative=("damping", "cg_tol"))
        if self.solver not in ("dense", "cg"):
            raise ValueError(f"{owner}: solver is {self.solver!r}, wanted 'dense' or 'cg'")

    def init(self, params: Any) -> EmptyState:
        vectors.real_only("scale_by_gauss_newton", params)
        return EmptyState()

    def update(
        self, grads: Any, state: EmptyState, params: Any = None, *, residual_fn: Any = None, **extra: Any
    ) -> tuple[Any, EmptyState]:
        owner = "scale_by_gauss_newton"
        needs(owner, params=params, residual_fn=residual_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        residuals = bind(owner, "residual_fn", residual_fn, extra)
        dtype = vectors.scalar_dtype(params)
        damping, like = as_dtype(self.damping, dtype), vectors.wide(grads)
        if self.solver == "dense":
            r, jacobian = (a.astype(dtype) for a in products.jacobian_matrix(residuals, params))
            solve = damped_least_squares(jacobian, r)
            return vectors.flat(like)[1](solve(damping)), state
        r, forward = jax.linearize(residuals, params)
        backward = jax.linear_transpose(forward, params)

        def product(v: Any) -> Any:
            curved = vectors.cast_like(backward(forward(vectors.cast_like(v, params)))[0], like)
            return vectors.add(curved, v, damping)

        slope = vectors.cast_like(backward(r)[0], like)
        return cg(product, slope, tol=self.cg_tol, max_steps=self.max_cg_steps)[0], state


def damped_least_squares(jacobian: Any, r: Any) -> Any:
    """damping -> (J' J + damping I)^-1 J' r, for several dampings: from one singular value decomposition of J.

    J' J would square the condition number. Singular values that are rounding are left out: the shortest solution.
    """
    left, sizes, right = decompositions.svd(jacobian)
    high = jax.lax.Precision.HIGHEST
    along = jnp.matmul(left.T, r, precision=high)
    least = max(jacobian.shape) * jnp.finfo(r.dtype).eps * jnp.max(sizes, initial=0.0)
    kept = sizes > least

    def solve(damping: Any) -> Any:
        factors = sizes / jnp.where(kept, sizes**2 + damping, jnp.ones_like(sizes))
        return jnp.matmul(right.T, jnp.where(kept, factors, jnp.zeros_like(factors)) * along, precision=high)

    return solve


scale_by_gauss_newton = ScaleByGaussNewton


def gauss_newton(
    learning_rate: ScalarOrSchedule = 1.0,
    damping: Scalar = 0.0,
    solver: Literal["dense", "cg"] = "dense",
    max_cg_steps: int = 100,
    cg_tol: Scalar = 1e-6,
    *,
    linesearch: Any = None,
) -> Chain:
    """Gauss-Newton: each step solves the linear least-squares problem that touches the nonlinear one here.

        p = p - eta (J' J + damping I)^-1 J' r          J: the Jacobian of the residuals r(p)

    Near a solution with small residuals it is as fast as Newton's method, without second derivatives; far from it, it
    may diverge: see `levenberg_marquardt`. `update` needs `residual_fn=`, which gives r, an array or a tree of arrays.
    The gradients that come in are not read: J' r does not depend on how the squares are averaged.

    Args:
      learning_rate: eta.
      damping: added to J' J.
      solver: "dense" decomposes J (singular values; the shortest solution where J is rank-deficient); "cg" takes
        products with J and J' alone.
      max_cg_steps, cg_tol: of "cg": products at most, and the residual at which it ends, relative to |J' r|.
      linesearch: a link that scales the step; with it, `update` needs `value=`, `grad=` and `value_fn=` too.

    Differences. None of optax, torch and Keras has it.

    Reference: Nocedal, Wright, "Numerical optimization", 2006, section 10.3.

    >>> from dlkit import optim
    >>> x = jnp.linspace(0, 2, 9)
    >>> residuals = lambda p: p[0] * jnp.exp(p[1] * x) - 2.0 * jnp.exp(-x)
    >>> params, result = optim.least_squares(residuals, jnp.array([1.5, -0.5]), gauss_newton())
    >>> params.round(3)
    Array([ 2., -1.], dtype=float32)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `residual_fn` is missing.
    """
    return chain(
        scale_by_gauss_newton(damping, solver, max_cg_steps, cg_tol),
        scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
