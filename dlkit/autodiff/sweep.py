"""The error of finite differences against the step: a V, truncation on its right side, rounding on its left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.autodiff.numerical import SCHEMES, Scheme, check_scheme, jacobian_by_steps, optimal_step, relative_errors
from dlkit.autodiff.table import Table, table

__all__ = ["StepSweep", "step_sweep"]

# Okabe and Ito's colours, one a scheme wherever schemes are drawn.
COLOURS = {"forward": "#d55e00", "central": "#0072b2", "five_point": "#009e73", "complex_step": "#cc79a7"}


@dataclass(frozen=True)
class StepSweep:
    """Errors relative to the largest derivative, by scheme, at each of `steps`; `predicted` are the optimal steps."""

    steps: tuple[float, ...]
    errors: Mapping[str, tuple[float, ...]]
    predicted: Mapping[str, float]

    def best(self, scheme: str) -> float:
        """The step around which the errors, the largest of each five neighbours, are smallest: luck does not count."""
        errors = np.nan_to_num(np.asarray(self.errors[scheme]), nan=np.inf, posinf=np.inf)
        padded = np.concatenate([[np.inf, np.inf], errors, [np.inf, np.inf]])
        around = np.max([padded[i : i + len(errors)] for i in range(5)], axis=0)
        return self.steps[int(np.argmin(around if np.isfinite(around).any() else errors))]

    def order(self, scheme: str) -> float:
        """The slope of log error against log step, from five times the predicted optimum to 0.05: the scheme's order.

        Raises:
          ValueError: fewer than two steps lie there.
        """
        steps, errors = np.asarray(self.steps), np.asarray(self.errors[scheme])
        right = (steps > max(5 * self.predicted[scheme], 1e-15)) & (steps < 0.05) & (errors > 1e-15)
        if right.sum() < 2:
            raise ValueError(f"fewer than two steps lie between the best one of {scheme!r} and 0.05: give more steps")
        return float(np.polyfit(np.log(steps[right]), np.log(errors[right]), 1)[0])

    def table(self) -> Table:
        """A row a step."""
        rows = [(f"{h:.1e}", *(f"{self.errors[s][i]:.1e}" for s in self.errors)) for i, h in enumerate(self.steps)]
        return table("relative error of finite differences", ("step", *self.errors), rows)

    def plot(self, axes: Any = None, path: str | Path | None = None) -> Any:
        """Draw the errors on logarithmic axes: into `axes`, or into a new figure, which is written to `path` if given.

        The dotted lines are the predicted optimal steps. Returns the figure.

        Raises:
          ImportError: matplotlib is missing.
        """
        if axes is None:
            try:
                from matplotlib.backends.backend_agg import FigureCanvasAgg
                from matplotlib.figure import Figure
            except ImportError as error:
                raise ImportError('plots need matplotlib: pip install -e ".[train]"') from error
            figure = Figure(figsize=(7, 4.2), dpi=140, layout="constrained", facecolor="white")
            FigureCanvasAgg(figure)
            axes = figure.add_subplot()
        tiny = 1e-17
        for scheme, errors in self.errors.items():
            colour = COLOURS[scheme]
            axes.loglog(
                self.steps, np.maximum(errors, tiny), color=colour, label=scheme.replace("_", " "), linewidth=1.8
            )
            if scheme != "complex_step":
                axes.axvline(self.predicted[scheme], color=colour, linestyle=":", linewidth=1)
        axes.set_xlabel("step h")
        axes.set_ylabel("relative error of the derivative")
        axes.grid(True, color="#e3e3e3", linewidth=0.8)
        axes.legend(frameon=False)
        if path is not None:
            axes.figure.savefig(path)
        return axes.figure

    def __str__(self) -> str:
        return str(self.table())


def step_sweep(
    fn: Callable[[Any], Any],
    x: Any,
    *,
    steps: Sequence[float] | None = None,
    schemes: Sequence[Scheme] = SCHEMES,
    exact: Any = None,
) -> StepSweep:
    """The error of `finite_difference` over steps of all sizes.

    Args:
      fn: a real scalar function of one tree.
      x: where.
      steps: by default four a decade, from 1 down to a tenth of the machine's epsilon.
      schemes: which ones.
      exact: the exact derivative, a tree like `x`; reverse mode's in float64 by default.

    >>> import jax
    >>> with jax.enable_x64(True):
    ...     sweep = step_sweep(jnp.exp, jnp.float64(0.5), schemes=("forward", "central"))
    >>> round(sweep.order("forward"), 1), round(sweep.order("central"), 1)
    (1.0, 2.0)

    Raises:
      ValueError: an unknown scheme, or the function is not scalar.
    """
    x = jax.tree.map(jnp.asarray, x)
    dtype = jnp.result_type(*jax.tree.leaves(x))
    if steps is None:
        low = np.log10(float(jnp.finfo(dtype).eps)) - 1
        steps = tuple(float(h) for h in 10.0 ** np.arange(0.0, low, -0.25))
    if exact is None:
        exact = exact_gradient(fn, x)
    grids = {scheme: _over_steps(fn, x, jnp.asarray(steps, dtype), scheme) for scheme in schemes}
    errors = {
        scheme: tuple(relative_errors(jax.tree.map(lambda g, i=i: g[i], grid), exact) for i in range(len(steps)))
        for scheme, grid in grids.items()
    }
    return StepSweep(tuple(steps), errors, {s: optimal_step(fn, x, scheme=s) for s in schemes})


def _over_steps(fn: Callable[[Any], Any], x: Any, steps: Any, scheme: Scheme) -> Any:
    check_scheme(scheme)
    return jax.jit(lambda at: jax.lax.map(lambda h: jacobian_by_steps(fn, at, h, scheme), steps))(x)


def exact_gradient(fn: Callable[[Any], Any], x: Any) -> Any:
    """The gradient by reverse mode in float64, where the function can be computed in it."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), x)
        return jax.tree.map(np.asarray, jax.grad(fn)(wide))
