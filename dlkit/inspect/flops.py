"""The floating-point operations of a function, as XLA counts them in the lowered program, before it is compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

__all__ = ["flops"]


def flops(fn: Callable[..., Any], *args: Any) -> int | None:
    """The floating-point operations of `fn(*args)`, or None where XLA does not give a count.

    `args` may be arrays or `jax.ShapeDtypeStruct`s. The count is that of XLA's cost analysis of the lowered program:
    a matmul of `[m, k]` and `[k, n]` is `2 m k n`, positions of a convolution that fall on the padding are left out.
    XLA counts the body of a loop once; here a `scan` of n steps counts n times. A `while` loop, whose number of steps
    is not known beforehand, makes the answer None.

    >>> import jax.numpy as jnp
    >>> w = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    >>> flops(jnp.dot, jax.ShapeDtypeStruct((8, 64), jnp.float32), w) == 2 * 8 * 64 * 32
    True
    """
    counted = _flops_of(jax.make_jaxpr(fn)(*args))
    return round(counted) if counted else None


def _flops_of(closed: Any) -> float | None:
    # XLA's number holds one step of each loop; the other steps are added here, from the inside out.
    total = _counted_by_xla(closed)
    for scan in _loops(closed.jaxpr):
        if total is None or scan.primitive.name == "while":
            return None
        body = scan.params["jaxpr"]
        once, whole = _counted_by_xla(body), _flops_of(body)
        if once is None or whole is None:
            return None
        total += scan.params["length"] * whole - once
    return total


def _counted_by_xla(closed: Any) -> float | None:
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in closed.in_avals]
    try:
        cost = jax.jit(jaxpr_as_fun(closed)).lower(*shapes).cost_analysis()
    except (NotImplementedError, RuntimeError):  # the platform has no cost analysis before compilation
        return None
    if isinstance(cost, list | tuple):  # one entry a program, in older versions
        cost = cost[0] if cost else None
    count = (cost or {}).get("flops")
    return None if count is None or count < 0 else float(count)


def _loops(jaxpr: Any) -> Iterator[Any]:
    """The loops of a program that are not inside another loop, called functions included."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("scan", "while"):
            yield eqn
        else:
            for value in eqn.params.values():
                for inner in value if isinstance(value, list | tuple) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from _loops(inner)
