"""The strong-Wolfe line search as a link: it scales the updates that come in."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.hyper import Scalar, as_count, as_float, settle
from dlkit.optim.leaves import zeros_like
from dlkit.optim.second_order import vectors
from dlkit.optim.second_order.arguments import bind, needs, scalar
from dlkit.optim.second_order.wolfe import wolfe_search
from dlkit.optim.transform import Transform

__all__ = ["ScaleByZoomLinesearch", "ScaleByZoomLinesearchState", "ZoomLinesearchInfo", "scale_by_zoom_linesearch"]


class ZoomLinesearchInfo(NamedTuple):
    """How the last search went. `decrease_error` above 0: it failed, and no step was taken."""

    num_linesearch_steps: Int[Array, ""]  # evaluations of the loss and its gradient
    decrease_error: Float[Array, ""]
    curvature_error: Float[Array, ""]  # above 0: the loss fell, but the slope is too steep still

    @property
    def failed(self) -> Bool[Array, "..."]:
        return self.decrease_error > 0


class ScaleByZoomLinesearchState(NamedTuple):
    """The step last taken, and the loss and its gradient where it led (`value_and_grad_from_state` reads them)."""

    learning_rate: Float[Array, ""]
    value: Float[Array, ""]  # infinite before the first update
    grad: Any
    info: ZoomLinesearchInfo


@dataclass(frozen=True)
class ScaleByZoomLinesearch(Transform[ScaleByZoomLinesearchState]):
    """u = a d, where d are the incoming updates and a is a step that satisfies the strong Wolfe conditions.

        f(p + a d) <= f(p) + slope_rtol a <g, d>        |<grad f(p + a d), d>| <= curv_rtol |<g, d>|

    `wolfe_search` says how a is found, and how the first condition is judged where f(p + a d) - f(p) is rounding.
    It belongs after the learning rate, at the end of a chain: d has to lead downhill. `update` needs `value=`, `grad=`
    and `value_fn=`; what else it is given goes to `value_fn`, where its signature names it.

    Args:
      max_linesearch_steps: evaluations at most.
      max_learning_rate: the largest a; None for no bound.
      tol: by how much both conditions may be missed.
      increase_factor: how a grows until it is bracketed.
      slope_rtol, curv_rtol: see above; 0 < slope_rtol < curv_rtol < 1 makes sure that such an a exists. An infinite
        `curv_rtol` leaves the second condition out.
      approx_dec_rtol: for the approximate decrease; None to leave it out.
      stepsize_precision: a bracket narrower than this ends the search once a step with enough decrease is known.
      initial_guess_strategy: "one" begins each search at a = 1 (Newton's methods), "keep" where the last one ended.

    Differences. optax: equal where the search succeeds. Where no step has enough decrease, optax takes the last one it
    tried, and the loss may rise; here the step is 0, `info.decrease_error` is above 0, and the next search begins at 1.
    `grad=` of complex parameters is what `jax.grad` gives, as `grad` of the state is; optax takes its conjugate, and
    keeps it as JAX gives it. A loss that is not finite at a trial is an upper end of the bracket here. There is no
    `verbose`: read `state.info`.

    References: see `wolfe_search`.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 4)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = optim.chain(optim.sgd(1.0), scale_by_zoom_linesearch(15))
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     value, grads = jax.value_and_grad(loss)(params)
    ...     updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}", bool(state[1].info.failed))
    0.431 False
    0.217 False
    0.136 False

    Raises:
      ValueError: an argument out of its range; from `update`, when one of its arguments is missing.
    """

    max_linesearch_steps: int
    max_learning_rate: Scalar | None = None
    tol: Scalar = 0.0
    increase_factor: Scalar = 2.0
    slope_rtol: Scalar = 1e-4
    curv_rtol: Scalar = 0.9
    approx_dec_rtol: Scalar | None = 1e-6
    stepsize_precision: Scalar = 1e-5
    initial_guess_strategy: Literal["one", "keep"] = "keep"

    def __post_init__(self) -> None:
        owner = "scale_by_zoom_linesearch"
        object.__setattr__(
            self, "max_linesearch_steps", as_count(owner, "max_linesearch_steps", self.max_linesearch_steps, 1)
        )
        settle(
            owner,
            self,
            nonnegative=("tol", "increase_factor", "slope_rtol", "curv_rtol", "stepsize_precision"),
        )
        for name in ("max_learning_rate", "approx_dec_rtol"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_float(owner, name, getattr(self, name)))
        if self.initial_guess_strategy not in ("one", "keep"):
            raise ValueError(
                f"{owner}: initial_guess_strategy is {self.initial_guess_strategy!r}, wanted 'one' or 'keep'"
            )

    def init(self, params: Any) -> ScaleByZoomLinesearchState:
        dtype = vectors.scalar_dtype(params)
        value, *errors = (jnp.full((), jnp.inf, dtype) for _ in range(3))
        info = ZoomLinesearchInfo(jnp.zeros((), jnp.int32), *errors)
        grad = zeros_like("scale_by_zoom_linesearch", params)
        return ScaleByZoomLinesearchState(jnp.ones((), dtype), value, grad, info)

    def update(
        self,
        grads: Any,
        state: ScaleByZoomLinesearchState,
        params: Any = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, ScaleByZoomLinesearchState]:
        owner = "scale_by_zoom_linesearch"
        needs(owner, params=params, value=value, grad=grad, value_fn=value_fn)
        dtype = state.value.dtype
        loss = bind(owner, "value_fn", value_fn, extra)
        kept = jnp.where(state.learning_rate > 0, state.learning_rate, jnp.ones((), dtype))
        found = wolfe_search(
            jax.value_and_grad(lambda p: scalar(owner, loss(p), dtype)),
            params,
            grads,
            value,
            grad,
            kept if self.initial_guess_strategy == "keep" else 1.0,
            max_steps=self.max_linesearch_steps,
            max_step=self.max_learning_rate,
            tol=self.tol,
            increase_factor=self.increase_factor,
            slope_rtol=self.slope_rtol,
            curv_rtol=self.curv_rtol,
            approx_dec_rtol=self.approx_dec_rtol,
            precision=self.stepsize_precision,
        )
        info = ZoomLinesearchInfo(found.evaluations, found.decrease_error, found.curvature_error)
        info = vectors.cast_like(info, state.info)
        step, value = found.step.astype(dtype), found.value.astype(dtype)
        grad = vectors.cast_like(found.grad, state.grad)
        return vectors.times(step, grads), ScaleByZoomLinesearchState(step, value, grad, info)


scale_by_zoom_linesearch = ScaleByZoomLinesearch
