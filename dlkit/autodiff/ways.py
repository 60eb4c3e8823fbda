"""Five ways to differentiate one function, side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.measure import Cost, measure
from dlkit.autodiff.numerical import SCHEMES, check_real, evaluations, finite_difference, relative_errors
from dlkit.autodiff.sweep import exact_gradient
from dlkit.autodiff.table import Table, brief, nbytes, seconds, table

__all__ = ["FiveWays", "five_ways"]

READABLE = 60  # numbers: above it, a formula is not worth its making


@dataclass(frozen=True)
class FiveWays:
    """A table of ways to differentiate; `print` it.

    `gradients` and `errors` hold what was found, and the error relative to the largest element of the exact gradient,
    by the name of the way; a way that could not be gone is in `missing`, with the reason.
    """

    table: Table
    gradients: Mapping[str, Any]
    errors: Mapping[str, float]
    missing: Mapping[str, str]

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def five_ways(
    fn: Callable[..., Any],
    *args: Any,
    formula: Callable[..., Any] | None = None,
    exact: Any = None,
    repeats: int = 5,
) -> FiveWays:
    """The gradient of a scalar function by its first argument: manual, symbolic, numerical, forward and reverse mode.

    Args:
      fn: a scalar function of `args`.
      args: its arguments. The first, a tree of real arrays, is differentiated by; the others are held fixed.
      formula: your own gradient, a function of the same arguments: the manual way.
      exact: the exact gradient, a tree like the first argument. By default that of reverse mode in float64; in float64
        that of SymPy with 40 digits, where it has a formula for at most ten numbers.
      repeats: timed runs, of which the median is shown.

    Numerical differentiation is shown with each of its four schemes, at their default steps. Times are those of
    compiled programs without compilation; memory is what they hold beside their arguments. The symbolic way is gone
    for at most 60 numbers, with SymPy installed.

    >>> found = five_ways(lambda x: x * jnp.sin(5 * x), 0.3, formula=lambda x: jnp.sin(5 * x) + 5 * x * jnp.cos(5 * x))
    >>> found.table.column("way")[:3]
    ('manual', 'symbolic', 'forward difference')
    >>> max(found.errors[way] for way in ("manual", "symbolic", "forward mode", "reverse mode")) < 1e-5
    True

    Raises:
      TypeError: the first argument is not real.
      ValueError: the function is not scalar.
    """
    check_real(args[:1], "five_ways")
    x = jax.tree.map(jnp.asarray, args[0])
    count = tree.count(x)

    def of(at: Any) -> Any:
        return fn(at, *args[1:])

    if (shape := getattr(jax.eval_shape(of, x), "shape", None)) != ():
        raise ValueError(f"five_ways wants a scalar function, this one gives shape {shape}: reduce it to one number")
    names = {
        s: s.replace("_", "-").replace("complex-step", "complex step").replace("five-point", "five-point")
        for s in SCHEMES
    }
    ways: dict[str, tuple[Callable[[Any], Any], str]] = {}
    missing: dict[str, str] = {}
    if formula is None:
        missing["manual"] = "no formula given"
    else:
        manual = formula
        ways["manual"] = (lambda at: manual(at, *args[1:]), "formula")
    found = _symbolic(of, x, count)
    if isinstance(found, str):
        missing["symbolic"] = found
    else:
        ways["symbolic"] = (found, "formula")
    for scheme in SCHEMES:
        name = names[scheme] if scheme == "complex_step" else f"{names[scheme]} difference"
        ways[name] = (
            lambda at, scheme=scheme: finite_difference(of, at, scheme=scheme),
            str(evaluations(count, scheme)),
        )
    ways["forward mode"] = (jax.jacfwd(of), f"{count} forward {'pass' if count == 1 else 'passes'}")
    ways["reverse mode"] = (jax.grad(of), "1 forward, 1 backward")
    costs: dict[str, tuple[Cost, str]] = {}
    for name, (way, effort) in ways.items():
        try:
            costs[name] = measure(way, x, repeats=repeats), effort
        except (TypeError, ValueError, NotImplementedError) as error:
            missing[name] = str(error).split("\n")[0]
    truth, source = _truth(of, x, exact, count)
    gradients = {name: cost.result for name, (cost, _) in costs.items()}
    errors = {name: relative_errors(g, truth) for name, g in gradients.items()}
    rows = []
    for name in ["manual", "symbolic", *(n for n in ways if n not in ("manual", "symbolic"))]:
        if name in costs:
            cost, effort = costs[name]
            held = "" if cost.nbytes is None else nbytes(cost.nbytes)
            rows.append((name, _shown(cost.result), f"{errors[name]:.1e}", effort, seconds(cost.seconds), held))
        else:
            rows.append((name, missing[name][:60], "", "", "", ""))
    columns = ("way", "gradient", "error", "evaluations", "time", "memory")
    note = f"errors are relative to the largest element of {source}"
    return FiveWays(table("five ways to differentiate", columns, rows, note), gradients, errors, missing)


def _symbolic(of: Callable[[Any], Any], x: Any, count: int) -> Callable[[Any], Any] | str:
    from dlkit.autodiff.symbolic import symbolic_grad

    if count > READABLE:
        return f"{count} numbers: formulas are made for at most {READABLE}"
    try:
        return symbolic_grad(of, x, simplify=count == 1)
    except ImportError as error:
        return str(error)
    except NotImplementedError as error:
        return str(error).split(" in ")[0]


def _truth(of: Callable[[Any], Any], x: Any, exact: Any, count: int) -> tuple[Any, str]:
    if exact is not None:
        return exact, "the exact gradient given"
    double = all(a.dtype == jnp.float64 for a in jax.tree.leaves(x))
    if double and count <= 10:
        digits = _many_digits(of, x)
        if digits is not None:
            return digits, "SymPy's gradient with 40 digits"
    return exact_gradient(of, x), "reverse mode's gradient in float64"


def _many_digits(of: Callable[[Any], Any], x: Any) -> Any:
    from dlkit.autodiff.symbolic import symbolic_grad

    try:
        found = symbolic_grad(of, x, simplify=False)
    except (ImportError, NotImplementedError):
        return None
    import sympy

    symbols = [s for leaf in jax.tree.leaves(found.symbols) for s in leaf.ravel()]
    values = [v for leaf in jax.tree.leaves(x) for v in np.ravel(np.asarray(leaf)).tolist()]
    at = {s: sympy.Float(v, 50) for s, v in zip(symbols, values, strict=True)}

    def number(e: Any) -> Any:
        out = np.empty(e.shape)
        for i in np.ndindex(e.shape):
            out[i] = float(e[i].subs(at).evalf(40))
        return out

    return jax.tree.map(number, found.expression)


def _shown(gradient: Any) -> str:
    leaves = jax.tree.leaves(gradient)
    if len(leaves) == 1:
        return brief(leaves[0], 8)
    norm = float(np.sqrt(sum(float(np.sum(np.asarray(a, np.float64) ** 2)) for a in leaves)))
    return f"{len(leaves)} arrays, norm {norm:.6g}"
