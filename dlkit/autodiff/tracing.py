"""From a function to its graph: the jaxpr of the function, with calls inlined and loops unrolled where asked."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun

from dlkit import tree
from dlkit.autodiff.graph import Graph, Operation, Variable, _compact

__all__ = ["trace_graph"]

INLINED = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat"}
CUSTOM = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def trace_graph(
    fn: Callable[..., Any], *args: Any, unroll: int = 0, names: Sequence[str] = (), prefix: str = "w"
) -> Graph:
    """The computational graph of `fn(*args)`.

    Args:
      fn: any function that JAX can trace; its output may be any tree.
      args: trees of arrays, or of `jax.ShapeDtypeStruct`s for a graph of shapes alone.
      unroll: loops (`scan`, `while_loop`, `fori_loop`) of at most so many steps are shown step by step.
      names: names of the computed variables, in order. Without them they are `w1`, `w2`, ... and the output is `y`;
        what the function itself names with `jax.ad_checkpoint.checkpoint_name` keeps that name.
      prefix: the letter in place of `w`.

    `jit` and `remat` are inlined. Of a `cond` the graph shows the branch that these values take; for shapes, one node.
    A function with a rule of its own (`custom_jvp`, `custom_vjp`) is one node, since that is where its rule acts. A
    loop that is not unrolled is one node. Conversions to the same dtype, and copies, are left out; so is everything
    that the output does not depend on. `x[0]` is one node.

    >>> import jax, jax.numpy as jnp
    >>> print(trace_graph(jax.jit(lambda x: jax.nn.relu(x[0]) * x[1]), jnp.array([3.0, 2.0])))
    w1 = x[0]
    w2 = relu(w1)
    w3 = x[1]
    y = w2 · w3

    Raises:
      ValueError: more names than computed variables, or two variables of one name.
    """
    leaves = jax.tree.leaves(args)
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    if not shapes:
        args, leaves = jax.tree.map(jnp.asarray, (args, leaves))
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    builder = _Builder(None if shapes else tuple(leaves), unroll)
    inputs = [
        builder.new(name, v, "input") for name, v in zip(_input_names(fn, args), closed.jaxpr.invars, strict=True)
    ]
    builder.known.update({} if shapes else dict(zip(inputs, leaves, strict=True)))
    constants = [builder.constant(value) for value in closed.consts]
    outputs = builder.walk(closed.jaxpr, constants + inputs, "")
    graph = Graph(
        tuple(builder.variables),
        tuple(builder.operations),
        tuple(inputs),
        tuple(outputs),
        None if shapes else tuple(leaves),
        jax.tree.structure(out_shape),
    )
    return _named(_compact(_indexing(_compact(graph))), names, prefix)


def _input_names(fn: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    several = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = []
    for i, arg in enumerate(args):
        first = plain[i] if i < len(plain) else f"{several[0].name if several else 'x'}{i - len(plain) + 1}"
        named += [f"{first}/{path}" if path else first for path in tree.flatten(arg)]
    return named


class _Builder:
    """Collects variables and operations while jaxprs are walked; a name of "" is given later."""

    def __init__(self, args: tuple[Any, ...] | None, unroll: int) -> None:
        self.concrete, self.unroll = args is not None, unroll
        self.variables: list[Variable] = []
        self.operations: list[Operation] = []
        self.maker: dict[int, Operation] = {}
        self.known: dict[int, Any] = {}

    def new(self, name: str, like: Any, kind: Any, value: Any = None) -> int:
        aval = like.aval if hasattr(like, "aval") else like
        self.variables.append(Variable(name, kind, tuple(aval.shape), str(aval.dtype), value))
        return len(self.variables) - 1

    def constant(self, value: Any, like: Any = None) -> int:
        if like is not None and not hasattr(value, "dtype"):
            value = np.asarray(value, like.aval.dtype)
        value = jnp.asarray(value)
        i = self.new("", value, "constant", value)
        self.known[i] = value
        return i

    def value(self, i: int) -> Any:
        """The value of a variable while the graph is built: what decides about branches and loops."""
        if i not in self.known:
            op = self.maker[i]
            self.known.update(zip(op.outputs, op.run(*(self.value(j) for j in op.inputs)), strict=True))
        return self.known[i]

    def add(
        self, name: str, inputs: Sequence[int], outs: Sequence[Any], scope: str, run: Any, params: Any
    ) -> list[int]:
        outputs = [self.new("", v, "computed") for v in outs]
        op = Operation(name, tuple(inputs), tuple(outputs), scope, run, params)
        self.operations.append(op)
        self.maker.update(dict.fromkeys(outputs, op))
        return outputs

    def walk(self, jaxpr: Any, given: Sequence[int], scope: str) -> list[int]:
        env: dict[Any, int] = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))

        def read(atom: Any) -> int:
            return self.constant(atom.val, atom) if isinstance(atom, Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(v) for v in eqn.invars]
            here = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
            env.update(zip(eqn.outvars, self.equation(jaxpr, eqn, inputs, here), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def equation(self, jaxpr: Any, eqn: Any, inputs: list[int], scope: str) -> list[int]:
        name, params = eqn.primitive.name, eqn.params
        if name in INLINED:
            return self.inline(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], inputs, scope)
        same = name in ("copy", "copy_p") or (
            name == "convert_element_type" and eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype
        )
        if same:
            return inputs
        if name == "name":
            self.rename(inputs[0], params["name"])
            return inputs
        if name == "cond" and self.concrete:
            taken = int(np.clip(int(self.value(inputs[0])), 0, len(params["branches"]) - 1))
            return self.inline(params["branches"][taken], inputs[1:], scope)
        if name == "scan" and params["length"] <= self.unroll:
            return self.scan(params, inputs, scope)
        if name == "while" and self.concrete and self.unroll:
            steps = self.while_loop(params, inputs, scope)
            if steps is not None:
                return steps
        shown = name
        if name in CUSTOM:
            inner = params["call_jaxpr"] if "call_jaxpr" in params else params["fun_jaxpr"]
            shown = str(inner.jaxpr.debug_info.func_name).strip("<>")
        kept = dict(params)
        return self.add(shown, inputs, eqn.outvars, scope, _alone(jaxpr, eqn), kept)

    def rename(self, i: int, name: str) -> None:
        variable, taken = self.variables[i], {v.name for v in self.variables}
        if variable.kind == "computed" and not variable.name:
            again = next(k for k in range(1, len(taken) + 2) if (name if k == 1 else f"{name}_{k}") not in taken)
            self.variables[i] = replace(variable, name=name if again == 1 else f"{name}_{again}")

    def inline(self, inner: Any, inputs: Sequence[int], scope: str) -> list[int]:
        consts = [self.constant(value) for value in getattr(inner, "consts", ())]
        return self.walk(getattr(inner, "jaxpr", inner), [*consts, *inputs], scope)

    def scan(self, params: Any, inputs: list[int], scope: str) -> list[int]:
        n, first = params["length"], params["num_consts"]
        last = first + params["num_carry"]
        fixed, carry, rows = inputs[:first], inputs[first:last], inputs[last:]
        stacked: list[list[int]] = []
        steps = range(n)[:: -1 if params["reverse"] else 1]
        for step in steps:
            inside = f"{scope}[{step}]" if scope else f"scan[{step}]"
            taken = [self.index(row, step, inside) for row in rows]
            outs = self.inline(params["jaxpr"], [*fixed, *carry, *taken], inside)
            carry = outs[: last - first]
            stacked.append(outs[last - first :])
        columns = [list(column)[:: -1 if params["reverse"] else 1] for column in zip(*stacked, strict=True)]
        return [*carry, *(self.stack(column, scope) for column in columns)]

    def index(self, row: int, step: int, scope: str) -> int:
        like = self.variables[row]
        out = jax.ShapeDtypeStruct(like.shape[1:], jnp.dtype(like.dtype))
        return self.add("index", [row], [out], scope, lambda x: (x[step],), {"index": f"[{step}]"})[0]

    def stack(self, column: list[int], scope: str) -> int:
        like = self.variables[column[0]]
        out = jax.ShapeDtypeStruct((len(column), *like.shape), jnp.dtype(like.dtype))
        return self.add("stack", column, [out], scope, lambda *xs: (jnp.stack(xs),), {})[0]

    def while_loop(self, params: Any, inputs: list[int], scope: str) -> list[int] | None:
        tests, fixed = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        test = jaxpr_as_fun(params["cond_jaxpr"])
        body = jaxpr_as_fun(params["body_jaxpr"])
        held, consts = [self.value(i) for i in inputs[:tests]], [self.value(i) for i in inputs[tests:fixed]]
        carry, steps = [self.value(i) for i in inputs[fixed:]], 0
        while bool(test(*held, *carry)[0]):
            carry, steps = body(*consts, *carry), steps + 1
            if steps > self.unroll:
                return None
        at = inputs[fixed:]
        for step in range(steps):
            inside = f"{scope}[{step}]" if scope else f"while[{step}]"
            at = self.inline(params["body_jaxpr"], [*inputs[tests:fixed], *at], inside)
        return at


def _alone(jaxpr: Any, eqn: Any) -> Callable[..., Any]:
    """One equation as a function of its operands, each a variable of its own."""
    ins, outs = [Var(v.aval) for v in eqn.invars], [Var(v.aval) for v in eqn.outvars]
    info = jaxpr.debug_info.with_unknown_names()
    alone = jaxpr.replace(
        constvars=[], invars=ins, outvars=outs, eqns=[eqn.replace(invars=ins, outvars=outs)], debug_info=info
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))


def _indexing(graph: Graph) -> Graph:
    """Make the slice and the squeeze that `x[0]` consists of one operation."""
    uses = [i for op in graph.operations for i in op.inputs] + list(graph.outputs)
    made = {op.outputs[0]: op for op in graph.operations}
    operations = []
    for op in graph.operations:
        first = made.get(op.inputs[0]) if op.name in ("squeeze", "reshape") and op.inputs else None
        if first is not None and first.name == "slice" and op.name == "squeeze" and uses.count(op.inputs[0]) == 1:
            shape = graph.variables[first.inputs[0]].shape
            label = _index_label(first.params, op.params["dimensions"], shape)
            op = replace(op, name="index", inputs=first.inputs, run=_then(first.run, op.run), params={"index": label})
        elif op.name == "slice":
            label = _index_label(op.params, (), graph.variables[op.inputs[0]].shape)
            op = replace(op, params={**op.params, "index": label})
        operations.append(op)
    return replace(graph, operations=tuple(operations))


def _then(first: Any, second: Any) -> Callable[..., Any]:
    return lambda x: second(*first(x))


def _index_label(params: Any, dropped: Sequence[int], shape: tuple[int, ...]) -> str:
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(shape)
    parts = []
    for axis, (a, b, step, n) in enumerate(zip(starts, limits, strides, shape, strict=True)):
        if axis in dropped:
            parts.append(str(a))
        else:
            parts.append(f"{a or ''}:{b if b < n else ''}" + (f":{step}" if step != 1 else ""))
    while len(parts) > 1 and parts[-1] == ":":
        parts.pop()
    return f"[{','.join(parts)}]"


def _named(graph: Graph, names: Sequence[str], prefix: str) -> Graph:
    computed = [i for op in graph.operations for i in op.outputs]
    if len(names) > len(computed):
        raise ValueError(f"{len(names)} names for {len(computed)} computed variables: {', '.join(names)}")
    given = dict(zip(computed, names, strict=False))
    variables = list(graph.variables)
    taken = {v.name for v in variables if v.name} | set(names)
    outs = [i for i in dict.fromkeys(graph.outputs) if not variables[i].name and i not in given]
    letter = next(x for x in ("y", "out", "result", "y_out") if x not in taken)
    for k, i in enumerate(outs, start=1):
        if variables[i].kind == "computed":
            given[i] = letter if len(outs) == 1 else f"{letter}{k}"
    count = 0
    for i in computed:
        if i not in given and not variables[i].name:
            count += 1
            while f"{prefix}{count}" in taken:
                count += 1
            given[i] = f"{prefix}{count}"
    for i, name in given.items():
        variables[i] = replace(variables[i], name=name)
    constants = [i for i, v in enumerate(variables) if v.kind == "constant" and not v.name]
    for k, i in enumerate(constants, start=1):
        variables[i] = replace(variables[i], name=_constant_name(variables[i], k))
    seen = [v.name for v in variables if v.kind != "constant"]
    twice = sorted({name for name in seen if seen.count(name) > 1})
    if twice:
        raise ValueError(f"two variables are called {', '.join(twice)}: give other `names`, or another `prefix`")
    return replace(graph, variables=tuple(variables))


def _constant_name(variable: Variable, k: int) -> str:
    if variable.shape == () and "key" not in variable.dtype:
        value = variable.value.item()
        return _pi(value) or (f"{value:.6g}" if isinstance(value, float) else str(value))
    return f"c{k}"


def _pi(value: Any) -> str:
    for text, number in (("π", np.pi), ("2π", 2 * np.pi), ("π/2", np.pi / 2)):
        if isinstance(value, float) and abs(abs(value) / number - 1) < 1e-7:
            return text if value > 0 else f"-{text}"
    return ""
