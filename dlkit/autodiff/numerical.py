"""Numerical differentiation: differences from Taylor's expansion, and the step that balances their two errors."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["evaluations", "finite_difference", "optimal_step"]

Scheme = Literal["forward", "central", "five_point", "complex_step"]
SCHEMES: tuple[Scheme, ...] = ("forward", "central", "five_point", "complex_step")

# Offsets in steps, the weight of each value, and what the weighted sum is divided by (in steps).
STENCILS = {
    "forward": ((1, 0), (1, -1), 1),
    "central": ((1, -1), (1, -1), 2),
    "five_point": ((2, 1, -1, -2), (-1, 8, -8, 1), 12),
}
# Where truncation h^p meets rounding eps/h: the best power of the machine's epsilon.
POWERS = {"forward": 1 / 2, "central": 1 / 3, "five_point": 1 / 5}
COMPLEX_STEP = 1e-20


def check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme is {scheme!r}, wanted one of {', '.join(SCHEMES)}")


def check_real(x: Any, what: str) -> None:
    """Only real floating-point numbers can be stepped away from."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path, simple=True, separator="/") or "the argument"
            raise TypeError(f"{what}: {where} is {dtype}, wanted floating point: pass 2.0 in place of 2")


def default_step(x: Any, scheme: str) -> Any:
    """For each element of `x`, eps^p max(1, |x|), p being 1/2, 1/3 or 1/5 by the order of the scheme."""
    if scheme == "complex_step":
        return jnp.full_like(x, COMPLEX_STEP)
    eps = float(jnp.finfo(x.dtype).eps)
    return jnp.asarray(eps ** POWERS[scheme], x.dtype) * jnp.maximum(jnp.abs(x), jnp.ones_like(x))


def finite_difference(fn: Callable[[Any], Any], x: Any, *, h: float | None = None, scheme: Scheme = "central") -> Any:
    """The derivative of `fn` at `x` from values of `fn` alone.

    Args:
      fn: a function of one tree of real arrays, with any tree of arrays as its output.
      x: where. Each element is moved by itself, so d numbers take d + 1 evaluations with "forward", 2 d with "central",
        4 d with "five_point" and d with "complex_step" (see `evaluations`).
      h: the step; by default eps^p max(1, |x|) for each element, with the epsilon of its dtype.
      scheme: with errors O(h), O(h^2), O(h^4), and O(h^2) without rounding error:
        "forward" (f(x+h) - f(x)) / h; "central" (f(x+h) - f(x-h)) / 2h;
        "five_point" (-f(x+2h) + 8 f(x+h) - 8 f(x-h) + f(x-2h)) / 12h;
        "complex_step" Im f(x + ih) / h (Squire and Trapp, 1998), exact to the last digits as nothing is subtracted, for
        functions that are analytic and written so that they take complex numbers.

    Returns:
      For each leaf of the output a tree like `x`, of arrays of the output's shape followed by that of the leaf of
      `x`: what `jax.jacobian` gives; so for a scalar function a tree like `x`, the gradient.

    The steps are divided by as they come out in floating point, (x+h) - x, not as they were asked for.

    >>> round(float(finite_difference(jnp.sin, 0.0)), 4)
    1.0

    Raises:
      TypeError: `x` is not real, or a complex step meets a function that gives real numbers for complex ones (abs, a
        comparison).
      ValueError: an unknown scheme, or a step that is not positive.
    """
    check_scheme(scheme)
    check_real(x, "finite_difference")
    if h is not None and not h > 0:
        raise ValueError(f"the step is {h}, wanted a positive number")
    x = jax.tree.map(jnp.asarray, x)
    return jax.jit(lambda at: jacobian_by_steps(fn, at, h, scheme))(x)


def jacobian_by_steps(fn: Callable[[Any], Any], x: Any, h: Any, scheme: Scheme) -> Any:
    leaves, structure = jax.tree.flatten(x)
    columns = []
    base = fn(x) if scheme == "forward" else None
    for k, leaf in enumerate(leaves):
        steps = jnp.full_like(leaf, h) if h is not None else default_step(leaf, scheme)

        def moved(k: int, leaf: Any) -> Any:
            around = [a.astype(leaf.dtype) if jnp.iscomplexobj(leaf) else a for a in leaves]
            return fn(jax.tree.unflatten(structure, [*around[:k], leaf, *around[k + 1 :]]))

        def column(i: Any, k: int = k, leaf: Any = leaf, steps: Any = steps) -> Any:
            hit = (jnp.arange(leaf.size) == i).reshape(leaf.shape)

            def line(to: Any) -> Any:
                return moved(k, jnp.where(hit, to, leaf.astype(to.dtype)))

            return _difference(line, jnp.ravel(leaf)[i], jnp.ravel(steps)[i], scheme, base)

        rows = jax.lax.map(column, jnp.arange(leaf.size))
        columns.append(
            jax.tree.map(lambda r, leaf=leaf: jnp.moveaxis(r, 0, -1).reshape(*r.shape[1:], *leaf.shape), rows)
        )
    outputs = jax.tree.structure(columns[0])
    by_output = zip(*(jax.tree.leaves(c) for c in columns), strict=True)
    return jax.tree.unflatten(outputs, [jax.tree.unflatten(structure, list(leaf)) for leaf in by_output])


