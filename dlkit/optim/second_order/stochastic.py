"""Stochastic Newton: gradients and Hessians of batches, the Hessians averaged over the steps."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, bias_correction, safe_increment, settle
from dlkit.optim.leaves import check_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["ScaleByStochasticNewton", "ScaleByStochasticNewtonState", "scale_by_stochastic_newton", "stochastic_newton"]


class ScaleByStochasticNewtonState(NamedTuple):
    """Updates so far (int32), and the average of the batches' Hessians over the flat parameters."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    hessian: Float[Array, "n n"]


@dataclass(frozen=True)
class ScaleByStochasticNewton(Transform[ScaleByStochasticNewtonState]):
    """u = (|H| + damping I)^-1 g, where H is the average of the batches' Hessians: see `stochastic_newton`.

    >>> tx = scale_by_stochastic_newton(damping=0.0)
    >>> p = jnp.array([1.0, 2.0])
    >>> tx.update(jnp.array([2.0, 16.0]), tx.init(p), p, value_fn=lambda p: p[0] ** 2 + 4 * p[1] ** 2)[0]
    Array([1., 2.], dtype=float32)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `value_fn` is missing.
    """

    damping: Scalar = 1e-3
    decay: Scalar | None = None

    def __post_init__(self) -> None:
        settle("scale_by_stochastic_newton", self, nonnegative=("damping",))
        if self.decay is not None:
            value = as_float("scale_by_stochastic_newton", "decay", self.decay)
            object.__setattr__(self, "decay", value)
            if not isinstance(value, Traced) and not 0 <= value < 1:
                raise ValueError(f"scale_by_stochastic_newton: decay is {value}, wanted 0 <= decay < 1, or None")

    def init(self, params: Any) -> ScaleByStochasticNewtonState:
        vectors.real_only("scale_by_stochastic_newton", params)
        size = vectors.flat(params)[0].size
        return ScaleByStochasticNewtonState(
            jnp.zeros((), jnp.int32), jnp.zeros((size, size), vectors.scalar_dtype(params))
        )

    def update(
        self,
        grads: Any,
        state: ScaleByStochasticNewtonState,
        params: Any = None,
        *,
        value_fn: Any = None,
        hessian_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, ScaleByStochasticNewtonState]:
        owner = "scale_by_stochastic_newton"
        needs(owner, params=params, value_fn=value_fn if hessian_fn is None else hessian_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        loss = bind(owner, "value_fn", value_fn if hessian_fn is None else hessian_fn, extra)
        dtype, count = state.hessian.dtype, safe_increment(state.count)
        new = products.hessian_matrix(lambda p: scalar(owner, loss(p), dtype), params, dtype)
        if self.decay is None:
            share = 1 / count.astype(dtype)
        else:  # a corrected average: in the first step it is the batch's own Hessian
            share = (1 - as_dtype(self.decay, dtype)) / bias_correction(self.decay, count).astype(dtype)
        average = state.hessian + share * (new - state.hessian)
        g, back = vectors.flat(vectors.wide(grads))
        u = products.solve_symmetric(average, g.astype(dtype), as_dtype(self.damping, dtype), absolute=True)
        return back(u), ScaleByStochasticNewtonState(count, average)


scale_by_stochastic_newton = ScaleByStochasticNewton


def stochastic_newton(
    learning_rate: ScalarOrSchedule = 1.0, damping: Scalar = 1e-3, decay: Scalar | None = None
) -> Chain:
    """Newton's method on batches: each step's Hessian is that of its batch, averaged with those of the steps before.

        H = H + (h - H) / t                                      h: the Hessian of the batch, in update t = 1, 2, ...
        H = H + (h - H) (1 - decay) / (1 - decay^t)              with a decay
        p = p - eta (|H| + damping I)^-1 g

    The average over all steps removes the batches' noise from H; its inverse would turn that noise into a bias. With a
    decay, H forgets what far parameters were like; `decay=0` uses the batch's own Hessian. |H| has the eigenvalues'
    absolute values, so that the step leads downhill. H is a matrix: for small models. `update` needs `value_fn=`, the
    loss of the batch; `hessian_fn=` may give that of another, smaller batch for the Hessian alone.

    Args:
      learning_rate: eta; with a fixed batch size the gradient's noise remains, so let it fall for an exact solution.
      damping: added to the eigenvalues.
      decay: the weight of the old average; None weighs all steps equally.

    Differences. None of optax, torch and Keras has it.

    References: Byrd et al., "On the use of stochastic Hessian information in optimization methods for machine
    learning", 2011. Na, Dereziński, Mahoney, "Hessian averaging in stochastic Newton methods achieves superlinear
    convergence", 2022.

    >>> import jax
    >>> from dlkit import optim
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> y = x @ jnp.array([1.0, -2.0, 3.0])
    >>> loss = lambda p, rows: jnp.mean((x[rows] @ p - y[rows]) ** 2)
    >>> params = jnp.zeros(3)
    >>> tx = stochastic_newton()
    >>> state = tx.init(params)
    >>> for rows in jnp.arange(64).reshape(4, 16):
    ...     grads = jax.grad(loss)(params, rows)
    ...     updates, state = tx.update(grads, state, params, value_fn=loss, rows=rows)
    ...     params = optim.apply_updates(params, updates)
    >>> params.round(2)
    Array([ 1., -2.,  3.], dtype=float32)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `value_fn` is missing.
    """
    return chain(scale_by_stochastic_newton(damping, decay), scale_by_learning_rate(learning_rate))
