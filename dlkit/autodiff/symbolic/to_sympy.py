"""Jaxprs as SymPy expressions: arrays become NumPy arrays of expressions, and each primitive acts on them."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from dlkit.autodiff.symbolic.primitives import COMPARISONS, ELEMENTWISE, MOVEMENTS, REDUCTIONS, matmul

__all__ = ["Translator", "sympy_module"]

INLINED = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat"}
INLINED |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
UNCHANGED = {"copy", "copy_p", "name", "optimization_barrier", "reduce_precision"}


def sympy_module() -> Any:
    try:
        import sympy
    except ImportError as error:
        raise ImportError('symbolic differentiation needs SymPy: pip install -e ".[labs]"') from error
    return sympy


def exact_number(value: Any) -> Any:
    """A SymPy number: an integer, a fraction of small terms, a multiple of pi, e; else the float as it is."""
    sp = sympy_module()
    kind = np.asarray(value).dtype
    if np.issubdtype(kind, np.bool_):
        return sp.true if value else sp.false
    number = float(value)
    if not math.isfinite(number):
        return sp.nan if math.isnan(number) else sp.oo if number > 0 else -sp.oo
    if number == int(number) and abs(number) < 1e15:
        return sp.Integer(int(number))
    dtype = np.dtype(kind) if np.issubdtype(kind, np.floating) else np.dtype(np.float64)
    small = Fraction(number).limit_denominator(1000)
    if dtype.type(small.numerator / small.denominator) == dtype.type(number):
        return sp.Rational(small.numerator, small.denominator)
    for symbol, known in ((sp.pi, math.pi), (sp.E, math.e)):
        ratio = Fraction(number / known).limit_denominator(12)
        if ratio and dtype.type(float(ratio) * known) == dtype.type(number):
            return sp.Rational(ratio.numerator, ratio.denominator) * symbol
    for square in (2, 3, 5, 6, 7, 10):
        ratio = Fraction(number / math.sqrt(square)).limit_denominator(12)
        if ratio and dtype.type(float(ratio) * math.sqrt(square)) == dtype.type(number):
            return sp.Rational(ratio.numerator, ratio.denominator) * sp.sqrt(square)
    if dtype.type(math.sqrt(2 / math.pi)) == dtype.type(number):
        return sp.sqrt(2 / sp.pi)
    text = str(np.float32(number)) if dtype == np.float32 else repr(number)
    if "e" not in text and len(text.replace(".", "").strip("-0")) <= 6:
        return sp.Rational(text)
    return sp.Float(repr(number) if dtype == np.float64 else str(np.float32(number)), 17)


def constants(value: Any) -> np.ndarray:
    """An array of numbers as an array of expressions."""
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    out = np.empty(array.shape, object)
    for at in np.ndindex(array.shape):
        out[at] = exact_number(array[at])
    return out


class Translator:
    """Walks a jaxpr. `frozen` holds the symbols that stand for what `stop_gradient` stopped, and what they are."""

    def __init__(self) -> None:
        self.sp = sympy_module()
        self.frozen: dict[Any, Any] = {}

    def walk(self, jaxpr: Any, given: Sequence[np.ndarray]) -> list[np.ndarray]:
        env: dict[Any, np.ndarray] = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))

        def read(atom: Any) -> np.ndarray:
            if isinstance(atom, Literal):
                return constants(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
            return env[atom]

        for eqn in jaxpr.eqns:
            outs = self.equation(eqn, [read(v) for v in eqn.invars])
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def closed(self, inner: Any, given: Sequence[np.ndarray]) -> list[np.ndarray]:
        consts = [constants(value) for value in getattr(inner, "consts", ())]
        return self.walk(getattr(inner, "jaxpr", inner), [*consts, *given])

    def equation(self, eqn: Any, xs: list[np.ndarray]) -> list[np.ndarray]:
        name, params = eqn.primitive.name, eqn.params
        if name in INLINED:
            inner = next(params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params)
            return self.closed(inner, xs)
        if name in UNCHANGED:
            return xs
        if name == "convert_element_type":
            return [self.convert(xs[0], eqn.invars[0].aval.dtype, params["new_dtype"])]
        if name == "stop_gradient":
            return [self.each(self.freeze, xs[0])]
        if name == "integer_pow":
            return [self.each(lambda x: x ** int(params["y"]), xs[0])]
        if name in ELEMENTWISE:
            return [self.each(lambda *v: ELEMENTWISE[name](self.sp, *v), *xs)]
        if name in COMPARISONS:
            return [self.each(lambda a, b: COMPARISONS[name](self.sp, a, b), *xs)]
        if name == "select_n":
            return [self.each(self.select, *xs)]
        if name in REDUCTIONS:
            return [self.reduce(REDUCTIONS[name], xs[0], params["axes"])]
        if name in ("cumsum", "cumprod", "cummax", "cummin"):
            return [self.scanned(name, xs[0], params)]
        if name == "dot_general":
            return [matmul(self.sp, xs[0], xs[1], params["dimension_numbers"])]
        if name == "iota":
            return [constants(_bind(eqn, []))]
        if name in MOVEMENTS:
            return self.move(eqn, xs)
        if name == "cond":
            return self.cond(params, xs)
        if name == "scan":
            return self.scan(params, xs)
        raise NotImplementedError(
            f"no formula for the primitive {name!r} in {eqn.primitive.name}("
            f"{', '.join(str(v.aval) for v in eqn.invars)}): symbolic differentiation knows the elementary functions, "
            "where, max, sums, products, indexing by constants, small matmuls, cond and scan; use jax.grad"
        )

    def each(self, fn: Callable[..., Any], *xs: np.ndarray) -> np.ndarray:
        shape = np.broadcast_shapes(*(x.shape for x in xs))
        out = np.empty(shape, object)
        wide = [np.broadcast_to(x, shape) for x in xs]
        for at in np.ndindex(shape):
            out[at] = fn(*(x[at] for x in wide))
        return out

    def freeze(self, x: Any) -> Any:
        if not getattr(x, "free_symbols", None):
            return x
        symbol = self.sp.Dummy("stopped", real=True)
        self.frozen[symbol] = x
        return symbol

    def select(self, which: Any, *cases: Any) -> Any:
        if isinstance(which, self.sp.Basic) and (which.is_Boolean or which.is_Relational):
            if which == self.sp.true or which == self.sp.false:
                return cases[1 if which == self.sp.true else 0]
            return self.sp.Piecewise((cases[1], which), (cases[0], True))
        if which.is_Integer:
            return cases[int(which)]
        pairs = [(case, self.sp.Eq(which, k)) for k, case in enumerate(cases[:-1])]
        return self.sp.Piecewise(*pairs, (cases[-1], True))

    def convert(self, x: np.ndarray, old: Any, new: Any) -> np.ndarray:
        was, now = jnp.issubdtype(old, jnp.bool_), jnp.issubdtype(new, jnp.bool_)
        if was and not now:
            one = self.sp.Integer(1)
            return self.each(lambda b: self.select(b, one * 0, one), x)
        if jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.integer):
            return self.each(lambda v: self.sp.sign(v) * self.sp.floor(self.sp.Abs(v)), x)
        return x if was or not now else self.each(lambda v: self.sp.Ne(v, 0), x)

    def reduce(self, fn: Any, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        kept = [a for a in range(x.ndim) if a not in axes]
        rows = np.transpose(x, [*kept, *axes]).reshape([x.shape[a] for a in kept] + [-1])
        out = np.empty(rows.shape[:-1], object)
        for at in np.ndindex(out.shape):
            out[at] = fn(self.sp, list(rows[at]))
        return out

    def scanned(self, name: str, x: np.ndarray, params: Any) -> np.ndarray:
        fn = REDUCTIONS[
            {"cumsum": "reduce_sum", "cumprod": "reduce_prod", "cummax": "reduce_max", "cummin": "reduce_min"}[name]
        ]
        axis, back = params["axis"], params["reverse"]
        rows = np.moveaxis(x, axis, -1)
        rows = rows[..., ::-1] if back else rows
        out = np.empty(rows.shape, object)
        for at in np.ndindex(rows.shape):
            out[at] = fn(self.sp, list(rows[at[:-1]][: at[-1] + 1]))
        return np.moveaxis(out[..., ::-1] if back else out, -1, axis)

    def move(self, eqn: Any, xs: list[np.ndarray]) -> list[np.ndarray]:
        """Primitives that only move elements: done on the positions of the elements, by JAX itself."""
        moved = MOVEMENTS[eqn.primitive.name]
        data = xs if moved is None else xs[:moved]
        pool = np.concatenate([x.ravel() for x in data]) if data else np.empty(0, object)
        positions, start = [], 0
        for x in data:
            positions.append(jnp.arange(start, start + x.size, dtype=jnp.int32).reshape(x.shape))
            start += x.size
        rest = [] if moved is None else [self.known(x, eqn) for x in xs[moved:]]
        rest = [jnp.asarray(r, v.aval.dtype) for r, v in zip(rest, eqn.invars[len(data) :], strict=True)]
        found = np.asarray(_bind(eqn, [*positions, *rest]))
        if found.size and (found.min() < 0 or found.max() >= len(pool)):
            raise NotImplementedError(f"{eqn.primitive.name} reads outside of its array, which no formula says")
        return [pool[found] if found.ndim else _single(pool[int(found)])]

    def known(self, x: np.ndarray, eqn: Any) -> np.ndarray:
        try:
            return np.vectorize(int, otypes=[np.int64])(x) if x.size else x.astype(np.int64)
        except TypeError as error:
            raise NotImplementedError(
                f"{eqn.primitive.name} with indices that depend on the variables has no formula"
            ) from error

    def cond(self, params: Any, xs: list[np.ndarray]) -> list[np.ndarray]:
        which, branches = xs[0].item(), params["branches"]
        if which.is_Integer:
            return self.closed(branches[min(max(int(which), 0), len(branches) - 1)], xs[1:])
        results = [self.closed(branch, xs[1:]) for branch in branches]
        test = _single(which)
        return [self.each(self.select, test, *cases) for cases in zip(*results, strict=True)]

    def scan(self, params: Any, xs: list[np.ndarray]) -> list[np.ndarray]:
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        carry, stacked = xs[first:last], []
        steps = range(params["length"])[:: -1 if params["reverse"] else 1]
        for step in steps:
            rows = [_single(x[step]) if not isinstance(x[step], np.ndarray) else x[step] for x in xs[last:]]
            outs = self.closed(params["jaxpr"], [*xs[:first], *carry, *rows])
            carry = outs[: last - first]
            stacked.append(outs[last - first :])
        ordered = stacked[:: -1 if params["reverse"] else 1]
        return [*carry, *(np.stack(column) for column in zip(*ordered, strict=True))]


def _single(x: Any) -> np.ndarray:
    out = np.empty((), object)
    out[()] = x
    return out


def _bind(eqn: Any, operands: Sequence[Any]) -> Any:
    out = eqn.primitive.bind(*operands, **{**eqn.params, **({"fill_value": -1} if "fill_value" in eqn.params else {})})
    return out[0] if eqn.primitive.multiple_results else out
