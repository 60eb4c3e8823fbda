"""Nonlinear conjugate gradients: each direction is the gradient and a share of the last direction."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, settle
from dlkit.optim.leaves import check_like, zeros_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.second_order import vectors
from dlkit.optim.second_order.zoom import scale_by_zoom_linesearch
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["ScaleByNonlinearCG", "ScaleByNonlinearCGState", "nonlinear_cg", "scale_by_nonlinear_cg"]

Formula = Literal["fletcher_reeves", "polak_ribiere", "hestenes_stiefel", "dai_yuan"]
FORMULAS = ("fletcher_reeves", "polak_ribiere", "hestenes_stiefel", "dai_yuan")


class ScaleByNonlinearCGState(NamedTuple):
    """Updates so far (int32), the last gradient, and the last update."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    grad: Any
    direction: Any


@dataclass(frozen=True)
class ScaleByNonlinearCG(Transform[ScaleByNonlinearCGState]):
    """u = g + beta u, the direction of nonlinear conjugate gradients: see `nonlinear_cg`.

    >>> tx = scale_by_nonlinear_cg("fletcher_reeves")
    >>> state = tx.init(jnp.zeros(2))
    >>> u, state = tx.update(jnp.array([2.0, 0.0]), state)
    >>> tx.update(jnp.array([0.0, 1.0]), state)[0]
    Array([0.5, 1. ], dtype=float32)

    Raises:
      ValueError: there is no such formula.
    """

    formula: Formula = "polak_ribiere"
    restart: Scalar = 0.5

    def __post_init__(self) -> None:
        settle("scale_by_nonlinear_cg", self, nonnegative=("restart",))
        if self.formula not in FORMULAS:
            raise ValueError(f"scale_by_nonlinear_cg: formula is {self.formula!r}, wanted one of {', '.join(FORMULAS)}")

    def init(self, params: Any) -> ScaleByNonlinearCGState:
        vectors.real_only("scale_by_nonlinear_cg", params)
        grad, direction = (zeros_like("scale_by_nonlinear_cg", params) for _ in range(2))
        return ScaleByNonlinearCGState(jnp.zeros((), jnp.int32), grad, direction)

    def update(
        self, grads: Any, state: ScaleByNonlinearCGState, params: Any = None
    ) -> tuple[Any, ScaleByNonlinearCGState]:
        owner = "scale_by_nonlinear_cg"
        check_like(owner, "the gradients do not match the state (made for other parameters?)", state.grad, grads)
        g = vectors.wide(grads)
        old, u = vectors.cast_like(state.grad, g), vectors.cast_like(state.direction, g)
        gg = vectors.dot(g, g)
        y = vectors.subtract(g, old)
        gy, dy = vectors.dot(g, y), -vectors.dot(u, y)  # the direction is d = -u
        over = {"polak_ribiere": gy, "hestenes_stiefel": gy}.get(self.formula, gg)
        under = {"dai_yuan": dy, "hestenes_stiefel": dy}.get(self.formula, vectors.dot(old, old))
        safe = under != 0
        beta = jnp.where(safe, over / jnp.where(safe, under, jnp.ones_like(under)), jnp.zeros_like(over))
        beta = jnp.where(state.count == 0, jnp.zeros_like(beta), jnp.maximum(beta, 0))
        new = vectors.add(g, u, beta)
        # Anew at the gradient where the direction would not lead downhill, or the last two gradients overlap.
        straight = jnp.abs(vectors.dot(g, old)) < as_dtype(self.restart, gg.dtype) * gg
        new = vectors.where(straight & (vectors.dot(g, new) > 0), new, g)
        return new, ScaleByNonlinearCGState(
            safe_increment(state.count), vectors.cast_like(g, state.grad), vectors.cast_like(new, state.direction)
        )


scale_by_nonlinear_cg = ScaleByNonlinearCG


def nonlinear_cg(
    learning_rate: ScalarOrSchedule = 1.0,
    formula: Formula = "polak_ribiere",
    restart: Scalar = 0.5,
    linesearch: Any = scale_by_zoom_linesearch(20, curv_rtol=0.1, initial_guess_strategy="keep"),
) -> Chain:
    """Nonlinear conjugate gradients: three vectors of memory, and a line search that has to be a good one.

        d_k = -g_k + beta d_(k-1)         y = g_k - g_(k-1)         p = p + a d_k
        fletcher_reeves    beta = <g_k, g_k> / <g_(k-1), g_(k-1)>
        polak_ribiere      beta = max(0, <g_k, y> / <g_(k-1), g_(k-1)>)
        hestenes_stiefel   beta = max(0, <g_k, y> / <d_(k-1), y>)
        dai_yuan           beta = <g_k, g_k> / <d_(k-1), y>

    On a quadratic with exact searches all four are linear conjugate gradients: n steps in n dimensions. It begins anew
    at d = -g where d does not lead downhill, and where |<g_k, g_(k-1)>| >= restart <g_k, g_k>: without that, the first
    and the last formula may creep along for thousands of steps. `update` needs `value=`, `grad=` and `value_fn=`;
    `minimize` runs it whole.

    Args:
      learning_rate: scales the direction before the line search.
      formula: the beta.
      restart: see above; infinity for never.
      linesearch: a link that scales the direction; its `curv_rtol` should be well below 1/2.

    Differences. scipy `CG`: polak_ribiere without restarts, another first trial of the line search. None of optax,
    torch and Keras has it.

    References: Fletcher, Reeves, "Function minimization by conjugate gradients", 1964. Polak, Ribière, 1969. Hestenes,
    Stiefel, 1952. Dai, Yuan, "A nonlinear conjugate gradient method with a strong global convergence property", 1999.
    Powell, "Restart procedures for the conjugate gradient method", 1977.

    >>> from dlkit import optim
    >>> loss = lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
    >>> params, result = optim.minimize(loss, jnp.array([-1.2, 1.0]), nonlinear_cg(), tol=1e-3)
    >>> params.round(2), bool(result.converged)
    (Array([1., 1.], dtype=float32), True)

    Raises:
      ValueError: there is no such formula; from `update`, when `params`, `value`, `grad` or `value_fn` is missing.
    """
    return chain(scale_by_nonlinear_cg(formula, restart), scale_by_learning_rate(learning_rate), linesearch)
