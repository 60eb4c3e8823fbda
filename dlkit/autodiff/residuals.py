"""What reverse mode keeps from the forward pass for the backward pass, and what `remat` changes about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.table import Table, nbytes, table

__all__ = ["Residual", "Residuals", "compare_remat", "residuals"]


@dataclass(frozen=True)
class Residual:
    """One array that is kept: which operation made it, in which `jax.named_scope`; "argument x" for an input."""

    source: str
    scope: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class Residuals:
    """All arrays that are kept; `print` it. `nbytes` counts all, `computed` those that are no arguments."""

    rows: tuple[Residual, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of everything that is kept, arguments included."""
        return sum(r.nbytes for r in self.rows)

    @property
    def computed(self) -> int:
        """The bytes of the intermediate results alone: the arguments are in memory anyway."""
        return sum(r.nbytes for r in self.rows if not r.source.startswith("argument"))

    def table(self) -> Table:
        """A row for each array."""
        rows = [(r.source, r.scope, f"{r.dtype}{list(r.shape)}", nbytes(r.nbytes)) for r in self.rows]
        note = f"{nbytes(self.nbytes)} in all, {nbytes(self.computed)} of it computed"
        return table("kept for the backward pass", ("made by", "scope", "array", "bytes"), rows, note)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def residuals(fn: Callable[..., Any], *args: Any) -> Residuals:
    """What reverse mode saves when it differentiates `fn(*args)`, by every argument that is floating point.

    Args:
      fn: any function, with `jax.checkpoint` inside or around it where wanted.
      args: trees of arrays or of `jax.ShapeDtypeStruct`s; nothing is computed.

    Read off the program that JAX makes of `jax.vjp`, before XLA sees it: XLA may fuse what is made into what uses it,
    and so keep less. Arrays that the function closes over are parts of the program, and not listed. An array that is
    needed twice is kept, and listed, once.

    >>> kept = residuals(lambda x: jnp.sum(jnp.sin(x) ** 2), jax.ShapeDtypeStruct((100,), "float32"))
    >>> print(kept)
    kept for the backward pass
    made by  scope  array         bytes
    -----------------------------------
    cos             float32[100]  400 B
    mul             float32[100]  400 B
    800 B in all, 800 B of it computed

    Raises:
      ValueError: no argument is floating point.
    """
    flat, structure = jax.tree.flatten(args)
    moving = [
        k
        for k, leaf in enumerate(flat)
        if jnp.issubdtype(leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf), jnp.inexact)
    ]
    if not moving:
        raise ValueError("residuals: no argument is floating point, so there is nothing to differentiate by")
    names = [f"argument {i}" + (f"/{path}" if path else "") for i, a in enumerate(args) for path in tree.flatten(a)]

    def back(*leaves: Any) -> Any:
        def of(part: list[Any]) -> Any:
            at = list(leaves)
            for k, x in zip(moving, part, strict=True):
                at[k] = x
            return fn(*jax.tree.unflatten(structure, at))

        return jax.tree.leaves(jax.vjp(of, [leaves[k] for k in moving])[1])

    closed = jax.make_jaxpr(back)(*flat)
    known = dict(zip(closed.jaxpr.invars, names, strict=True))
    made = {v: eqn for eqn in closed.jaxpr.eqns for v in eqn.outvars}
    rows: dict[Any, Residual] = {}
    for var in closed.jaxpr.outvars:
        if hasattr(var, "val") or var in closed.jaxpr.constvars or var in rows or not hasattr(var.aval, "shape"):
            continue
        if var in known:
            source, scope = known[var], ""
        else:
            source, scope = _origin(made[var], var)
        dtype = var.aval.dtype
        size = int(np.prod(var.aval.shape, dtype=np.int64)) * getattr(dtype, "itemsize", 1)
        rows[var] = Residual(source, scope, tuple(var.aval.shape), str(dtype), size)
    return Residuals(tuple(rows.values()))


def _origin(eqn: Any, var: Any) -> tuple[str, str]:
    """The operation that made a variable, looked up inside calls, and its scope without marks of transformations."""
    inner, scopes = eqn, []
    while True:
        scopes += list(_segments(str(inner.source_info.name_stack)))
        body = inner.params.get("jaxpr") if inner.primitive.name in ("jit", "pjit", "closed_call") else None
        if body is None:
            return inner.primitive.name, "/".join(scopes)
        out = body.jaxpr.outvars[inner.outvars.index(var)]
        nested = [e for e in body.jaxpr.eqns if out in e.outvars] if not hasattr(out, "val") else []
        if not nested:
            return inner.params.get("name", inner.primitive.name), "/".join(scopes)
        inner, var = nested[0], out


def _segments(stack: str) -> Iterator[str]:
    for part in stack.split("/"):
        while part.endswith(")") and "(" in part:
            part = part[part.index("(") + 1 : -1]
        if part:
            yield part


def compare_remat(fn: Callable[..., Any], *args: Any, policy: Any = None) -> Table:
    """What `jax.checkpoint` changes for the gradient of a scalar function: what is kept, what is computed, and the
    result.

    Args:
      fn: a scalar function of `args`, arrays; differentiated by the first.
      args: its arguments.
      policy: one of `jax.checkpoint_policies`, which says what is kept all the same.

    FLOPs are those of the value and the gradient as XLA counts them before it optimizes; the body of a loop counts
    once.

    >>> def f(x):
    ...     for _ in range(4):
    ...         x = jnp.sin(x)
    ...     return jnp.sum(x)
    >>> found = compare_remat(f, jnp.ones(100))
    >>> found.column("computed and kept")
    ('1.6 KiB', '0 B')

    Raises:
      ValueError: no argument is floating point.
    """
    rematted = jax.checkpoint(fn, policy=policy)
    rows, found = [], []
    for name, f in (("as it is", fn), ("with remat", rematted)):
        kept = residuals(f, *args)
        gradient = jax.jit(jax.value_and_grad(f))
        lowered = gradient.lower(*args)
        cost = lowered.cost_analysis() or {}
        cost = cost[0] if isinstance(cost, list | tuple) else cost
        found.append(gradient(*args)[1])
        rows.append((name, nbytes(kept.computed), nbytes(kept.nbytes), f"{cost.get('flops', float('nan')):,.0f}"))
    pairs = zip(*(jax.tree.leaves(g) for g in found), strict=True)
    apart = max((float(jnp.max(jnp.abs(a - b))) for a, b in pairs if jnp.size(a)), default=0.0)
    note = f"largest difference of the gradients: {apart:.1e}"
    return table("remat", ("function", "computed and kept", "kept in all", "FLOPs of value and gradient"), rows, note)
