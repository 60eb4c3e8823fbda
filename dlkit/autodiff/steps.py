"""Step-by-step tables of forward propagation, forward mode and backward propagation, as textbooks print them."""

from typing import Any

import jax

from dlkit.autodiff.formulas import assignment, derivative, local_derivative, symbol
from dlkit.autodiff.graph import Graph
from dlkit.autodiff.propagation import as_graph, increments, output_cotangents, tangents
from dlkit.autodiff.table import Table, brief, table

__all__ = ["trace_adjoints", "trace_tangents", "trace_values"]


def trace_values(fn: Any, *args: Any, **options: Any) -> Table:
    """Forward propagation: every variable in topological order, with its formula and its value.

    `fn` is a function of `args`, or a `Graph`; `options` are those of `trace_graph`.

    >>> import jax.numpy as jnp
    >>> print(trace_values(lambda x1, x2: jnp.sin(x1) + x1 * x2, 2.0, 3.0))
    forward propagation
    variable  computed as   value
    --------------------------------
    x1        input         2
    x2        input         3
    w1        w1 = sin(x1)  0.909297
    w2        w2 = x1 · x2  6
    y         y = w1 + w2   6.9093

    Raises:
      ValueError: the graph was traced from shapes.
    """
    graph = as_graph(fn, args, **options)
    values = graph.values()
    rows = [(graph.variables[i].name, "input", brief(values[i])) for i in graph.inputs]
    steps = [(op, i) for op in graph.operations for i in op.outputs]
    rows += [(graph.variables[i].name, assignment(graph, op), brief(values[i])) for op, i in steps]
    return table("forward propagation", ("variable", "computed as", "value"), rows)


def trace_tangents(fn: Any, *args: Any, tangents_in: Any, **options: Any) -> Table:
    """Forward mode: every variable with its tangent, the derivative along `tangents_in`.

    Args:
      fn: a function of `args`, or a `Graph`.
      args: its arguments, unless a graph is given.
      tangents_in: the direction, a tree of the structure of `args` (a tuple, one entry an argument).
      options: those of `trace_graph`.

    A prime marks a tangent (a dot, in many textbooks). Each row multiplies local derivatives with the tangents of
    the operands, so one pass gives the derivatives of everything along one direction.

    >>> import jax.numpy as jnp
    >>> print(trace_tangents(lambda x1, x2: jnp.sin(x1) + x1 * x2, 2.0, 3.0, tangents_in=(1.0, 0.0)))
    forward mode
    variable  value     tangent                tangent value
    --------------------------------------------------------
    x1        2         x1' = 1                1
    x2        3         x2' = 0                0
    w1        0.909297  w1' = cos(x1) x1'      -0.416147
    w2        6         w2' = x2 x1' + x1 x2'  3
    y         6.9093    y' = w1' + w2'         2.58385

    Raises:
      ValueError: the tangents do not fit the arguments, or the graph was traced from shapes.
    """
    graph = as_graph(fn, args, **options)
    leaves = jax.tree.leaves(tangents_in)
    values, moved = graph.values(), tangents(graph, leaves)
    rows = []
    for i in graph.inputs:
        name = graph.variables[i].name
        rows.append((name, brief(values[i]), f"{name}' = {brief(moved[i])}", brief(moved[i])))
    for k, op in enumerate(graph.operations):
        for i in op.outputs:
            name = graph.variables[i].name
            formula = _tangent(graph, k) if graph.variables[i].differentiable else ""
            rows.append((name, brief(values[i]), f"{name}' = {formula}" if formula else "", brief(moved[i])))
    return table("forward mode", ("variable", "value", "tangent", "tangent value"), rows)


def _tangent(graph: Graph, k: int) -> str:
    op, terms = graph.operations[k], []
    for b, i in enumerate(op.inputs):
        variable = graph.variables[i]
        if variable.kind == "constant" or not variable.differentiable:
            continue
        factor = local_derivative(graph, op, b)
        if factor != "0":
            terms.append((factor, f"{variable.name}'"))
    text = ""
    for factor, dot in terms:
        sign = "-" if factor.startswith("-") and " " not in factor.strip("-") else ""
        factor = factor[1:] if sign else factor
        wrapped = f"({factor})" if " + " in factor or " - " in factor else factor
        joiner = (f" {sign or '+'} " if text else sign) if sign or text else ""
        text += f"{joiner}{dot}" if factor == "1" else f"{joiner}{wrapped} {dot}"
    return text or "0"


def trace_adjoints(fn: Any, *args: Any, cotangents: Any = None, **options: Any) -> Table:
    """Backward propagation: in reverse topological order, what each operation adds to the adjoints of its operands.

    Args:
      fn: a function of `args`, or a `Graph`, with one scalar output.
      args: its arguments, unless a graph is given.
      cotangents: where the output is not one scalar, a tree like it.
      options: those of `trace_graph`.

    The adjoint of u is dy/du. All adjoints begin at 0, that of the output at 1; an operation u = g(v, ...) adds
    dy/du du/dv to that of v. The last column is the sum so far, so the last row of a variable holds its derivative.

    >>> import jax.numpy as jnp
    >>> print(trace_adjoints(lambda x1, x2: jnp.sin(x1) + x1 * x2, 2.0, 3.0))
    backward propagation
    step                      local derivative   adds       sum so far
    ------------------------------------------------------------------
    dy/dy = 1                                    1          1
    dy/dw1 += dy/dy dy/dw1    dy/dw1 = 1         1          1
    dy/dw2 += dy/dy dy/dw2    dy/dw2 = 1         1          1
    dy/dx1 += dy/dw2 dw2/dx1  dw2/dx1 = x2       3          3
    dy/dx2 += dy/dw2 dw2/dx2  dw2/dx2 = x1       2          2
    dy/dx1 += dy/dw1 dw1/dx1  dw1/dx1 = cos(x1)  -0.416147  2.58385

    Raises:
      ValueError: the output is not one real scalar and no cotangents are given, or the graph was traced from shapes.
    """
    graph = as_graph(fn, args, **options)
    seeds = output_cotangents(graph, None if cotangents is None else jax.tree.leaves(cotangents))
    output = graph.variables[graph.outputs[0]].name if len(set(graph.outputs)) == 1 else "L"
    total: dict[int, Any] = {}
    rows = []
    for i, seed in zip(graph.outputs, seeds, strict=True):
        if seed is not None:
            total[i] = total.get(i, 0) + seed
            mark = derivative(output, graph.variables[i].name)
            rows.append((f"{mark} = {brief(seed)}", "", brief(seed), brief(total[i])))
    for (k, a, b), added in increments(graph, seeds):
        op = graph.operations[k]
        into, above = op.inputs[b], graph.variables[op.outputs[a]].name
        name = graph.variables[into].name
        total[into] = total.get(into, 0) + added
        local, formula = derivative(above, name), local_derivative(graph, op, b)
        shown = f"{local} of {symbol(op)}" if formula == local else f"{local} = {formula}"
        step = f"{derivative(output, name)} += {derivative(output, above)} {local}"
        rows.append((step, shown, brief(added), brief(total[into])))
    return table("backward propagation", ("step", "local derivative", "adds", "sum so far"), rows)
