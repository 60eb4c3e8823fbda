"""L-BFGS: the inverse Hessian from the last few steps."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import ScalarOrSchedule, as_count, safe_increment
from dlkit.optim.leaves import check_like, need_params, zeros_like
from dlkit.optim.scaling import scale, scale_by_learning_rate
from dlkit.optim.second_order import vectors
from dlkit.optim.second_order.zoom import scale_by_zoom_linesearch
from dlkit.optim.transform import Chain, Transform, chain, identity

__all__ = ["ScaleByLBFGS", "ScaleByLBFGSState", "lbfgs", "scale_by_lbfgs"]


class ScaleByLBFGSState(NamedTuple):
    """The last parameters and gradients, and the last differences of both, each leaf stacked `memory_size` times."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    params: Any
    updates: Any
    diff_params_memory: Any  # s
    diff_updates_memory: Any  # y
    weights_memory: Float[Array, "m"]  # rho = 1 / <y, s>; 0 where there is no pair yet


@dataclass(frozen=True)
class ScaleByLBFGS(Transform[ScaleByLBFGSState]):
    """u = P g, where P is the inverse Hessian as the last `memory_size` steps show it: see `lbfgs`.

    >>> tx = scale_by_lbfgs()
    >>> p, state = jnp.array([1.0, 1.0]), tx.init(jnp.ones(2))
    >>> curvature = jnp.array([1.0, 10.0])
    >>> for _ in range(4):
    ...     u, state = tx.update(curvature * p, state, p)
    ...     p = p - u
    >>> bool(jnp.max(jnp.abs(p)) < 0.1)
    True

    Raises:
      ValueError: `memory_size` is below 1; from `update`, when `params` is None.
    """

    memory_size: int = 10
    scale_init_precond: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory_size", as_count("scale_by_lbfgs", "memory_size", self.memory_size, 1))

    def init(self, params: Any) -> ScaleByLBFGSState:
        point, updates = (zeros_like("scale_by_lbfgs", params) for _ in range(2))
        moves, turns = (
            jax.tree.map(lambda z: jnp.zeros((self.memory_size, *z.shape), z.dtype), of) for of in (point, updates)
        )
        weights = jnp.zeros(self.memory_size, vectors.scalar_dtype(params))
        return ScaleByLBFGSState(jnp.zeros((), jnp.int32), point, updates, moves, turns, weights)

    def update(self, grads: Any, state: ScaleByLBFGSState, params: Any = None) -> tuple[Any, ScaleByLBFGSState]:
        owner = "scale_by_lbfgs"
        need_params(owner, params)
        check_like(owner, "the gradients do not match the state (made for other parameters?)", state.updates, grads)
        first, size, dtype = state.count == 0, self.memory_size, state.weights_memory.dtype
        s = vectors.where(first, state.params, vectors.subtract(params, state.params))  # zeros in the first update
        y = vectors.where(first, state.updates, vectors.subtract(vectors.cast_like(grads, params), state.updates))
        sy = vectors.dot(y, s).astype(dtype)
        weight = jnp.where(sy == 0, jnp.zeros_like(sy), 1 / jnp.where(sy == 0, jnp.ones_like(sy), sy))
        slot = (state.count - 1) % size

        def put(memory: Any, new: Any) -> Any:
            return jax.tree.map(lambda m, x: m.at[slot].set(x.astype(m.dtype)), memory, new)

        memory_s, memory_y = put(state.diff_params_memory, s), put(state.diff_updates_memory, y)
        weights = state.weights_memory.at[slot].set(weight)
        factor = jnp.ones((), dtype)
        if self.scale_init_precond:
            yy, length = vectors.dot(y, y).astype(dtype), vectors.norm(grads).astype(dtype)
            factor = jnp.where(yy > 0, sy / jnp.where(yy > 0, yy, jnp.ones_like(yy)), factor)
            # The first step, for which there is no pair yet, is no longer than 1.
            factor = jnp.where(first, 1 / jnp.maximum(length, 1), factor)
        updates = _two_loops(vectors.wide(grads), memory_s, memory_y, weights, factor, state.count)
        grads = vectors.cast_like(grads, state.updates)
        return updates, ScaleByLBFGSState(
            safe_increment(state.count), vectors.cast_like(params, state.params), grads, memory_s, memory_y, weights
        )


