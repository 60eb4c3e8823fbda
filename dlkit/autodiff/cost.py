"""What forward and reverse mode cost, measured: time and memory beside those of the function itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.measure import Cost, measure
from dlkit.autodiff.numerical import check_real
from dlkit.autodiff.table import Table, nbytes, seconds, table

__all__ = ["ModeCosts", "cost_curve", "mode_costs"]

# Rows of a `ModeCosts`, in order.
ROWS = ("function", "one forward pass", "one backward pass", "Jacobian, forward mode", "Jacobian, reverse mode")


@dataclass(frozen=True)
class ModeCosts:
    """What each mode costs for one function; `print` it. `costs` is by the names of the rows."""

    inputs: int
    outputs: int
    costs: dict[str, Cost]

    @property
    def cheaper(self) -> str:
        """The mode that gave the Jacobian in less time."""
        forward, reverse = (self.costs[row].seconds for row in ROWS[3:])
        return "forward" if forward <= reverse else "reverse"

    def ratio(self, row: str) -> float:
        """The time of a row over that of the function."""
        return self.costs[row].seconds / self.costs["function"].seconds

    def table(self) -> Table:
        """A row for the function, one pass of either mode, and the whole Jacobian by either."""
        rows = [
            (name, seconds(c.seconds), f"{self.ratio(name):.1f}", "" if c.nbytes is None else nbytes(c.nbytes))
            for name, c in self.costs.items()
        ]
        title = f"{self.inputs} inputs, {self.outputs} outputs"
        return table(title, ("what", "time", "times the function", "memory"), rows)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def mode_costs(fn: Callable[[Any], Any], x: Any, *, repeats: int = 10, jacobians: bool = True) -> ModeCosts:
    """Measure the function, one pass of either mode, and its Jacobian by either.

    Args:
      fn: a function of one tree of real arrays.
      x: where.
      repeats: timed runs, of which the median is taken.
      jacobians: measure the whole Jacobians too; False for a function of very many inputs.

    One forward pass costs at most about 3 evaluations, and one backward pass at most about 5 (Griewank and Walther,
    "Evaluating derivatives", 2008, chapters 3 and 4); memory is where they part, as the backward pass keeps what the
    forward one computed. Times are of compiled programs, which may merge what they share.

    >>> costs = mode_costs(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(8), repeats=1)
    >>> costs.inputs, costs.outputs
    (8, 1)

    Raises:
      TypeError: `x` is not real.
    """
    check_real(x, "mode_costs")
    x = jax.tree.map(jnp.asarray, x)
    out = jax.eval_shape(fn, x)
    ones = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), out)
    along = jax.tree.map(jnp.ones_like, x)
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        ROWS[0]: (fn, (x,)),
        ROWS[1]: (lambda at, v: jax.jvp(fn, (at,), (v,))[1], (x, along)),
        ROWS[2]: (lambda at, c: jax.vjp(fn, at)[1](c)[0], (x, ones)),
    }
    if jacobians:
        programs |= {ROWS[3]: (jax.jacfwd(fn), (x,)), ROWS[4]: (jax.jacrev(fn), (x,))}
    costs = {name: measure(program, *given, repeats=repeats) for name, (program, given) in programs.items()}
    return ModeCosts(tree.count(x), tree.count(out), costs)


def cost_curve(
    sizes: Sequence[tuple[int, int]],
    make: Callable[[int, int], Callable[[Any], Any]] | None = None,
    *,
    repeats: int = 10,
    seed: int = 0,
) -> tuple[ModeCosts, ...]:
    """`mode_costs` of Jacobians as inputs and outputs grow.

    Args:
      sizes: pairs (inputs, outputs).
      make: gives the function of `n` inputs and `m` outputs; by default tanh(B tanh(A x)) with a hidden width of 64.
      repeats: timed runs each.
      seed: of the point, which is normal, and of the default's matrices.

    >>> [c.inputs for c in cost_curve([(2, 3), (3, 2)], repeats=1)]
    [2, 3]

    Raises:
      ValueError: a function does not have as many outputs as it was made for.
    """
    found = []
    for n, m in sizes:
        rng = np.random.default_rng(seed)
        fn = make(n, m) if make is not None else _two_layers(rng, n, m)
        costs = mode_costs(fn, jnp.asarray(rng.normal(size=n), jnp.zeros(()).dtype), repeats=repeats)
        if costs.outputs != m:
            raise ValueError(f"make({n}, {m}) gave a function with {costs.outputs} outputs")
        found.append(costs)
    return tuple(found)


def _two_layers(rng: Any, n: int, m: int, hidden: int = 64) -> Callable[[Any], Any]:
    dtype = jnp.zeros(()).dtype
    a = jnp.asarray(rng.normal(size=(hidden, n)) / n**0.5, dtype)
    b = jnp.asarray(rng.normal(size=(m, hidden)) / hidden**0.5, dtype)
    return lambda x: jnp.tanh(b @ jnp.tanh(a @ x))
