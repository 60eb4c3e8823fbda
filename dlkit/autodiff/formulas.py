"""How operations and their local derivatives are written, as the textbooks do."""

from typing import Any

from dlkit.autodiff.graph import Graph, Operation

__all__ = ["assignment", "expression", "local_derivative"]

# The formula, and the derivative with respect to each operand. {0}, {1} are the operands, {y} the result, {n} a power.
RULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "add": ("{0} + {1}", ("1", "1")),
    "add_any": ("{0} + {1}", ("1", "1")),
    "sub": ("{0} - {1}", ("1", "-1")),
    "mul": ("{0} · {1}", ("{1}", "{0}")),
    "div": ("{0} / {1}", ("1/{1}", "-{0}/{1}^2")),
    "neg": ("-{0}", ("-1",)),
    "square": ("{0}^2", ("2 {0}",)),
    "pow": ("{0}^{1}", ("{1} {0}^({1} - 1)", "{y} log({0})")),
    "sqrt": ("sqrt({0})", ("1/(2 {y})",)),
    "rsqrt": ("1/sqrt({0})", ("-{y}/(2 {0})",)),
    "exp": ("exp({0})", ("{y}",)),
    "exp2": ("2^{0}", ("{y} log(2)",)),
    "expm1": ("exp({0}) - 1", ("{y} + 1",)),
    "log": ("log({0})", ("1/{0}",)),
    "log1p": ("log(1 + {0})", ("1/(1 + {0})",)),
    "sin": ("sin({0})", ("cos({0})",)),
    "cos": ("cos({0})", ("-sin({0})",)),
    "tan": ("tan({0})", ("1 + {y}^2",)),
    "asin": ("asin({0})", ("1/sqrt(1 - {0}^2)",)),
    "acos": ("acos({0})", ("-1/sqrt(1 - {0}^2)",)),
    "atan": ("atan({0})", ("1/(1 + {0}^2)",)),
    "sinh": ("sinh({0})", ("cosh({0})",)),
    "cosh": ("cosh({0})", ("sinh({0})",)),
    "tanh": ("tanh({0})", ("1 - {y}^2",)),
    "logistic": ("σ({0})", ("{y} (1 - {y})",)),
    "abs": ("|{0}|", ("sign({0})",)),
    "sign": ("sign({0})", ("0",)),
    "max": ("max({0}, {1})", ("[{0} > {1}]", "[{1} > {0}]")),
    "min": ("min({0}, {1})", ("[{0} < {1}]", "[{1} < {0}]")),
    "relu": ("relu({0})", ("[{0} > 0]",)),
    "softplus": ("softplus({0})", ("σ({0})",)),
    "select_n": ("where({0}, {2}, {1})", ("0", "[not {0}]", "[{0}]")),
    "gt": ("{0} > {1}", ("0", "0")),
    "ge": ("{0} >= {1}", ("0", "0")),
    "lt": ("{0} < {1}", ("0", "0")),
    "le": ("{0} <= {1}", ("0", "0")),
    "eq": ("{0} = {1}", ("0", "0")),
    "reduce_sum": ("sum({0})", ("1",)),
    "stop_gradient": ("stop({0})", ("0",)),
    "erf": ("erf({0})", ("2/sqrt(π) exp(-{0}^2)",)),
    "copy": ("{0}", ("1",)),
    "transpose": ("{0}'", ("1",)),
    "reshape": ("reshape({0})", ("1",)),
    "broadcast_in_dim": ("broadcast({0})", ("1",)),
    "convert_element_type": ("{dtype}({0})", ("1",)),
}
SYMBOLS = {"add": "+", "add_any": "+", "sub": "-", "mul": "×", "div": "÷", "neg": "-", "logistic": "σ", "square": "^2"}
SYMBOLS |= {"dot_general": "matmul", "reduce_sum": "sum", "reduce_max": "max", "select_n": "where", "pow": "^"}
SYMBOLS |= {"broadcast_in_dim": "broadcast", "conv_general_dilated": "conv", "reduce_window_max": "max pool"}


def _power(op: Operation) -> str | None:
    return str(op.params["y"]) if op.name == "integer_pow" else None


def symbol(op: Operation) -> str:
    """What stands in the node of an operation."""
    if "folded" in op.params:
        return str(op.params["label"])
    if op.name == "scan":
        return f"scan ×{op.params['length']}"
    if "index" in op.params:
        return str(op.params["index"])
    if op.name == "convert_element_type":
        return str(op.params["new_dtype"])
    return f"^{_power(op)}" if _power(op) else SYMBOLS.get(op.name, op.name)


def _operand(name: str, formula: str, slot: str) -> str:
    compound = any(c in name for c in " +*/") and not name.startswith("[")
    at = formula.find(slot)
    inside = formula[at - 1 : at] == "(" or formula == slot
    return f"({name})" if (compound and "/" not in name and not inside) or (name.startswith("-") and at > 0) else name


def _fill(formula: str, names: list[str], result: str, op: Operation) -> str:
    filled = formula.replace("{y}", result).replace("{dtype}", str(op.params.get("new_dtype", "")))
    for i, name in enumerate(names):
        filled = filled.replace(f"{{{i}}}", _operand(name, formula, f"{{{i}}}"))
    return filled


def _names(graph: Graph, op: Operation) -> tuple[list[str], list[str]]:
    name = [v.name for v in graph.variables]
    return [name[i] for i in op.inputs], [name[i] for i in op.outputs]


def expression(graph: Graph, op: Operation) -> str:
    """The right-hand side, such as `x1 · x2`."""
    inputs, outputs = _names(graph, op)
    if (power := _power(op)) is not None:
        return f"{inputs[0]}^{power}"
    if "index" in op.params:
        return f"{inputs[0]}{op.params['index']}"
    if op.name in RULES:
        return _fill(RULES[op.name][0], inputs, outputs[0], op)
    return f"{symbol(op)}({', '.join(inputs)})"


def assignment(graph: Graph, op: Operation) -> str:
    """The whole step, such as `w2 = x1 · x2`."""
    return f"{', '.join(_names(graph, op)[1])} = {expression(graph, op)}"


def local_derivative(graph: Graph, op: Operation, operand: int) -> str:
    """The derivative of the result with respect to one operand, such as `cos(x1)`; `dy/dx` where it has no formula."""
    inputs, outputs = _names(graph, op)
    if (power := _power(op)) is not None:
        n = int(power)
        return f"2 {inputs[0]}" if n == 2 else f"{n} {inputs[0]}^{n - 1}" if n > 2 else f"{n} {inputs[0]}^({n - 1})"
    if "index" in op.params:
        return "1"
    if op.name in RULES and operand < len(RULES[op.name][1]):
        return _fill(RULES[op.name][1][operand], inputs, outputs[0], op)
    return f"d{outputs[0]}/d{inputs[operand]}"


def derivative(y: Any, x: Any) -> str:
    """`dy/dx`."""
    return f"d{y}/d{x}"
