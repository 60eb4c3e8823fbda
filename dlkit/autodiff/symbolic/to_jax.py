"""SymPy expressions as JAX functions: a walk over the tree, each subexpression computed once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dlkit.autodiff.symbolic.to_sympy import sympy_module

__all__ = ["from_sympy"]


def _heaviside(x: Any, middle: Any = 0.5) -> Any:
    half = jnp.asarray(middle, x.dtype)
    return jnp.where(x > 0, jnp.ones_like(x), jnp.where(x < 0, jnp.zeros_like(x), half))


def _many(fn: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def fold(first: Any, *rest: Any) -> Any:
        for x in rest:
            first = fn(first, x)
        return first

    return fold


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": _many(jnp.add),
    "Mul": _many(jnp.multiply),
    "Max": _many(jnp.maximum),
    "Min": _many(jnp.minimum),
    "And": _many(jnp.logical_and),
    "Or": _many(jnp.logical_or),
    "Xor": _many(jnp.logical_xor),
    "Not": jnp.logical_not,
    "Abs": jnp.abs,
    "sign": jnp.sign,
    "exp": jnp.exp,
    "log": jnp.log,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "cot": lambda x: 1 / jnp.tan(x),
    "sec": lambda x: 1 / jnp.cos(x),
    "csc": lambda x: 1 / jnp.sin(x),
    "asin": jnp.arcsin,
    "acos": jnp.arccos,
    "atan": jnp.arctan,
    "atan2": jnp.arctan2,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "tanh": jnp.tanh,
    "coth": lambda x: 1 / jnp.tanh(x),
    "sech": lambda x: 1 / jnp.cosh(x),
    "csch": lambda x: 1 / jnp.sinh(x),
    "asinh": jnp.arcsinh,
    "acosh": jnp.arccosh,
    "atanh": jnp.arctanh,
    "erf": jax.scipy.special.erf,
    "erfc": jax.scipy.special.erfc,
    "erfinv": jax.scipy.special.erfinv,
    "loggamma": jax.scipy.special.gammaln,
    "gamma": jax.scipy.special.gamma,
    "polygamma": lambda n, x: jax.scipy.special.digamma(x) if n is None else jax.scipy.special.polygamma(n, x),
    "floor": jnp.floor,
    "ceiling": jnp.ceil,
    "Heaviside": _heaviside,
    "DiracDelta": lambda x, *_: jnp.zeros_like(x),
    "StrictGreaterThan": jnp.greater,
    "GreaterThan": jnp.greater_equal,
    "StrictLessThan": jnp.less,
    "LessThan": jnp.less_equal,
    "Equality": jnp.equal,
    "Unequality": jnp.not_equal,
}


def from_sympy(expressions: Any, symbols: Sequence[Any], dtype: Any = None) -> Callable[..., Any]:
    """The JAX function of a SymPy expression.

    Args:
      expressions: an expression, or a tree of them (lists, tuples, dicts); the function returns the same tree.
      symbols: the symbols, in the order of the function's arguments.
      dtype: of the numbers in it; by default that of the first argument.

    Arguments may be arrays, all of one shape or scalars. Equal subexpressions are computed once. Of `Piecewise` both
    sides are computed, as with `jnp.where`. The delta functions that SymPy's derivatives of `sign` and of `Heaviside`
    have are 0, as in JAX.

    >>> import sympy
    >>> x = sympy.Symbol("x")
    >>> float(from_sympy(sympy.exp(x) / 2, [x])(0.0))
    0.5

    Raises:
      NotImplementedError: the expression holds a function that JAX does not have.
      ValueError: it holds a symbol that is not in `symbols`.
    """
    sp = sympy_module()
    leaves, structure = jax.tree.flatten(expressions, is_leaf=lambda e: isinstance(e, sp.Basic))
    leaves = [sp.sympify(e) for e in leaves]
    unknown = sorted(str(s) for s in set().union(*(e.free_symbols for e in leaves)) - set(symbols)) if leaves else []
    if unknown:
        raise ValueError(f"the expression holds {', '.join(unknown)}, which is not among the symbols {list(symbols)}")
    for e in leaves:
        _check(sp, e)

    def run(*args: Any) -> Any:
        if len(args) != len(symbols):
            raise TypeError(f"{len(args)} arguments for the {len(symbols)} symbols {', '.join(map(str, symbols))}")
        xs = [jnp.asarray(a) for a in args]
        kind = dtype or next((x.dtype for x in xs if jnp.issubdtype(x.dtype, jnp.floating)), jnp.zeros(()).dtype)
        xs = [x.astype(kind) if x.dtype != bool else x for x in xs]
        cache: dict[Any, Any] = dict(zip(symbols, xs, strict=True))
        return jax.tree.unflatten(structure, [_evaluate(sp, e, cache, kind) for e in leaves])

    return run


def _check(sp: Any, e: Any) -> None:
    for part in sp.preorder_traversal(e):
        name = type(part).__name__
        plain = part.is_Symbol or part.is_number or part in (sp.true, sp.false) or part.is_Pow or part.is_Piecewise
        if not plain and name not in FUNCTIONS and name not in ("ExprCondPair", "exp_polar", "Tuple"):
            raise NotImplementedError(
                f"no JAX function for SymPy's {name} in {part}: simplify the expression, or use jax.grad"
            )


def _evaluate(sp: Any, e: Any, cache: dict[Any, Any], dtype: Any) -> Any:
    if e not in cache:
        cache[e] = _compute(sp, e, cache, dtype)
    return cache[e]


def _compute(sp: Any, e: Any, cache: Mapping[Any, Any], dtype: Any) -> Any:
    def value(part: Any) -> Any:
        return _evaluate(sp, part, cache, dtype)  # pyright: ignore[reportArgumentType]

    if e == sp.true or e == sp.false:
        return jnp.asarray(bool(e))
    if e.is_number:
        return jnp.asarray(float(e), dtype)
    if e.is_Pow:
        return _power(sp, e, value)
    if e.is_Piecewise:
        *cases, last = e.args
        total = value(last.args[0]) if last.args[1] == sp.true else jnp.asarray(jnp.nan, dtype)
        for case, test in reversed(cases if last.args[1] == sp.true else e.args):
            total = jnp.where(value(test), *_alike(value(case), total))
        return total
    name = type(e).__name__
    if name == "polygamma":
        order, x = e.args
        return FUNCTIONS[name](None if order == 0 else int(order), value(x))
    if name == "Heaviside":
        return _heaviside(value(e.args[0]), float(e.args[1]) if len(e.args) > 1 else 0.5)
    parts = [value(a) for a in e.args]
    if name in ("Mul", "Add", "Max", "Min") or len(parts) == 2:
        parts = list(_alike(*parts))
    return FUNCTIONS[name](*parts)


def _alike(*parts: Any) -> tuple[Any, ...]:
    shape = jnp.broadcast_shapes(*(jnp.shape(p) for p in parts))
    return tuple(jnp.broadcast_to(p, shape) for p in parts)


def _power(sp: Any, e: Any, value: Callable[[Any], Any]) -> Any:
    base, exponent = e.args
    if base == sp.E:
        return jnp.exp(value(exponent))
    if exponent.is_Integer:
        n = int(exponent)
        return value(base) ** n if n > 0 else 1 / value(base) ** (-n)
    if exponent == sp.Rational(1, 2):
        return jnp.sqrt(value(base))
    if exponent == sp.Rational(-1, 2):
        return jax.lax.rsqrt(value(base))
    return jnp.power(*_alike(value(base), value(exponent)))
