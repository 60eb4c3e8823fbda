"""The backtracking line search: a step is shortened until the loss falls enough (Armijo)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.hyper import Scalar, as_count, settle
from dlkit.optim.leaves import zeros_like
from dlkit.optim.second_order import vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform

__all__ = [
    "BacktrackingLinesearchInfo",
    "BacktrackingPoint",
    "ScaleByBacktrackingLinesearch",
    "ScaleByBacktrackingLinesearchState",
    "backtracking_search",
    "scale_by_backtracking_linesearch",
]


class BacktrackingPoint(NamedTuple):
    """What `backtracking_search` found. `decrease_error` above 0: no trial had enough decrease, this is the last."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    evaluations: Int[Array, ""]
    decrease_error: Float[Array, ""]


def backtracking_search(
    value_fn: Callable[[Any], Any],
    params: Any,
    direction: Any,
    value: Any,
    slope: Any,
    guess: Any = 1.0,
    *,
    max_steps: int = 20,
    slope_rtol: Any = 1e-4,
    decrease_factor: Any = 0.5,
    atol: Any = 0.0,
    rtol: Any = 0.0,
) -> BacktrackingPoint:
    """The first a of guess, guess decrease_factor, guess decrease_factor^2, ... whose loss falls enough.

        f(p + a d) <= (1 + rtol) f(p) + slope_rtol a slope + atol        slope = <grad f(p), d>

    A loss that is not finite never falls enough. At most `max_steps` times the step is shortened.

    Reference: Armijo, "Minimization of functions having Lipschitz continuous first partial derivatives", 1966.

    >>> found = backtracking_search(lambda p: p**2, jnp.float32(1), jnp.float32(-8), 1.0, -16.0)
    >>> float(found.step), float(found.value), int(found.evaluations)
    (0.125, 0.0, 4)
    """
    dtype = vectors.scalar_dtype(params, direction)
    number = lambda x: as_dtype(x, dtype)  # noqa: E731
    bound = (1 + number(rtol)) * number(value) + number(atol)

    def at(step: Any, count: Any) -> BacktrackingPoint:
        new = jnp.asarray(value_fn(vectors.move(params, direction, step)), dtype)
        short = new - bound - number(slope_rtol) * step * number(slope)
        return BacktrackingPoint(step, new, count, jnp.where(jnp.isfinite(new), jnp.maximum(short, 0), jnp.inf))

    def body(point: BacktrackingPoint) -> BacktrackingPoint:
        # The first round tries the guess itself: so the loss is compiled once.
        step = jnp.where(point.evaluations == 0, point.step, number(decrease_factor) * point.step)
        return at(step, point.evaluations + 1)

    first = BacktrackingPoint(number(guess), number(jnp.inf), jnp.int32(0), number(jnp.inf))
    return jax.lax.while_loop(lambda s: (s.decrease_error > 0) & (s.evaluations <= max_steps), body, first)


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search went. `decrease_error` above 0: it failed, the step is the last it tried."""

    num_linesearch_steps: Int[Array, ""]  # evaluations of the loss
    decrease_error: Float[Array, ""]

    @property
    def failed(self) -> Bool[Array, "..."]:
        return self.decrease_error > 0


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The step last taken, the loss where it led, and with `store_grad` its gradient there."""

    learning_rate: Float[Array, ""]
    value: Float[Array, ""]  # infinite before the first update
    grad: Any  # None without `store_grad`
    info: BacktrackingLinesearchInfo


