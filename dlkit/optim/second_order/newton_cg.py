"""Newton-CG: Newton's direction by conjugate gradients, from products with the Hessian alone."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, settle
from dlkit.optim.leaves import check_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.second_order.backtracking import scale_by_backtracking_linesearch
from dlkit.optim.second_order.conjugate import truncated_cg
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain, identity

__all__ = ["ScaleByNewtonCG", "ScaleByNewtonCGState", "newton_cg", "scale_by_newton_cg"]

BACKTRACKING = scale_by_backtracking_linesearch(
    30, decrease_factor=0.5, increase_factor=float("inf"), max_learning_rate=1.0, store_grad=True
)


class ScaleByNewtonCGState(NamedTuple):
    """Of the last update: how many products with the Hessian it took, and whether a direction curved down."""

    products: Int[Array, ""]
    curved_down: Bool[Array, ""]


@dataclass(frozen=True)
class ScaleByNewtonCG(Transform[ScaleByNewtonCGState]):
    """u = about H^-1 g, by conjugate gradients on H u = g that end at negative curvature: see `newton_cg`.

    >>> loss = lambda p: p[0] ** 2 - p[1] ** 2
    >>> p = jnp.array([1.0, 0.5])
    >>> tx = scale_by_newton_cg()
    >>> u, state = tx.update(jnp.array([2.0, -1.0]), tx.init(p), p, value_fn=loss)
    >>> bool(u[1] < 0), bool(state.curved_down)  # away from the saddle: the update is -u
    (True, True)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `value_fn` is missing.
    """

    max_cg_steps: int = 100
    forcing: Scalar = 0.5
    damping: Scalar = 0.0

    def __post_init__(self) -> None:
        owner = "scale_by_newton_cg"
        object.__setattr__(self, "max_cg_steps", as_count(owner, "max_cg_steps", self.max_cg_steps, 1))
        settle(owner, self, decays=("forcing",), nonnegative=("damping",))

    def init(self, params: Any) -> ScaleByNewtonCGState:
        vectors.real_only("scale_by_newton_cg", params)
        return ScaleByNewtonCGState(jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def update(
        self, grads: Any, state: ScaleByNewtonCGState, params: Any = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, ScaleByNewtonCGState]:
        owner = "scale_by_newton_cg"
        needs(owner, params=params, value_fn=value_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        loss, dtype = bind(owner, "value_fn", value_fn, extra), vectors.scalar_dtype(params)
        g = vectors.wide(grads)
        hessian = products.hessian_at(lambda p: scalar(owner, loss(p), dtype), params, g)
        damping = as_dtype(self.damping, dtype)
        found = truncated_cg(
            lambda v: vectors.add(hessian(v), v, damping),
            g,
            tol=forced(g, self.forcing),
            max_steps=self.max_cg_steps,
        )
        return vectors.times(-1.0, found.step), ScaleByNewtonCGState(found.steps, found.curved_down)


def forced(g: Any, forcing: Any) -> Any:
    """min(forcing, sqrt |g|) |g|: rough far from the solution, exact near it, so that the method is superlinear."""
    length = vectors.norm(g)
    return jnp.minimum(as_dtype(forcing, length.dtype), jnp.sqrt(length)) * length


scale_by_newton_cg = ScaleByNewtonCG


def newton_cg(
    learning_rate: ScalarOrSchedule = 1.0,
    max_cg_steps: int = 100,
    forcing: Scalar = 0.5,
    damping: Scalar = 0.0,
    *,
    linesearch: Any = BACKTRACKING,
) -> Chain:
    """Newton's method without a matrix: conjugate gradients on (H + damping I) d = -g, then a line search.

        products:   H v, forward over reverse (`hvp`), at the price of about two gradients each
        ends when   |H d + g| <= min(forcing, sqrt |g|) |g|, or <v, H v> <= 0 for a direction v of the search
        there       d is what was found so far; -g in the first step. It always leads downhill
        p = p + a eta d       a = 1, 1/2, 1/4, ... until the loss falls enough

    It leaves saddle points along which the gradient is not exactly zero. `update` needs `value=`, `grad=` and
    `value_fn=` (without a line search, `value_fn=` alone).

    Args:
      learning_rate: eta; the line search acts on top of it.
      max_cg_steps: products with the Hessian in one step at most.
      forcing: in [0, 1): how roughly the system is solved far from the solution.
      damping: added to the curvatures.
      linesearch: a link that scales the step; None to take it as it is.

    Differences. scipy `Newton-CG`: the same algorithm with another forcing term, and a Wolfe line search first. None of
    optax, torch and Keras has it.

    Reference: Nocedal, Wright, "Numerical optimization", 2006, algorithm 7.1.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
    >>> params, result = optim.minimize(loss, jnp.array([-1.2, 1.0]), newton_cg())
    >>> params.round(3), bool(result.converged)
    (Array([1., 1.], dtype=float32), True)

    Raises:
      ValueError: an argument out of its range; from `update`, when one of its arguments is missing.
    """
    return chain(
        scale_by_newton_cg(max_cg_steps, forcing, damping),
        scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
