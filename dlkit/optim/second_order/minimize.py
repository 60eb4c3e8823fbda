"""A whole optimization as one compiled loop."""

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dlkit.optim.second_order import vectors
from dlkit.optim.second_order.arguments import scalar
from dlkit.optim.second_order.backtracking import ScaleByBacktrackingLinesearchState
from dlkit.optim.second_order.lbfgs import lbfgs
from dlkit.optim.second_order.levenberg import half_square, levenberg_marquardt
from dlkit.optim.second_order.stored import stored_points
from dlkit.optim.transform import apply_updates, call_update, check_link

__all__ = ["MinimizeResult", "Stop", "least_squares", "minimize"]


class Stop(enum.IntEnum):
    """Why `minimize` stopped."""

    CONVERGED = 0  # the gradient is no longer than `tol`
    MAX_STEPS = 1
    FAILED = 2  # no step lowers the loss: the line search, or the trust region, found none, from a fresh state either
    NOT_FINITE = 3  # the loss or its gradient is infinite or NaN; the parameters are the last for which they were not


class MinimizeResult(NamedTuple):
    """What is known at the end."""

    value: Float[Array, ""]
    grad_norm: Float[Array, ""]
    steps: Int[Array, ""]  # updates of the parameters
    evaluations: Int[Array, ""]  # of the loss, with or without its gradient; products with Hessians are not counted
    reason: Int[Array, ""]  # a `Stop`
    failures: Int[Array, ""]  # line searches (or trials) that found no step
    state: Any  # of the method

    @property
    def converged(self) -> Bool[Array, "..."]:
        return self.reason == Stop.CONVERGED


class Run(NamedTuple):
    params: Any
    value: Any
    grad: Any
    state: Any
    steps: Any
    evaluations: Any
    failures: Any
    stuck: Any  # whether the last step failed
    reason: Any


def minimize(
    fun: Callable[..., Any],
    params: Any,
    method: Any = lbfgs(),
    max_steps: int = 1000,
    tol: Any = 1e-5,
    *,
    args: tuple[Any, ...] = (),
    **functions: Any,
) -> tuple[Any, MinimizeResult]:
    """Runs `method` on `fun` until the gradient is no longer than `tol`, in one `lax.while_loop` under one `jit`.

    Evaluations that a line search or a trust region made at the new parameters are used again. Where a search fails,
    its step is not taken if it would raise the loss, and the method begins anew from a fresh state (for L-BFGS: at
    steepest descent); a second failure in a row ends the run. So the loss at the end is never above that at the start,
    for methods that search.

    Args:
      fun: the loss: fun(params, *args), a scalar.
      params: where to begin.
      method: any transform: `lbfgs()`, `nonlinear_cg()`, `newton_cg()`, `trust_region()`, `damped_newton()`,
        `levenberg_marquardt()` with `residual_fn=`, `adam(1e-2)`, or one of optax's.
      max_steps: updates at most.
      tol: ends where the length of the gradient (all leaves as one vector) is at most this.
      args: data for `fun`. Arrays that `fun` closes over become constants of the compiled program: large ones belong
        here. The program is kept for another call with the same `fun` and `method`.
      functions: what else the method's `update` needs: `residual_fn=`, `output_fn=`, each called with (params, *args).

    Returns:
      The parameters, and a `MinimizeResult`: loss, norm of the gradient, steps, evaluations, `reason` (a `Stop`),
      failures of line searches, and the state. It runs under `jit` and `vmap` too: a batch of starts is one program.

    >>> loss = lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
    >>> params, result = minimize(loss, jnp.array([-1.2, 1.0]))
    >>> params.round(3), int(result.steps) < 45, Stop(int(result.reason)).name
    (Array([1., 1.], dtype=float32), True, 'CONVERGED')

    Raises:
      TypeError: `method` is no transform.
      ValueError: `fun` gives no scalar, or the method needs a function that it was not given.
    """
    check_link("minimize", method)
    named = tuple(sorted(functions.items()))
    try:
        hash((fun, method, named))
    except TypeError:  # a method whose numbers are being traced: there is a program around this already
        return _run(fun, method, named, params, args, max_steps, tol)
    return _compiled(fun, method, named, params, args, max_steps, tol)


