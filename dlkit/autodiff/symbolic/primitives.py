"""What each of JAX's primitives is in SymPy; the first argument `sp` is SymPy itself."""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["COMPARISONS", "ELEMENTWISE", "MOVEMENTS", "REDUCTIONS"]


def _half(sp: Any) -> Any:
    return sp.Rational(1, 2)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": lambda sp, a, b: a + b,
    "add_any": lambda sp, a, b: a + b,
    "sub": lambda sp, a, b: a - b,
    "mul": lambda sp, a, b: a * b,
    "div": lambda sp, a, b: a / b,
    "rem": lambda sp, a, b: a - b * (sp.sign(a / b) * sp.floor(sp.Abs(a / b))),
    "pow": lambda sp, a, b: a**b,
    "atan2": lambda sp, a, b: sp.atan2(a, b),
    "max": lambda sp, a, b: sp.Max(a, b),
    "min": lambda sp, a, b: sp.Min(a, b),
    "clamp": lambda sp, low, x, high: sp.Min(sp.Max(low, x), high),
    "neg": lambda sp, x: -x,
    "sign": lambda sp, x: sp.sign(x),
    "abs": lambda sp, x: sp.Abs(x),
    "square": lambda sp, x: x**2,
    "sqrt": lambda sp, x: sp.sqrt(x),
    "rsqrt": lambda sp, x: 1 / sp.sqrt(x),
    "cbrt": lambda sp, x: sp.sign(x) * sp.Abs(x) ** sp.Rational(1, 3),
    "exp": lambda sp, x: sp.exp(x),
    "exp2": lambda sp, x: sp.Integer(2) ** x,
    "expm1": lambda sp, x: sp.exp(x) - 1,
    "log": lambda sp, x: sp.log(x),
    "log1p": lambda sp, x: sp.log(1 + x),
    "logistic": lambda sp, x: 1 / (1 + sp.exp(-x)),
    "sin": lambda sp, x: sp.sin(x),
    "cos": lambda sp, x: sp.cos(x),
    "tan": lambda sp, x: sp.tan(x),
    "asin": lambda sp, x: sp.asin(x),
    "acos": lambda sp, x: sp.acos(x),
    "atan": lambda sp, x: sp.atan(x),
    "sinh": lambda sp, x: sp.sinh(x),
    "cosh": lambda sp, x: sp.cosh(x),
    "tanh": lambda sp, x: sp.tanh(x),
    "asinh": lambda sp, x: sp.asinh(x),
    "acosh": lambda sp, x: sp.acosh(x),
    "atanh": lambda sp, x: sp.atanh(x),
    "erf": lambda sp, x: sp.erf(x),
    "erfc": lambda sp, x: sp.erfc(x),
    "erf_inv": lambda sp, x: sp.erfinv(x),
    "lgamma": lambda sp, x: sp.loggamma(x),
    "digamma": lambda sp, x: sp.polygamma(0, x),
    "floor": lambda sp, x: sp.floor(x),
    "ceil": lambda sp, x: sp.ceiling(x),
    "is_finite": lambda sp, x: sp.true if getattr(x, "free_symbols", None) or x.is_finite else sp.false,
    "not": lambda sp, x: sp.Not(x),
    "and": lambda sp, a, b: sp.And(a, b),
    "or": lambda sp, a, b: sp.Or(a, b),
    "xor": lambda sp, a, b: sp.Xor(a, b),
    "real": lambda sp, x: x,
}

COMPARISONS: dict[str, Callable[..., Any]] = {
    "gt": lambda sp, a, b: sp.Gt(a, b),
    "ge": lambda sp, a, b: sp.Ge(a, b),
    "lt": lambda sp, a, b: sp.Lt(a, b),
    "le": lambda sp, a, b: sp.Le(a, b),
    "eq": lambda sp, a, b: sp.Eq(a, b) if a is not sp.nan else sp.false,
    # x != x is how programs test for NaN; a formula is never that.
    "ne": lambda sp, a, b: sp.Ne(a, b),
}

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_sum": lambda sp, xs: sp.Add(*xs),
    "reduce_prod": lambda sp, xs: sp.Mul(*xs),
    "reduce_max": lambda sp, xs: sp.Max(*xs),
    "reduce_min": lambda sp, xs: sp.Min(*xs),
    "reduce_and": lambda sp, xs: sp.And(*xs),
    "reduce_or": lambda sp, xs: sp.Or(*xs),
}

# How many leading operands hold the elements that are moved; the rest are indices. None: all of them.
MOVEMENTS: dict[str, int | None] = {
    "broadcast_in_dim": None,
    "concatenate": None,
    "dynamic_slice": 1,
    "expand_dims": None,
    "gather": 1,
    "reshape": None,
    "rev": None,
    "slice": None,
    "squeeze": None,
    "pad": 2,
    "transpose": None,
}


def matmul(sp: Any, a: np.ndarray, b: np.ndarray, dimension_numbers: Any) -> np.ndarray:
    """`dot_general`: batch dimensions first, then the free ones of either side."""
    (left, right), (left_batch, right_batch) = dimension_numbers
    free = [
        [k for k in range(x.ndim) if k not in (*c, *s)] for x, c, s in ((a, left, left_batch), (b, right, right_batch))
    ]
    a2, b2 = np.transpose(a, [*left_batch, *free[0], *left]), np.transpose(b, [*right_batch, *free[1], *right])
    batch = [a.shape[k] for k in left_batch]
    rows, columns = [a.shape[k] for k in free[0]], [b.shape[k] for k in free[1]]
    inner = int(np.prod([a.shape[k] for k in left], dtype=int))
    count = int(np.prod(batch, dtype=int))
    a3 = a2.reshape(count, int(np.prod(rows, dtype=int)), inner)
    b3 = b2.reshape(count, int(np.prod(columns, dtype=int)), inner)
    out = np.empty((count, a3.shape[1], b3.shape[1]), object)
    for n, i, j in np.ndindex(out.shape):
        out[n, i, j] = sp.Add(*(x * y for x, y in zip(a3[n, i], b3[n, j], strict=True)))
    return out.reshape(*batch, *rows, *columns)
