"""Damped Newton: Levenberg's shift of the Hessian, chosen so that the loss never rises."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.functional import decompositions
from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.leaves import check_like, zeros_like
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.second_order.trials import TrialInfo, damped_search, no_info
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform

__all__ = ["DampedNewton", "DampedNewtonState", "damped_newton"]


class DampedNewtonState(NamedTuple):
    """The damping for the next step, and the loss and gradient where the last one led."""

    damping: Float[Array, ""]  # relative to the largest |eigenvalue|
    value: Float[Array, ""]  # infinite before the first update
    grad: Any
    info: TrialInfo


@dataclass(frozen=True)
class DampedNewton(Transform[DampedNewtonState]):
    """Newton's method that never raises the loss: H is shifted until it is positive, and the step is good enough.

        H = U diag(lambda) U'       top = max |lambda|       shift = max(0, -min lambda) + damping top
        d = -(H + shift I)^-1 g     ratio = (f(p) - f(p + d)) / (m(0) - m(d)),   m(d) = <g, d> + <d, H d> / 2
        ratio > 1e-4:  p = p + d,   damping = damping max(1/3, 1 - (2 ratio - 1)^3)
        otherwise:     damping grows 2, 4, 8, ... fold, and the step is tried again, with the same U

    The damping falls to nothing near a minimum, where this is Newton's method. Where no trial lowers the loss, the
    update is zero and `state.info.failed` says so. "Never raises" is up to a few units in the last place of the loss.

    Args:
      damping: at the start, relative to the largest |eigenvalue|.
      max_trials: evaluations of the loss in one step at most.

    `update` needs `value=` and `value_fn=`. It is a whole optimizer, without a learning rate. H is a matrix: for more
    than some thousand parameters see `trust_region`. Damped Newton with a constant factor is
    `newton(learning_rate=0.5)`.

    Differences. None of optax, torch and Keras has it.

    References: Levenberg, "A method for the solution of certain non-linear problems in least squares", 1944. Goldfeld,
    Quandt, Trotter, "Maximization by quadratic hill-climbing", 1966. Nielsen, "Damping parameter in Marquardt's
    method", 1999.

    >>> from dlkit import optim
    >>> loss = lambda p: p[0] ** 4 - p[0] ** 2 + p[1] ** 2
    >>> params = jnp.array([0.1, 1.0])  # between two minima, where the curvature is negative
    >>> tx = damped_newton()
    >>> state = tx.init(params)
    >>> for _ in range(6):
    ...     value, grads = jax.value_and_grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, value=value, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.4f}")
    -0.2500

    Raises:
      ValueError: an argument out of its range; from `update`, when one of its arguments is missing.
    """

    damping: Scalar = 1e-3
    max_trials: int = 30

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_trials", as_count("damped_newton", "max_trials", self.max_trials, 1))
        settle("damped_newton", self, nonnegative=("damping",))

    def init(self, params: Any) -> DampedNewtonState:
        vectors.real_only("damped_newton", params)
        dtype = vectors.scalar_dtype(params)
        grad = zeros_like("damped_newton", params)
        infinite = jnp.full((), jnp.inf, dtype)
        return DampedNewtonState(as_dtype(self.damping, dtype), infinite, grad, no_info(dtype))

    def update(
        self,
        grads: Any,
        state: DampedNewtonState,
        params: Any = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, DampedNewtonState]:
        owner, dtype = "damped_newton", state.value.dtype
        needs(owner, params=params, value=value, value_fn=value_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        given = bind(owner, "value_fn", value_fn, extra)

        def loss(p: Any) -> Any:
            return scalar(owner, given(p), dtype)

        g, back = vectors.flat(vectors.wide(grads))
        values, basis = decompositions.eigh(products.hessian_matrix(loss, params, dtype))
        high = jax.lax.Precision.HIGHEST
        along = jnp.matmul(basis.T, g.astype(dtype), precision=high)
        top = jnp.max(jnp.abs(values), initial=0.0)
        top = jnp.where(top > 0, top, jnp.ones_like(top))
        below = jnp.maximum(-jnp.min(values, initial=jnp.inf), 0)

        def solve(damping: Any) -> tuple[Any, Any]:
            shifted = values + below + jnp.maximum(damping, 2 * jnp.finfo(dtype).eps) * top
            d = -along / shifted
            promised = -jnp.sum(along * d + values * d**2 / 2)
            return back(jnp.matmul(basis, d, precision=high)), promised

        found = damped_search(solve, loss, params, scalar(owner, value, dtype), state.damping, self.max_trials)
        new_value, new_grad = jax.value_and_grad(loss)(vectors.move(params, found.direction))
        new_grad = vectors.cast_like(new_grad, state.grad)
        return found.direction, DampedNewtonState(found.damping, new_value, new_grad, found.info)


damped_newton = DampedNewton
