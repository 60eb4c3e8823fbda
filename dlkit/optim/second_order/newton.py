"""Newton's method with the Hessian as a matrix: for small problems."""

from dataclasses import dataclass
from typing import Any

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, settle
from dlkit.optim.leaves import check_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, EmptyState, Transform, chain, identity

__all__ = ["ScaleByNewton", "newton", "scale_by_newton"]


@dataclass(frozen=True)
class ScaleByNewton(Transform[EmptyState]):
    """u = (H + damping I)^-1 g, where H is the Hessian of `value_fn` at the parameters: see `newton`.

    >>> import jax.numpy as jnp
    >>> loss = lambda p: p[0] ** 2 + 10 * p[1] ** 2 + p[0] * p[1]
    >>> p = jnp.array([1.0, 2.0])
    >>> tx = scale_by_newton()
    >>> tx.update(jnp.array([4.0, 41.0]), tx.init(p), p, value_fn=loss)[0]
    Array([1., 2.], dtype=float32)

    Raises:
      ValueError: a negative damping; from `update`, when `params` or `value_fn` is missing.
    """

    damping: Scalar = 0.0
    absolute: bool = False

    def __post_init__(self) -> None:
        settle("scale_by_newton", self, nonnegative=("damping",))

    def init(self, params: Any) -> EmptyState:
        vectors.real_only("scale_by_newton", params)
        return EmptyState()

    def update(
        self, grads: Any, state: EmptyState, params: Any = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, EmptyState]:
        owner = "scale_by_newton"
        needs(owner, params=params, value_fn=value_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        loss = bind(owner, "value_fn", value_fn, extra)
        g, back = vectors.flat(vectors.wide(grads))
        dtype = vectors.scalar_dtype(params, grads)
        matrix = products.hessian_matrix(lambda p: scalar(owner, loss(p), dtype), params, dtype)
        damping = as_dtype(self.damping, dtype)
        return back(products.solve_symmetric(matrix, g.astype(dtype), damping, self.absolute)), state


scale_by_newton = ScaleByNewton


def newton(
    learning_rate: ScalarOrSchedule = 1.0,
    damping: Scalar = 0.0,
    *,
    absolute: bool = False,
    linesearch: Any = None,
) -> Chain:
    """Newton's method: to the stationary point of the quadratic that touches the loss here.

        p = p - eta (H + damping I)^-1 g         absolute:  |H|, with |eigenvalues|, stands for H

    With eta = 1 one step solves a quadratic, and near a minimum the error is squared in every step. A constant eta
    below 1 is damped Newton; `damped_newton` chooses the damping itself. H has as many rows as there are parameters:
    its eigenvalues take O(n^3) time; for more than some thousand parameters use `newton_cg`. Directions without
    curvature are left alone, and **where H has negative eigenvalues the step leads to a saddle or a maximum**, unless
    `absolute` (saddle-free Newton). `update` needs `value_fn=`.

    Args:
      learning_rate: eta.
      damping: added to the eigenvalues.
      absolute: whether to use |eigenvalues|.
      linesearch: a link that scales the step, such as `scale_by_backtracking_linesearch(20)`; with it, `update` needs
        `value=` and `grad=` too, and the step has to lead downhill: use `absolute` where the loss is not convex.

    Differences. None of optax, torch and Keras has it.

    References: Nocedal, Wright, "Numerical optimization", 2006, chapter 3. Dauphin et al., "Identifying and attacking
    the saddle point problem in high-dimensional non-convex optimization", 2014 (`absolute`).

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(jnp.cosh(p["w"]))
    >>> params = {"w": jnp.array([1.0, -0.5])}
    >>> tx = newton()
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params) - 2:.5f}")
    0.02927
    0.00001
    0.00000

    Raises:
      ValueError: a negative damping; from `update`, when `params` or `value_fn` is missing.
    """
    return chain(
        scale_by_newton(damping, absolute),
        scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
