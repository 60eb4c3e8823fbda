"""The numerical gradient as it is taught: one weight at a time, W beside W + h, the two losses, and dW."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.numerical import check_real
from dlkit.autodiff.table import Table, table

__all__ = ["gradient_table"]


def gradient_table(
    fn: Callable[[Any], Any], w: Any, *, h: float = 1e-4, exact: bool = True, most: int = 20, digits: int = 6
) -> Table:
    """Forward differences of a scalar function, a row for each weight.

    Args:
      fn: a scalar function of one tree.
      w: the weights.
      h: the step.
      exact: a last column with the gradient by reverse mode.
      most: how many weights are shown; the rest is counted below the table.
      digits: of each number.

    A forward difference in float32 cannot be better than eps |f| / h: 1e-3 |f| at the default step. Run it in float64,
    or raise `h`, where that matters; `optimal_step` says how far.

    >>> import jax
    >>> with jax.enable_x64(True):
    ...     print(gradient_table(lambda w: jnp.sum(w**2), jnp.array([1.0, -2.0], "float64")))
    f(W) = 5, h = 0.0001
    weight  W   W + h    f(W + h)  dW       reverse mode
    ----------------------------------------------------
    [0]     1   1.0001   5.0002    2.0001   2
    [1]     -2  -1.9999  4.9996    -3.9999  -4

    Raises:
      TypeError: the weights are not real.
      ValueError: the function is not scalar, or the step is not positive.
    """
    check_real(w, "gradient_table")
    if not h > 0:
        raise ValueError(f"the step is {h}, wanted a positive number")
    w = jax.tree.map(jnp.asarray, w)
    value = jax.jit(fn)(w)
    if jnp.shape(value) != ():
        raise ValueError(f"gradient_table wants a scalar function, this one gives shape {list(jnp.shape(value))}")
    leaves, structure = jax.tree.flatten(w)
    places = [(k, i) for k, leaf in enumerate(leaves) for i in range(leaf.size)]
    shown = places[:most]

    def moved(k: Any, i: Any) -> Any:
        parts = []
        for n, leaf in enumerate(leaves):
            hit = (jnp.arange(leaf.size) == i) & (k == n)
            parts.append(jnp.where(hit.reshape(leaf.shape), leaf + jnp.asarray(h, leaf.dtype), leaf))
        return fn(jax.tree.unflatten(structure, parts))

    indices = jnp.asarray(np.array(shown).reshape(-1, 2))
    after = jax.jit(lambda at: jax.lax.map(lambda ki: moved(ki[0], ki[1]), at))(indices)
    gradient = [np.ravel(g) for g in jax.tree.leaves(jax.jit(jax.grad(fn))(w))] if exact else []
    paths, rows = list(tree.flatten(w)), []
    for row, (k, i) in enumerate(shown):
        where = ",".join(str(int(n)) for n in np.unravel_index(i, leaves[k].shape))
        at = float(np.ravel(np.asarray(leaves[k], np.float64))[i])
        slope = (float(after[row]) - float(value)) / h
        cells = [f"{paths[k]}[{where}]" if where else paths[k] or "w"]
        cells += [f"{x:.{digits}g}" for x in (at, at + h, float(after[row]), slope)]
        rows.append(cells + ([f"{float(gradient[k][i]):.{digits}g}"] if exact else []))
    columns = ("weight", "W", "W + h", "f(W + h)", "dW", *(["reverse mode"] if exact else []))
    note = f"and {len(places) - most:,} more weights" if len(places) > most else ""
    return table(f"f(W) = {float(value):.{digits}g}, h = {h:g}", columns, rows, note)