def _difference(line: Callable[[Any], Any], x: Any, step: Any, scheme: Scheme, base: Any) -> Any:
    """The derivative of `line` at the number `x`."""
    if scheme == "complex_step":
        with jax.numpy_dtype_promotion("standard"):  # complex numbers meet the real ones that the function holds
            return jax.tree.map(lambda y: _imaginary(y) / step, line(jax.lax.complex(x, step)))
    offsets, weights, divisor = STENCILS[scheme]
    # An optimization barrier keeps the compiler from simplifying (x + h) - x to h.
    up = jax.lax.optimization_barrier(x + step)
    exact = up - x
    values = [base if o == 0 and base is not None else line(up if o == 1 else x + o * exact) for o in offsets]

    def combine(*ys: Any) -> Any:
        return sum(w * y for w, y in zip(weights, ys, strict=True)) / (divisor * exact).astype(ys[0].dtype)

    return jax.tree.map(combine, *values)


def _imaginary(y: Any) -> Any:
    if not jnp.iscomplexobj(y):
        raise TypeError(
            "complex_step: the function gave a real number for a complex one, so it is not analytic as written "
            "(abs, real, a comparison, a cast): take scheme='central'"
        )
    return jnp.imag(y)


def evaluations(count: int, scheme: Scheme) -> int:
    """How often a function of `count` numbers is evaluated for its derivative.

    >>> evaluations(1000, "forward"), evaluations(1000, "central")
    (1001, 2000)
    """
    check_scheme(scheme)
    return {"forward": count + 1, "central": 2 * count, "five_point": 4 * count, "complex_step": count}[scheme]


def optimal_step(fn: Callable[[Any], Any], x: Any, *, scheme: Scheme = "central", direction: Any = None) -> float:
    """The step at which truncation and rounding are equally small.

    Args:
      fn: a real scalar function of one tree.
      x: where.
      scheme: see `finite_difference`.
      direction: along which it is differentiated, a tree like `x`; all ones by default.

    Values carry a rounding error of about e = |f| eps / 2, which a difference divides by h. Balanced against the
    truncation, h |f''| / 2, h^2 |f'''| / 6 or h^4 |f^(5)| / 30, the best steps are 2 sqrt(e / |f''|),
    (3 e / |f'''|)^(1/3) and (45 e / (4 |f^(5)|))^(1/5); the derivatives are taken exactly. The complex step has no
    rounding error, so it can be as small as numbers are.

    >>> import jax
    >>> 1e-3 < optimal_step(jnp.exp, jnp.float32(0.0)) < 2e-2
    True

    Raises:
      TypeError: `x` is not real.
      ValueError: an unknown scheme, or the function is not scalar.
    """
    check_scheme(scheme)
    check_real(x, "optimal_step")
    if scheme == "complex_step":
        return COMPLEX_STEP
    x = jax.tree.map(jnp.asarray, x)
    v = (
        jax.tree.map(jnp.ones_like, x)
        if direction is None
        else jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), direction, x)
    )
    order = {"forward": 2, "central": 3, "five_point": 5}[scheme]

    def along(t: Any) -> Any:
        return fn(jax.tree.map(lambda a, b: a + t.astype(a.dtype) * b, x, v))

    dtype = jnp.result_type(*jax.tree.leaves(x))
    if jax.eval_shape(along, jnp.zeros((), dtype)).shape != ():
        raise ValueError("optimal_step wants a scalar function: reduce its output to one number")
    nested: list[Callable[[Any], Any]] = [along]
    for _ in range(order):
        nested.append(_slope(nested[-1]))
    zero = jnp.zeros((), dtype)
    value, first, high = jax.jit(lambda t: (nested[0](t), nested[1](t), nested[order](t)))(zero)
    size = max((float(jnp.max(jnp.abs(a))) for a in jax.tree.leaves(x)), default=0.0)
    unit, curve = float(jnp.finfo(dtype).eps) / 2, abs(float(high))
    noise = unit * abs(float(value)) or unit * abs(float(first)) * size or unit
    if curve == 0:  # a polynomial of lower degree: no truncation, so the largest step that is still local
        return max(1.0, size) * 0.1
    ratio = noise / curve
    return {"forward": 2 * ratio**0.5, "central": (3 * ratio) ** (1 / 3), "five_point": (11.25 * ratio) ** 0.2}[scheme]


def _slope(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda t: jax.jvp(fn, (t,), (jnp.ones_like(t),))[1]


def relative_errors(found: Any, exact: Any) -> float:
    """The largest difference between two trees, relative to the largest element of the exact one."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True))
    worst = max(
        (float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)))) for a, b in pairs if np.size(a)),
        default=0.0,
    )
    scale = max((float(np.max(np.abs(np.asarray(b, np.float64)))) for _, b in pairs if np.size(b)), default=0.0)
    return worst / scale if scale else worst
