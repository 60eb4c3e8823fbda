"""Values, tangents, adjoints and local derivatives of every variable of a graph, each in one compiled program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.autodiff.graph import Graph

__all__ = ["adjoints", "as_graph", "increments", "local_jacobians", "output_cotangents", "tangents"]


def as_graph(fn: Any, args: Sequence[Any], **options: Any) -> Graph:
    """A graph as it is, or that of a function."""
    from dlkit.autodiff.tracing import trace_graph

    if isinstance(fn, Graph):
        if args:
            raise TypeError("a Graph holds its arguments already: pass the graph alone, or the function and arguments")
        return fn
    return trace_graph(fn, *args, **options)


def _needs_values(graph: Graph) -> tuple[Any, ...]:
    if graph.args is None:
        raise ValueError("this graph was traced from shapes, so it has no values: trace it with arrays")
    return graph.args


def tangents(graph: Graph, directions: Sequence[Any]) -> list[Any]:
    """Forward mode: the derivative of each variable along `directions`, one leaf for each input; None where there is
    none.

    Raises:
      ValueError: the leaves of `directions` do not fit the inputs, or the graph has no values.
    """
    args = _needs_values(graph)
    given = _fitted(graph, directions, graph.inputs, "tangents")
    moving = [k for k, i in enumerate(graph.inputs) if graph.variables[i].differentiable]

    def run(part: list[Any]) -> list[Any]:
        at = list(args)
        for k, x in zip(moving, part, strict=True):
            at[k] = x
        values = graph.run(at)
        return [values[i] for i, v in enumerate(graph.variables) if v.differentiable]

    found = jax.jit(lambda x, t: jax.jvp(run, (x,), (t,))[1])([args[k] for k in moving], [given[k] for k in moving])
    rest = iter(found)
    return [next(rest) if v.differentiable else None for v in graph.variables]


def adjoints(graph: Graph, cotangents: Sequence[Any] | None = None) -> list[Any]:
    """Reverse mode: the derivative of the output with respect to each variable; None for what is not differentiable.

    Args:
      graph: with values.
      cotangents: one for each leaf of the output. Without them the output must be one scalar, whose cotangent is 1.

    Each variable is nudged by a zero, and the gradient with respect to all these zeros is taken at once.

    Raises:
      ValueError: the output is not one real scalar and no cotangents are given, or they do not fit.
    """
    args = _needs_values(graph)
    outs = [graph.variables[i] for i in graph.outputs]
    given = output_cotangents(graph, cotangents)
    used = {i for op in graph.operations for i in (*op.inputs, *op.outputs)} | set(graph.inputs) | set(graph.outputs)
    nudged = [i for i, v in enumerate(graph.variables) if v.differentiable and v.kind != "constant" and i in used]

    def run(nudges: list[Any]) -> Any:
        values = graph.run(args, dict(zip(nudged, nudges, strict=True)))
        return [values[i] for i in graph.outputs if graph.variables[i].differentiable]

    zeros = [jnp.zeros(graph.variables[i].shape, graph.variables[i].dtype) for i in nudged]
    weights = [c for c, v in zip(given, outs, strict=True) if v.differentiable]
    found = jax.jit(lambda z, c: jax.vjp(run, z)[1](c)[0])(zeros, weights)
    by_position = dict(zip(nudged, found, strict=True))
    return [by_position.get(i) for i in range(len(graph.variables))]


def output_cotangents(graph: Graph, cotangents: Sequence[Any] | None) -> list[Any]:
    """What the outputs are weighted with: as given, or 1 where the output is one real scalar."""
    _needs_values(graph)
    outs = [graph.variables[i] for i in graph.outputs]
    if cotangents is None:
        if len(outs) != 1 or outs[0].shape != () or not outs[0].dtype.startswith(("float", "bfloat")):
            shown = ", ".join(f"{v.dtype}{list(v.shape)}" for v in outs)
            raise ValueError(f"adjoints want one real scalar output, got {shown}: reduce it, or give cotangents=")
        cotangents = [jnp.ones((), outs[0].dtype)]
    return _fitted(graph, cotangents, graph.outputs, "cotangents")


def increments(graph: Graph, seeds: Sequence[Any]) -> list[tuple[tuple[int, int, int], Any]]:
    """Backward propagation, step by step: what each output of each operation adds to the adjoints of the operands.

    Operations come in reverse order. The key is (operation, output, operand), positions each; constants are left out.
    """
    steps: list[tuple[int, int, int]] = []

    def sweep(values: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        total: dict[int, Any] = {}
        found = []
        for i, seed in zip(graph.outputs, given, strict=True):
            if seed is not None:
                total[i] = total[i] + seed if i in total else seed
        for k in range(len(graph.operations) - 1, -1, -1):
            op = graph.operations[k]
            moving = [b for b, i in enumerate(op.inputs) if _moves(graph, i)]
            for a, out in enumerate(op.outputs):
                if out not in total or not moving:
                    continue
                _, back = jax.vjp(
                    lambda *xs, op=op, a=a, at=moving: _with(op, values, at, xs)[a], *_at(op, values, moving)
                )
                for b, added in zip(moving, back(total[out]), strict=True):
                    into = op.inputs[b]
                    total[into] = total[into] + added if into in total else added
                    steps.append((k, a, b))
                    found.append(added)
        return found

    found = jax.jit(sweep)(list(graph.values()), list(seeds))
    return list(zip(steps, found, strict=True))


def _moves(graph: Graph, i: int) -> bool:
    return graph.variables[i].differentiable and graph.variables[i].kind != "constant"


def _at(op: Any, values: Sequence[Any], positions: Sequence[int]) -> list[Any]:
    return [values[op.inputs[b]] for b in positions]


def _with(op: Any, values: Sequence[Any], positions: Sequence[int], xs: Sequence[Any]) -> Any:
    operands = [values[i] for i in op.inputs]
    for b, x in zip(positions, xs, strict=True):
        operands[b] = x
    return op.run(*operands)


def _fitted(graph: Graph, given: Sequence[Any], positions: Sequence[int], what: str) -> list[Any]:
    variables = [graph.variables[i] for i in positions]
    if len(given) != len(variables):
        raise ValueError(f"{len(given)} {what} for {len(variables)} leaves: {', '.join(v.name for v in variables)}")
    fitted = []
    for v, x in zip(variables, given, strict=True):
        if v.differentiable and np.shape(x) != v.shape:
            raise ValueError(f"{what} of {v.name} have shape {list(np.shape(x))}, wanted {list(v.shape)}")
        fitted.append(jnp.asarray(x, v.dtype) if v.differentiable else None)
    return fitted


def local_jacobians(graph: Graph, values: Sequence[Any]) -> dict[tuple[int, int, int], Any]:
    """The derivative of each output of each operation with respect to each of its operands.

    The key is (operation, output, operand), positions each; the Jacobian is `[outputs, operands]`, both flattened.
    Constants are not counted as operands.
    """
    edges = [
        (k, a, b)
        for k, op in enumerate(graph.operations)
        for a, out in enumerate(op.outputs)
        for b, into in enumerate(op.inputs)
        if graph.variables[out].differentiable
        and graph.variables[into].differentiable
        and graph.variables[into].kind != "constant"
    ]

    def one(k: int, a: int, b: int, held: Sequence[Any]) -> Any:
        op = graph.operations[k]
        operands = [held[i] for i in op.inputs]

        def run(x: Any) -> Any:
            return op.run(*operands[:b], x, *operands[b + 1 :])[a]

        # Reverse mode, since functions with a custom_vjp have no other.
        out = graph.variables[op.outputs[a]]
        _, back = jax.vjp(run, operands[b])
        n = int(np.prod(out.shape, dtype=np.int64))
        basis = jnp.eye(n, dtype=out.dtype).reshape(n, *out.shape)
        return jax.vmap(lambda c: back(c)[0])(basis).reshape(n, -1)

    found = jax.jit(lambda held: [one(*edge, held) for edge in edges])(list(values))
    return dict(zip(edges, found, strict=True))