def least_squares(
    residual_fn: Callable[..., Any],
    params: Any,
    method: Any = levenberg_marquardt(),
    max_steps: int = 1000,
    tol: Any = 1e-5,
    *,
    args: tuple[Any, ...] = (),
) -> tuple[Any, MinimizeResult]:
    """`minimize` for |r|^2 / 2, where r = residual_fn(params, *args) is an array or a tree of arrays.

    >>> x = jnp.array([0.0, 1.0, 2.0])
    >>> params, result = least_squares(lambda p: jnp.exp(p * x) - jnp.array([1.0, 2.0, 4.0]), jnp.array([0.1]))
    >>> params.round(4)
    Array([0.6931], dtype=float32)
    """
    return minimize(HalfSquare(residual_fn), params, method, max_steps, tol, args=args, residual_fn=residual_fn)


class HalfSquare(NamedTuple):
    """|r|^2 / 2 as a function that equals another of the same residuals, so that the program is found again."""

    residual_fn: Any

    def __call__(self, params: Any, *args: Any) -> Any:
        return half_square(self.residual_fn(params, *args), vectors.scalar_dtype(params))


def _run(fun: Any, method: Any, named: Any, params: Any, args: Any, max_steps: Any, tol: Any) -> Any:
    dtype = vectors.scalar_dtype(params)

    def loss(p: Any) -> Any:
        return scalar("minimize", fun(p, *args), dtype)

    value_and_grad = jax.value_and_grad(loss)
    functions = {name: functools.partial(_with, fn, args) for name, fn in named}

    def body(run: Run) -> Run:
        extra = {"value": run.value, "grad": run.grad, "value_fn": loss, **functions}
        uphill = jax.tree.map(jnp.conj, run.grad)  # where parameters are complex, JAX's gradient is the conjugate
        updates, state = call_update(method, uphill, run.state, run.params, extra)
        params = apply_updates(run.params, updates)
        spent, failed = _report(state)
        stored = [node for node in stored_points(state).values() if node.grad is not None]
        if len(stored) == 1:
            value, grad = stored[0].value.astype(dtype), vectors.cast_like(stored[0].grad, run.grad)
        else:
            value, grad = value_and_grad(params)
            spent = spent + 1
        healthy = vectors.finite(value, grad)
        keep = ~healthy | (failed & ~(value <= run.value))
        params, value, grad = vectors.where(keep, (run.params, run.value, run.grad), (params, value, grad))
        state = vectors.where(failed, method.init(params), state)
        steps = run.steps + 1
        reason = jnp.where(steps >= max_steps, Stop.MAX_STEPS, -1)
        reason = jnp.where(failed & run.stuck, Stop.FAILED, reason)
        reason = jnp.where(healthy, reason, Stop.NOT_FINITE)
        reason = jnp.where(vectors.norm(grad) <= tol, Stop.CONVERGED, reason).astype(jnp.int32)
        failures = run.failures + failed.astype(jnp.int32)
        return Run(params, value, grad, state, steps, run.evaluations + spent, failures, failed, reason)

    params = vectors.cast_like(params, params)  # strongly typed
    value, grad = value_and_grad(params)
    reason = jnp.where(max_steps <= 0, Stop.MAX_STEPS, -1)
    reason = jnp.where(vectors.finite(value, grad), reason, Stop.NOT_FINITE)
    reason = jnp.where(vectors.norm(grad) <= tol, Stop.CONVERGED, reason).astype(jnp.int32)
    zero, one = jnp.int32(0), jnp.int32(1)
    start = Run(params, value, grad, method.init(params), zero, one, zero, jnp.bool_(False), reason)
    end = jax.lax.while_loop(lambda run: run.reason < 0, body, start)
    result = MinimizeResult(
        end.value, vectors.norm(end.grad), end.steps, end.evaluations, end.reason, end.failures, end.state
    )
    return end.params, result


_compiled = functools.partial(jax.jit, static_argnums=(0, 1, 2))(_run)


def _with(fn: Any, args: tuple[Any, ...], params: Any) -> Any:
    return fn(params, *args)


def _report(state: Any) -> tuple[Any, Any]:
    """How many evaluations the last update took, and whether its search failed: from the `info` in the states."""

    def informs(node: Any) -> bool:
        return hasattr(getattr(node, "info", None), "_fields")

    spent, failed = jnp.int32(0), jnp.bool_(False)
    for node in jax.tree.leaves(state, is_leaf=informs):
        if not informs(node):
            continue
        info = node.info
        tried = getattr(info, "evaluations", getattr(info, "num_linesearch_steps", 0))
        spent = spent + jnp.asarray(tried, jnp.int32)
        if isinstance(node, ScaleByBacktrackingLinesearchState) and node.grad is not None:
            spent = spent + 1  # the gradient at the new parameters
        failed = failed | (info.failed if hasattr(info, "failed") else info.decrease_error > 0)
    return spent, failed
