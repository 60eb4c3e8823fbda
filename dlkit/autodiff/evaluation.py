"""The numbers of a graph by the names of its variables: values, tangents, adjoints."""

from collections.abc import Sequence
from typing import Any

import jax

from dlkit.autodiff.graph import Graph
from dlkit.autodiff.propagation import adjoints, as_graph, tangents

__all__ = ["evaluate_adjoints", "evaluate_graph", "evaluate_tangents"]


def _by_name(graph: Graph, numbers: Sequence[Any]) -> dict[str, Any]:
    order = [*graph.inputs, *(i for op in graph.operations for i in op.outputs)]
    return {graph.variables[i].name: numbers[i] for i in order if numbers[i] is not None}


def evaluate_graph(fn: Any, *args: Any, **options: Any) -> dict[str, Any]:
    """Forward propagation: the value of every variable by its name, in topological order.

    `fn` is a function of `args`, or a `Graph`; `options` are those of `trace_graph`.

    >>> import jax.numpy as jnp
    >>> values = evaluate_graph(lambda x: jnp.exp(2.0 * x), 0.0)
    >>> {name: float(value) for name, value in values.items()}
    {'x': 0.0, 'w1': 0.0, 'y': 1.0}

    Raises:
      ValueError: the graph was traced from shapes.
    """
    graph = as_graph(fn, args, **options)
    return _by_name(graph, graph.values())


def evaluate_tangents(fn: Any, *args: Any, tangents_in: Any, **options: Any) -> dict[str, Any]:
    """Forward mode: the derivative of every variable along `tangents_in`, a tree like `args`, by name.

    >>> import jax.numpy as jnp
    >>> found = evaluate_tangents(lambda x: jnp.exp(2.0 * x), 0.0, tangents_in=(1.0,))
    >>> {name: float(value) for name, value in found.items()}
    {'x': 1.0, 'w1': 2.0, 'y': 2.0}

    Raises:
      ValueError: the tangents do not fit the arguments, or the graph was traced from shapes.
    """
    graph = as_graph(fn, args, **options)
    return _by_name(graph, tangents(graph, jax.tree.leaves(tangents_in)))


def evaluate_adjoints(fn: Any, *args: Any, cotangents: Any = None, **options: Any) -> dict[str, Any]:
    """Reverse mode: the derivative of the output with respect to every variable, by name.

    `cotangents`, a tree like the output, weight it where it is not one scalar.

    >>> import jax.numpy as jnp
    >>> found = evaluate_adjoints(lambda x: jnp.exp(2.0 * x), 0.0)
    >>> {name: float(value) for name, value in found.items()}
    {'x': 2.0, 'w1': 1.0, 'y': 1.0}

    Raises:
      ValueError: the output is not one real scalar and no cotangents are given, they do not fit, or the graph was
        traced from shapes.
    """
    graph = as_graph(fn, args, **options)
    return _by_name(graph, adjoints(graph, None if cotangents is None else jax.tree.leaves(cotangents)))