@dataclass(frozen=True)
class ScaleByBacktrackingLinesearch(Transform[ScaleByBacktrackingLinesearchState]):
    """u = a d, where d are the incoming updates and a is the first trial with enough decrease.

        f(p + a d) <= (1 + rtol) f(p) + slope_rtol a <g, d> + atol

    The first trial is min(increase_factor times the last step, max_learning_rate), and `decrease_factor` shortens it.
    It belongs after the learning rate: d has to lead downhill. `update` needs `value=`, `grad=` and `value_fn=`; what
    else it is given goes to `value_fn`, where its signature names it (a batch, say).

    Args:
      max_backtracking_steps: how often the step may be shortened.
      slope_rtol: the share of the decrease that the slope promises.
      decrease_factor: by which a trial that fails is multiplied.
      increase_factor: by which the last step is multiplied for the next first trial; 1 keeps it, infinity starts
        every search at `max_learning_rate`.
      max_learning_rate: the largest step.
      atol, rtol: by how much the condition may be missed: losses of batches are noisy.
      store_grad: whether to compute the gradient at the new parameters, for `value_and_grad_from_state`.

    Differences. optax: equal; its `verbose` is missing here: read `state.info`.

    References: Armijo, 1966 (see `backtracking_search`). Vaswani et al., "Painless stochastic gradient", 2019.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 4)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = optim.chain(optim.sgd(1.0), scale_by_backtracking_linesearch(15))
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     value, grads = jax.value_and_grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.358
    0.091
    0.036

    Raises:
      ValueError: an argument out of its range; from `update`, when one of its arguments is missing.
    """

    max_backtracking_steps: int
    slope_rtol: Scalar = 1e-4
    decrease_factor: Scalar = 0.8
    increase_factor: Scalar = 1.5
    max_learning_rate: Scalar = 1.0
    atol: Scalar = 0.0
    rtol: Scalar = 0.0
    store_grad: bool = False

    def __post_init__(self) -> None:
        owner = "scale_by_backtracking_linesearch"
        object.__setattr__(
            self, "max_backtracking_steps", as_count(owner, "max_backtracking_steps", self.max_backtracking_steps)
        )
        positive = ("slope_rtol", "increase_factor", "max_learning_rate", "atol", "rtol")
        settle(owner, self, nonnegative=positive, decays=("decrease_factor",))

    def init(self, params: Any) -> ScaleByBacktrackingLinesearchState:
        dtype = vectors.scalar_dtype(params)
        value, error = (jnp.full((), jnp.inf, dtype) for _ in range(2))
        grad = zeros_like("scale_by_backtracking_linesearch", params) if self.store_grad else None
        info = BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), error)
        return ScaleByBacktrackingLinesearchState(jnp.ones((), dtype), value, grad, info)

    def update(
        self,
        grads: Any,
        state: ScaleByBacktrackingLinesearchState,
        params: Any = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, ScaleByBacktrackingLinesearchState]:
        owner = "scale_by_backtracking_linesearch"
        needs(owner, params=params, value=value, grad=grad, value_fn=value_fn)
        dtype = state.value.dtype
        given = bind(owner, "value_fn", value_fn, extra)

        def loss(p: Any) -> Any:
            return scalar(owner, given(p), dtype)

        # An infinite factor times a step of 0 would be NaN.
        wider = as_dtype(self.increase_factor, dtype) * jnp.maximum(state.learning_rate, jnp.finfo(dtype).tiny)
        found = backtracking_search(
            loss,
            params,
            grads,
            value,
            vectors.slope_along(grad, grads),
            jnp.minimum(wider, as_dtype(self.max_learning_rate, dtype)),
            max_steps=self.max_backtracking_steps,
            slope_rtol=self.slope_rtol,
            decrease_factor=self.decrease_factor,
            atol=self.atol,
            rtol=self.rtol,
        )
        after = None
        if self.store_grad:
            after = vectors.cast_like(jax.grad(loss)(vectors.move(params, grads, found.step)), state.grad)
        info = BacktrackingLinesearchInfo(found.evaluations, found.decrease_error.astype(dtype))
        step, value = found.step.astype(dtype), found.value.astype(dtype)
        return vectors.times(step, grads), ScaleByBacktrackingLinesearchState(step, value, after, info)


scale_by_backtracking_linesearch = ScaleByBacktrackingLinesearch
