"""The strong-Wolfe line search: a bracket that is widened, then zoomed into by interpolation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.second_order import vectors
from dlkit.optim.traced import as_dtype

__all__ = ["WolfePoint", "wolfe_search"]


class Point(NamedTuple):
    """A step along the direction, and the loss and its slope there."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    slope: Float[Array, ""]


class WolfePoint(NamedTuple):
    """What `wolfe_search` found: the step (0 where it failed), the loss and its gradient there, and how it went."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    grad: Any
    evaluations: Int[Array, ""]  # of the loss with its gradient
    decrease_error: Float[Array, ""]  # by how much the decrease falls short; above 0: no step was found
    curvature_error: Float[Array, ""]  # by how much the slope is too steep still


class Search(NamedTuple):
    tried: Int[Array, ""]
    zooming: Bool[Array, ""]
    done: Bool[Array, ""]
    low: Point  # the better end of the bracket; while there is none, the trial before
    high: Point
    other: Point  # a third point, for the cubic
    best: WolfePoint  # the lowest step so far with a sufficient decrease; 0 at first
    last: WolfePoint


def wolfe_search(
    value_and_grad: Callable[[Any], tuple[Any, Any]],
    params: Any,
    direction: Any,
    value: Any,
    grad: Any,
    guess: Any = 1.0,
    *,
    max_steps: int = 20,
    max_step: Any = None,
    tol: Any = 0.0,
    increase_factor: Any = 2.0,
    slope_rtol: Any = 1e-4,
    curv_rtol: Any = 0.9,
    approx_dec_rtol: Any = 1e-6,
    precision: Any = 1e-5,
) -> WolfePoint:
    """A step a along d with f(a) <= f(0) + slope_rtol a f'(0) and |f'(a)| <= curv_rtol |f'(0)|: the strong conditions.

    f(a) is the loss at params + a d. First the trial step grows by `increase_factor` until it brackets such a step
    (algorithm 3.5); then the bracket shrinks, by the minimum of a cubic, of a parabola, or to its half where these fall
    too close to an end (3.6). A trial whose loss is not finite is an upper end. Every round is one evaluation.

    Near a minimum, f(a) - f(0) is rounding. So where f(a) <= f(0) + approx_dec_rtol |f(0)|, the decrease may be judged
    by slopes instead: f'(a) <= (2 slope_rtol - 1) f'(0) (None: never).

    Args:
      value_and_grad: gives the loss and its gradient.
      params, direction: trees. The direction must lead downhill: where it does not, the search fails.
      value, grad: the loss and its gradient at `params`.
      guess: the first trial.
      max_steps: evaluations at most.
      max_step: the largest step; None for no bound.
      tol: how much both conditions may be missed by.
      precision: a bracket narrower than this ends the search, once a step with a sufficient decrease is known.

    Returns:
      The step; where only the decrease was reached, the lowest such step, with `curvature_error` above 0; where not
      even that was, step 0 with `decrease_error` above 0.

    References: Nocedal, Wright, "Numerical optimization", 2006, algorithms 3.5 and 3.6. Hager, Zhang, "Algorithm 851:
    CG_DESCENT", 2006.

    >>> loss = lambda p: (p - 3.0) ** 2
    >>> found = wolfe_search(jax.value_and_grad(loss), jnp.float32(0), jnp.float32(6), jnp.float32(9), jnp.float32(-6))
    >>> float(found.step), int(found.evaluations)
    (0.5, 2)
    """
    dtype = vectors.scalar_dtype(params, direction)
    number = lambda x: as_dtype(x, dtype)  # noqa: E731
    grad = vectors.cast_like(grad, grad)  # strongly typed, as what the loop returns
    start = Point(number(0.0), number(value), vectors.slope_along(grad, direction).astype(dtype))

    def errors(at: Point) -> tuple[Any, ...]:
        short = at.value - start.value - number(slope_rtol) * at.step * start.slope
        if approx_dec_rtol is not None:
            by_slope = at.slope - (2 * number(slope_rtol) - 1) * start.slope
            risen = at.value - start.value - number(approx_dec_rtol) * jnp.abs(start.value)
            short = jnp.minimum(jnp.maximum(by_slope, risen), short)
        steep = jnp.abs(at.slope) - number(curv_rtol) * jnp.abs(start.slope)
        return tuple(jnp.where(jnp.isnan(e), jnp.inf, jnp.maximum(e - number(tol), 0)) for e in (short, steep))

    def trial(s: Search) -> Any:
        wider = jnp.where(s.tried == 0, number(guess), number(increase_factor) * s.low.step)
        if max_step is not None:
            wider = jnp.minimum(wider, number(max_step))
        return jnp.where(s.zooming, _inside(s.low, s.high, s.other), wider)

    def body(s: Search) -> Search:
        step = trial(s)
        new_value, new_grad = value_and_grad(vectors.move(params, direction, step))
        at = Point(step, jnp.asarray(new_value, dtype), vectors.slope_along(new_grad, direction).astype(dtype))
        short, steep = errors(at)
        enough = short <= 0
        last = WolfePoint(step, at.value, vectors.cast_like(new_grad, grad), s.tried + 1, short, steep)
        found = enough & (steep <= 0)
        best = vectors.where(enough & ((s.best.step == 0) | (at.value < s.best.value)), last, s.best)
        # The new point is an upper end, or a lower one from which the loss rises, or falls further.
        upper = ~enough | ((at.value >= s.low.value) & (s.zooming | (s.tried > 0)))
        # Towards the upper end; while none is known, ahead.
        rising = jnp.where(s.zooming, at.slope * (s.high.step - s.low.step) >= 0, at.slope >= 0)
        turns = ~upper & rising
        low = vectors.where(upper, s.low, at)
        high = vectors.where(upper, at, vectors.where(turns, s.low, s.high))
        other = vectors.where(s.zooming, vectors.where(upper | turns, s.high, s.low), low)
        zooming = s.zooming | upper | turns
        narrow = zooming & (jnp.abs(high.step - low.step) <= number(precision)) & (best.step > 0)
        stuck = jnp.bool_(False) if max_step is None else ~zooming & (step >= number(max_step))
        return Search(s.tried + 1, zooming, found | narrow | stuck, low, high, other, best, last)

    none = WolfePoint(start.step, start.value, grad, jnp.int32(0), number(jnp.inf), number(jnp.inf))
    first = Search(jnp.int32(0), jnp.bool_(False), jnp.bool_(False), start, start, start, none, none)
    end = jax.lax.while_loop(lambda s: ~s.done & (s.tried < max_steps), body, first)
    found = (end.last.decrease_error <= 0) & (end.last.curvature_error <= 0)
    chosen = vectors.where(found, end.last, end.best)
    missed = jnp.where(chosen.step > 0, chosen.decrease_error, end.last.decrease_error)
    return chosen._replace(evaluations=end.tried, decrease_error=missed)


def _inside(low: Point, high: Point, other: Point) -> Any:
    """The next trial in a bracket: the minimum of the cubic through three points, of the parabola, or the middle."""
    width = high.step - low.step
    of_cubic = _cubic_minimum(low, high, other)
    of_parabola = _parabola_minimum(low, high)

    def inside(x: Any, margin: float) -> Any:  # False for NaN
        share = (x - low.step) / width
        return (share > margin) & (share < 1 - margin)

    step = jnp.where(inside(of_parabola, 0.1), of_parabola, low.step + width / 2)
    return jnp.where(inside(of_cubic, 0.2), of_cubic, step)


def _parabola_minimum(a: Point, b: Point) -> Any:
    """Of the parabola with a's value and slope, and b's value."""
    width = b.step - a.step
    bend = (b.value - a.value - a.slope * width) / width**2
    return a.step - a.slope / (2 * bend)


def _cubic_minimum(a: Point, b: Point, c: Point) -> Any:
    """Of the cubic with a's value and slope, and the values of b and c. NaN where it has no minimum."""
    to_b, to_c = b.step - a.step, c.step - a.step
    bend_b = (b.value - a.value - a.slope * to_b) / to_b**2
    bend_c = (c.value - a.value - a.slope * to_c) / to_c**2
    cube = (bend_b - bend_c) / (to_b - to_c)
    square = bend_b - cube * to_b
    return a.step + (-square + jnp.sqrt(square**2 - 3 * cube * a.slope)) / (3 * cube)