def _two_loops(q: Any, s: Any, y: Any, weights: Any, factor: Any, count: Any) -> Any:
    """Algorithm 7.4 over the ring of pairs: newest first, then oldest first."""
    size = weights.shape[0]
    order = (count + jnp.arange(size, dtype=jnp.int32)) % size  # the oldest pair is where the next one will go

    def pair(i: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda of, leaf: of[i].astype(leaf.dtype), s, q), jax.tree.map(
            lambda of, leaf: of[i].astype(leaf.dtype), y, q
        )

    def back(q: Any, i: Any) -> tuple[Any, Any]:
        s_i, y_i = pair(i)
        alpha = weights[i] * vectors.dot(s_i, q).astype(weights.dtype)
        return vectors.add(q, y_i, -alpha), alpha

    def forth(r: Any, row: Any) -> tuple[Any, None]:
        i, alpha = row
        s_i, y_i = pair(i)
        beta = weights[i] * vectors.dot(y_i, r).astype(weights.dtype)
        return vectors.add(r, s_i, alpha - beta), None

    q, alphas = jax.lax.scan(back, q, order, reverse=True)
    return jax.lax.scan(forth, vectors.times(factor, q), (order, alphas))[0]


scale_by_lbfgs = ScaleByLBFGS


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Any = scale_by_zoom_linesearch(20, initial_guess_strategy="one"),
) -> Chain:
    """L-BFGS: Newton's direction with a Hessian that is read off the last steps, and a line search.

        s = p_k - p_(k-1)     y = g_k - g_(k-1)     rho = 1 / <y, s>     V = I - rho y s'
        P_k = V' P_(k-1) V + rho s s'      begun at P = (<y, s> / <y, y>) I, `memory_size` pairs ago
        p   = p - a P_k g                  a from the line search, which tries 1 first

    P is never formed: its product with g takes 4 `memory_size` scalar products. The very first step is a g / max(1,
    |g|). `update` needs `value=`, `grad=` and `value_fn=` (for the line search); `minimize` runs it whole. The gradient
    has to be that of one fixed loss: noise between batches ends up in y.

    Args:
      learning_rate: scales the direction before the line search; None means 1.
      memory_size: how many pairs are kept.
      scale_init_precond: whether P begins at <y, s> / <y, y>; otherwise at 1.
      linesearch: a link that scales the direction; None to take it as it is.

    Differences. optax: equal up to roundings, except where a line search fails (see `ScaleByZoomLinesearch`). torch
    `LBFGS(line_search_fn="strong_wolfe")`: one `step` makes up to 20 iterations, keeps 100 pairs, drops pairs with
    <y, s> <= 1e-10, and searches by cubics alone. scipy's L-BFGS-B has bounds too. Keras has none.

    References: Nocedal, "Updating quasi-Newton matrices with limited storage", 1980. Liu, Nocedal, "On the limited
    memory BFGS method for large scale optimization", 1989.

    >>> from dlkit import optim
    >>> loss = lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
    >>> params = jnp.array([-1.2, 1.0])
    >>> tx = lbfgs()
    >>> state = tx.init(params)
    >>> @jax.jit
    ... def step(params, state):
    ...     value, grads = optim.value_and_grad_from_state(loss)(params, state=state)
    ...     updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
    ...     return optim.apply_updates(params, updates), state
    >>> for _ in range(40):
    ...     params, state = step(params, state)
    >>> bool(loss(params) < 1e-6)
    True

    Raises:
      ValueError: `memory_size` is below 1; from `update`, when `params`, `value`, `grad` or `value_fn` is missing.
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
