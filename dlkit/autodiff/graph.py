"""The computational graph of a JAX function: variables, operations, and the order in which they are computed.

A graph has two kinds of vertices, as the two notations of the textbooks need them: variables (inputs, constants,
intermediate results) and the operations between them. Either kind can be drawn as nodes and the other as edges.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax

__all__ = ["Graph", "Operation", "Variable", "toposort"]

Kind = Literal["input", "constant", "computed"]


@dataclass(frozen=True)
class Variable:
    """One value of the program. `value` is that of a constant, else None."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    value: Any = field(default=None, compare=False, repr=False)

    @property
    def differentiable(self) -> bool:
        """Whether it is real or complex, so that derivatives with respect to it are numbers."""
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True)
class Operation:
    """One step of the program: what is computed from which variables.

    `name` is JAX's name of the primitive, or that of a custom rule, a loop, or a folded scope; `inputs` and `outputs`
    are positions in `Graph.variables`, one input for each operand; `scope` is the `jax.named_scope` it stands in;
    `run(*operands)` gives the tuple of outputs.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: str
    run: Callable[..., Any] = field(compare=False, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Graph:
    """What `trace_graph` returns. Operations stand in topological order.

    `inputs` and `outputs` are positions in `variables`; `args` are the values of the inputs, None for a graph of
    shapes.

    >>> import jax.numpy as jnp
    >>> from dlkit.autodiff import trace_graph
    >>> print(trace_graph(lambda x1, x2: jnp.sin(x1) + x1 * x2, 1.0, 2.0))
    w1 = sin(x1)
    w2 = x1 · x2
    y = w1 + w2
    """

    variables: tuple[Variable, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    args: tuple[Any, ...] | None = field(compare=False, repr=False)
    out_tree: Any = field(compare=False, repr=False)

    def __str__(self) -> str:
        from dlkit.autodiff.formulas import assignment

        return "\n".join(assignment(self, op) for op in self.operations)

    def _repr_html_(self) -> str:
        from dlkit.autodiff.drawing import draw_graph

        return draw_graph(self)._repr_html_()

    def position(self, name: str) -> int:
        """Where the variable called `name` stands in `variables`.

        Raises:
          KeyError: there is none.
        """
        for i, variable in enumerate(self.variables):
            if variable.name == name:
                return i
        shown = ", ".join(v.name for v in self.variables if v.kind != "constant")
        raise KeyError(f"the graph has no variable {name!r}; it has {shown}")

    def fold(self, depth: int = 1) -> "Graph":
        """Make each maximal run of operations inside one `jax.named_scope` a single operation, named by the scope.

        Args:
          depth: how many segments of the scope's path are kept. A scope that holds no other scope is folded even where
            its path is shorter; operations between deeper scopes stay as they are.

        Layers of `dlkit.nn` each run in a scope of their own name, so the graph of a model folds by its layers.
        """
        scopes = {op.scope for op in self.operations}
        inner = {"/".join(parts[:k]) for parts in (s.split("/") for s in scopes) for k in range(1, len(parts))}
        runs: list[tuple[str | None, list[Operation]]] = []
        for op in self.operations:
            segments = op.scope.split("/") if op.scope else []
            scope = "/".join(segments[:depth])
            folds = scope and depth > 0 and (len(segments) >= depth or scope not in inner)
            if folds and runs and runs[-1][0] == scope:
                runs[-1][1].append(op)
            else:
                runs.append((scope if folds else None, [op]))
        shared = _shared([scope.split("/")[:-1] for scope, _ in runs if scope])
        folded = [
            ops[0] if scope is None else self._merge(scope, "/".join(scope.split("/")[shared:]), ops)
            for scope, ops in runs
        ]
        return _compact(replace(self, operations=tuple(folded)))

    def _merge(self, scope: str, label: str, ops: Sequence[Operation]) -> Operation:
        made = {i for op in ops for i in op.outputs}
        outside = [op for op in self.operations if not made & set(op.outputs)]
        needed = {i for op in outside for i in op.inputs} | set(self.outputs)
        inner = {i for op in ops for i in op.inputs if self.variables[i].kind == "constant"}
        inputs = tuple(dict.fromkeys(i for op in ops for i in op.inputs if i not in made and i not in inner))
        outputs = tuple(i for op in ops for i in op.outputs if i in needed)
        constants = {i: self.variables[i].value for i in inner}

        def run(*operands: Any) -> tuple[Any, ...]:
            values = {**constants, **dict(zip(inputs, operands, strict=True))}
            for op in ops:
                values.update(zip(op.outputs, op.run(*(values[i] for i in op.inputs)), strict=True))
            return tuple(values[i] for i in outputs)

        return Operation(scope, inputs, outputs, scope, run, {"folded": len(ops), "label": label})

    def run(self, args: Sequence[Any], nudges: Mapping[int, Any] | None = None) -> list[Any]:
        """The values of all variables for these inputs; `nudges` are added to the variables at these positions."""
        nudges = nudges or {}
        values: list[Any] = [v.value for v in self.variables]
        for i, arg in zip(self.inputs, args, strict=True):
            values[i] = arg + nudges[i] if i in nudges else arg
        for op in self.operations:
            for i, out in zip(op.outputs, op.run(*(values[j] for j in op.inputs)), strict=True):
                values[i] = out + nudges[i] if i in nudges else out
        return values

    def values(self) -> list[Any]:
        """The value of each variable, computed in one compiled program.

        Raises:
          ValueError: the graph was traced from shapes.
        """
        if self.args is None:
            raise ValueError("this graph was traced from shapes, so it has no values: trace it with arrays")
        return jax.jit(lambda args: self.run(args))(self.args)


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """How many leading segments all paths have in common."""
    levels = list(zip(*paths, strict=False))
    return next((k for k, level in enumerate(levels) if len(set(level)) > 1), len(levels))


def _compact(graph: Graph) -> Graph:
    """Drop what no output needs, and variables that nothing refers to; inputs stay."""
    needed, kept = set(graph.outputs), []
    for op in reversed(graph.operations):
        if needed & set(op.outputs):
            kept.append(op)
            needed |= set(op.inputs)
    operations = kept[::-1]
    used = sorted({*graph.inputs, *graph.outputs, *(i for op in operations for i in (*op.inputs, *op.outputs))})
    at = {old: new for new, old in enumerate(used)}

    def move(positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(at[i] for i in positions)

    return replace(
        graph,
        variables=tuple(graph.variables[i] for i in used),
        operations=tuple(replace(op, inputs=move(op.inputs), outputs=move(op.outputs)) for op in operations),
        inputs=move(graph.inputs),
        outputs=move(graph.outputs),
    )


def toposort(graph: Graph | Mapping[Any, Sequence[Any]]) -> list[Any]:
    """An order in which every node comes after all nodes it depends on.

    Args:
      graph: a graph of a function, whose variables are then ordered, by name (constants left out); or a mapping from
        each node to those that it depends on.

    Kahn's method (Kahn, 1962); among nodes that are ready, the one mentioned first comes first.

    >>> toposort({"y": ["w1", "w2"], "w2": ["x1", "x2"], "w1": ["x1"]})
    ['x1', 'x2', 'w1', 'w2', 'y']

    Raises:
      ValueError: the nodes form a cycle, which is named.
    """
    if isinstance(graph, Graph):
        names = [v.name for v in graph.variables]
        parents: dict[Hashable, Sequence[Any]] = {names[i]: [] for i in graph.inputs}
        for op in graph.operations:
            held = [names[i] for i in op.inputs if graph.variables[i].kind != "constant"]
            parents.update({names[i]: held for i in op.outputs})
    else:
        parents = {node: list(depends) for node, depends in graph.items()}
    for depends in list(parents.values()):
        for node in depends:
            parents.setdefault(node, [])
    waits = {node: len(set(depends)) for node, depends in parents.items()}
    children: dict[Hashable, list[Any]] = {node: [] for node in parents}
    for node, depends in parents.items():
        for parent in dict.fromkeys(depends):
            children[parent].append(node)
    ready, order = [node for node, n in waits.items() if n == 0], []
    while ready:
        node = ready.pop(0)
        order.append(node)
        for child in children[node]:
            waits[child] -= 1
            if waits[child] == 0:
                ready.append(child)
    if len(order) < len(parents):
        raise ValueError(f"not a directed acyclic graph: {_cycle(parents, set(order))}")
    return order


def _cycle(parents: Mapping[Any, Sequence[Any]], done: set[Any]) -> str:
    node, path = next(n for n in parents if n not in done), []
    while node not in path:
        path.append(node)
        node = next(p for p in parents[node] if p not in done)
    loop = [*path[path.index(node) :], node]
    return "the cycle " + " <- ".join(map(str, loop))
