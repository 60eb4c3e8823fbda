"""A gradient check that explains: which leaf and element is wrong, in which mode and order, and why it may be so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.causes import Finding, explain
from dlkit.autodiff.numerical import check_real
from dlkit.autodiff.probing import Mode, Problem, probe, slopes, total
from dlkit.autodiff.table import Table, table

__all__ = ["GradientReport", "check_grads"]


@dataclass(frozen=True)
class GradientReport:
    """What `check_grads` found: an error for each leaf, and a `Finding` for each leaf that is wrong."""

    errors: Table
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        return "\n".join([str(self.errors), *(str(f) for f in self.findings)])


def check_grads(
    fn: Callable[..., Any],
    *args: Any,
    order: int = 1,
    modes: Sequence[Mode] | None = None,
    every: bool = False,
    directions: int = 3,
    rtol: float | None = None,
    most: int = 200,
    seed: int = 0,
    raises: bool = True,
) -> GradientReport:
    """Compare the derivatives that JAX gives for `fn` at `args` with finite differences, and say what is wrong.

    Args:
      fn: any function; trees of arrays in and out. Arrays that are not floating point are held fixed. An output that is
        not one number is weighted with random numbers.
      args: where.
      order: 1 checks the gradient, 2 the gradient and then its own derivatives.
      modes: "forward", "reverse" or both, which is the default; forward mode is left out for functions with a
        `custom_vjp`, which have none.
      every: compare every element of every leaf at once. Otherwise each leaf is compared along random directions, and
        element by element only where that fails.
      directions: how many random directions a leaf.
      rtol: the relative tolerance, by default 1e-3 in float32 and 1e-6 in float64. Added to it are the rounding error
        of the differences and their truncation error, both estimated.
      most: elements of a leaf that are compared one by one; of larger leaves, that many evenly spaced ones.
      seed: of the directions and weights.
      raises: raise where something is wrong. Else the report says so, in `ok` and `findings`.

    The differences are central, at steps h and h/2 and extrapolated (Richardson), with h = eps^(1/4) max(1, |x|):
    0.02 in float32, 1e-4 in float64. Where something is wrong, the element-wise derivatives at the point and at two
    others near it are compared with what common mistakes would give: a sign, a factor, a missing term or factor, a
    transposed or reordered array, two leaves exchanged, a lost or infinite gradient, a kink.

    `jax.test_util.check_grads` compares one random direction and says that it differs.

    >>> print(check_grads(lambda x: jnp.sum(jnp.sin(x)), jnp.arange(3.0)).ok)
    True

    Raises:
      AssertionError: the derivatives differ.
      TypeError: no argument is floating point; or forward mode is asked for of a function without one.
      ValueError: another order, an unknown mode.
    """
    if order not in (1, 2):
        raise ValueError(f"order is {order}, wanted 1 or 2")
    for mode in modes or ():
        if mode not in ("forward", "reverse"):
            raise ValueError(f'mode is {mode!r}, wanted "forward" or "reverse"')
    problem = _problem(fn, args, modes, seed)
    rows, findings = [], []
    for k in range(1, order + 1):
        if k == 2:
            problem = _gradient_of(problem, seed)
        table_rows, wrong = _compare(problem, every, directions, rtol, most, seed)
        rows += table_rows
        findings += wrong
        if wrong:
            break  # the second derivatives of a wrong gradient say nothing
    columns = ("order", "mode", "leaf", "error", "tolerance", "")
    report = GradientReport(table("derivatives against finite differences", columns, rows), tuple(findings))
    if raises and not report.ok:
        raise AssertionError(f"the derivatives are wrong\n{report}")
    return report


def _problem(fn: Callable[..., Any], args: tuple[Any, ...], modes: Sequence[Mode] | None, seed: int) -> Problem:
    flat, structure = jax.tree.flatten(args)
    flat = [jnp.asarray(a) for a in flat]
    moving = [k for k, a in enumerate(flat) if jnp.issubdtype(a.dtype, jnp.floating)]
    if not moving:
        check_real(args, "check_grads")
    names = [f"argument {i}" + (f" {path}" if path else "") for i, a in enumerate(args) for path in tree.flatten(a)]

    def of(part: Sequence[Any]) -> Any:
        at = list(flat)
        for k, x in zip(moving, part, strict=True):
            at[k] = x
        return fn(*jax.tree.unflatten(structure, at))

    leaves = tuple(flat[k] for k in moving)
    available = _modes(of, leaves)
    if "forward" in (modes or ()) and "forward" not in available:
        raise TypeError(
            'check_grads: the function has a custom_vjp, so it has no forward mode: take modes=("reverse",)'
        )
    chosen = tuple(modes) if modes is not None else available
    run = _weighted(of, jax.eval_shape(of, leaves), seed)
    return Problem(run, leaves, tuple(names[k] for k in moving), chosen, 1)


def _modes(of: Callable[..., Any], leaves: tuple[Any, ...]) -> tuple[Mode, ...]:
    """Both, unless forward mode would meet a `custom_vjp`, which has a rule for reverse mode alone."""
    program = jax.make_jaxpr(lambda x: jax.jvp(of, (x,), (x,))[1])(leaves)
    return ("reverse",) if _holds(program.jaxpr, ("custom_lin",)) else ("forward", "reverse")


def _holds(jaxpr: Any, names: Sequence[str]) -> bool:
    for eqn in jaxpr.eqns:
        inner = [
            getattr(p, "jaxpr", p) for v in eqn.params.values() for p in (v if isinstance(v, list | tuple) else (v,))
        ]
        if eqn.primitive.name in names or any(_holds(j, names) for j in inner if hasattr(j, "eqns")):
            return True
    return False


def _weighted(of: Callable[..., Any], shapes: Any, seed: int) -> Callable[[Sequence[Any]], Any]:
    """The outputs, each times a fixed weight: 1 for a single number, else random ones between 1/2 and 3/2."""
    outs = [s for s in jax.tree.leaves(shapes) if jnp.issubdtype(s.dtype, jnp.floating)]
    if not outs:
        raise TypeError("check_grads: the function gives no floating-point numbers, so it has no derivatives")
    rng = np.random.default_rng(seed)
    single = len(outs) == 1 and outs[0].shape == ()
    weights = [np.ones(()) if single else rng.uniform(0.5, 1.5, s.shape) * rng.choice([-1, 1], s.shape) for s in outs]

    def run(part: Sequence[Any]) -> Any:
        given = [y for y in jax.tree.leaves(of(part)) if jnp.issubdtype(y.dtype, jnp.floating)]
        return [y * jnp.asarray(w, y.dtype) for y, w in zip(given, weights, strict=True)]

    return run


def _gradient_of(problem: Problem, seed: int) -> Problem:
    def gradient(part: Sequence[Any]) -> Any:
        return jax.grad(lambda x: total(problem.run(x)))(list(part))

    modes = _modes(gradient, problem.leaves) if "forward" in problem.modes else problem.modes
    run = _weighted(gradient, jax.eval_shape(gradient, problem.leaves), seed + 1)
    return Problem(run, problem.leaves, problem.paths, modes, 2)


def _compare(
    problem: Problem, every: bool, directions: int, rtol: float | None, most: int, seed: int
) -> tuple[list[tuple[str, ...]], list[Finding]]:
    count = len(problem.leaves)
    relative = [rtol if rtol is not None else _rtol(a.dtype) for a in problem.leaves]
    rows, suspects = [], set(range(count)) if every else set()
    pairs = [(k, d) for k in range(count) for d in range(directions)]
    along = jax.jit(lambda at: slopes(problem, at, pairs, seed))(list(problem.leaves))
    along = jax.tree.map(np.asarray, along)
    for mode in problem.modes:
        for k in range(count):
            mine = [n for n, (leaf, _) in enumerate(pairs) if leaf == k]
            error, allowed = _worst(along[mode][mine], {x: v[mine] for x, v in along.items()}, relative[k])
            bad = not error <= allowed
            if bad:
                suspects.add(k)
            rows.append(
                (str(problem.order), mode, problem.paths[k], f"{error:.1e}", f"{allowed:.1e}", "WRONG" if bad else "")
            )
    if not suspects:
        return rows, []
    if sum(a.size for a in problem.leaves) <= 2 * most:
        wanted = list(range(count))  # all of them, since two leaves may be exchanged
    else:
        wanted = sorted(suspects)
    probes = {k: probe(problem, k, relative[k], most, seed) for k in wanted}
    findings = [
        found
        for k in sorted(suspects)
        for mode in problem.modes
        if (found := explain(problem.order, mode, k, problem.paths, probes)) is not None
    ]
    if not findings and any(row[-1] for row in rows):
        findings = [
            Finding(
                problem.order,
                row[1],
                row[2],
                (),
                float("nan"),
                float("nan"),
                "not found",
                "the derivative along random directions is wrong, but no element that was looked at is: raise most=",
            )
            for row in rows
            if row[-1]
        ]
    if every and findings:
        bad = {(f.mode, f.leaf) for f in findings}
        rows = [(*row[:-1], "WRONG" if (row[1], row[2]) in bad else row[-1]) for row in rows]
    return rows, findings


def _rtol(dtype: Any) -> float:
    return {8: 1e-6, 4: 1e-3}.get(jnp.dtype(dtype).itemsize, 5e-2)


def _worst(found: Any, numbers: dict[str, Any], rtol: float) -> tuple[float, float]:
    errors = np.abs(found - numbers["slope"])
    allowed = numbers["noise"] + rtol * np.maximum(np.abs(found), np.abs(numbers["slope"])) + numbers["truncation"]
    at = int(np.argmax(np.where(np.isfinite(errors), errors / np.maximum(allowed.astype(np.float64), 1e-300), np.inf)))
    return float(errors[at]), float(allowed[at]) if np.isfinite(allowed[at]) else 0.0
