"""The chain rule as a sum over paths: dy/dx is the sum, over all paths from x to y, of the product of the edges."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from dlkit.autodiff.graph import Graph
from dlkit.autodiff.propagation import as_graph, local_jacobians
from dlkit.autodiff.table import brief, table

__all__ = ["Path", "PathSum", "sum_over_paths"]


@dataclass(frozen=True)
class Path:
    """One path: the variables it passes, the local derivative along each edge, and their product `[y, x]`."""

    variables: tuple[str, ...]
    factors: tuple[Any, ...]
    product: Any

    def __str__(self) -> str:
        return " -> ".join(self.variables)


@dataclass(frozen=True)
class PathSum:
    """The paths from `source` to `target`; `total` is the derivative, in the shape of target and source together."""

    source: str
    target: str
    paths: tuple[Path, ...]
    total: Any

    def __str__(self) -> str:
        rows = [(str(p), " · ".join(_factor(f) for f in p.factors), _factor(p.product)) for p in self.paths]
        rows.append(("sum", "", brief(self.total)))
        return str(table(f"d{self.target}/d{self.source}", ("path", "edges", "product"), rows))


def _factor(jacobian: Any) -> str:
    text = brief(jnp.reshape(jacobian, ()) if jnp.size(jacobian) == 1 else jacobian)
    return f"({text})" if text.startswith("-") else text


def sum_over_paths(
    fn: Any, *args: Any, source: str | None = None, target: str | None = None, most: int = 1000, **options: Any
) -> PathSum:
    """Every path from one variable to another, and the sum of their products, which is the derivative.

    Args:
      fn: a function of `args`, or a `Graph`.
      args: its arguments, unless a graph is given.
      source: the name of a variable, the first input unless told otherwise.
      target: the name of a variable, the first output unless told otherwise.
      most: how many paths are allowed: their number grows exponentially with depth, which is why reverse mode, which
        shares the common parts, is used in practice.
      options: those of `trace_graph`.

    Between arrays the edges are Jacobian matrices and the product is that of matrices. An operand that is used twice,
    as in x · x, gives two edges.

    >>> import jax.numpy as jnp
    >>> print(sum_over_paths(lambda x1, x2: jnp.sin(x1) + x1 * x2, 2.0, 3.0))
    dy/dx1
    path           edges            product
    -------------------------------------------
    x1 -> w1 -> y  (-0.416147) · 1  (-0.416147)
    x1 -> w2 -> y  3 · 1            3
    sum                             2.58385

    Raises:
      KeyError: no variable has such a name.
      ValueError: there are more paths than `most`, or the graph has no values.
    """
    graph = as_graph(fn, args, **options)
    start = graph.inputs[0] if source is None else graph.position(source)
    end = graph.outputs[0] if target is None else graph.position(target)
    edges: dict[int, list[tuple[int, Any]]] = {}
    for (k, a, b), jacobian in local_jacobians(graph, graph.values()).items():
        op = graph.operations[k]
        edges.setdefault(op.outputs[a], []).append((op.inputs[b], np.asarray(jacobian)))
    _count(graph, edges, start, end, most)
    found: list[Path] = []

    def walk(at: int, behind: tuple[int, ...], factors: tuple[Any, ...]) -> None:
        if at == start:
            product = _product(factors, graph.variables[start].shape)
            names = tuple(graph.variables[i].name for i in (at, *behind))
            found.append(Path(names, factors, product))
            return
        for parent, jacobian in edges.get(at, []):
            walk(parent, (at, *behind), (jacobian, *factors))

    walk(end, (), ())
    shape = (*graph.variables[end].shape, *graph.variables[start].shape)
    sizes = (int(np.prod(graph.variables[i].shape, dtype=np.int64)) for i in (end, start))
    total = sum((p.product for p in found), np.zeros(tuple(sizes), graph.variables[end].dtype)).reshape(shape)
    return PathSum(graph.variables[start].name, graph.variables[end].name, tuple(found), jnp.asarray(total))


def _product(factors: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    if not factors:
        return np.eye(int(np.prod(shape, dtype=np.int64)))
    product = factors[-1]
    for factor in factors[-2::-1]:
        product = product @ factor
    return product


def _count(graph: Graph, edges: dict[int, list[tuple[int, Any]]], start: int, end: int, most: int) -> None:
    order = [*graph.inputs, *(i for op in graph.operations for i in op.outputs)]
    number = {start: 1}
    for i in order:
        if i != start:
            number[i] = sum(number.get(parent, 0) for parent, _ in edges.get(i, []))
    if number.get(end, 0) > most:
        name = [graph.variables[i].name for i in (start, end)]
        raise ValueError(
            f"{number[end]:,} paths lead from {name[0]} to {name[1]}: raise most={most}, or fold the graph"
        )
