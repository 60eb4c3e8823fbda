"""One pass over the leaves of gradients and states: the checks and the dtypes, once for every transform."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import tree
from dlkit.optim.traced import as_dtype

__all__ = [
    "abs_sq",
    "by_real",
    "check_like",
    "check_real",
    "leafwise",
    "need_params",
    "real_dtype",
    "widest",
    "zeros_like",
]


def check_like(owner: str, problem: str, expected: Any, got: Any) -> None:
    """Raise ValueError, with the differing paths, unless both trees have the same structure and shapes."""
    wanted, structure = jax.tree.flatten(expected)
    found, other = jax.tree.flatten(got)
    if structure == other and all(jnp.shape(a) == jnp.shape(b) for a, b in zip(wanted, found, strict=True)):
        return
    raise ValueError(f"{owner}: {problem}:\n{tree.diff(_shapes(expected), _shapes(got))}")


def _shapes(of: Any) -> Any:
    # One dtype for all leaves: gradients may be kept in another precision than the parameters.
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.float32), of)


def need_params(owner: str, params: Any) -> None:
    """Raise ValueError when `update` was called without the parameters that this transform reads."""
    if params is None:
        raise ValueError(f"{owner}: it reads the parameters: call update(grads, state, params), got params=None")


def zeros_like(owner: str, params: Any, dtype: Any = None, fill: Any = 0.0, real: bool = False) -> Any:
    """A tree of moments: strongly typed, sharded as the parameters are, in their dtypes unless `dtype` is given.

    With `real`, the moments of complex parameters are real: averages of |g|^2, say.

    Raises:
      TypeError: a leaf is no floating-point or complex array, or complex where `dtype` is not.
    """

    def moment(path: str, p: Any) -> Any:
        own = jnp.result_type(p)
        if not jnp.issubdtype(own, jnp.inexact):
            raise TypeError(
                f"{owner}: it works on floating-point parameters; {path!r} is {own}. Leave it out with `masked`"
            )
        wanted = own if dtype is None else jnp.dtype(dtype)
        wanted = real_dtype(wanted) if real else wanted
        if jnp.issubdtype(own, jnp.complexfloating) and not real and jnp.issubdtype(wanted, jnp.floating):
            raise TypeError(f"{owner}: {path!r} is {own}, an average of it in {wanted} would lose its imaginary part")
        return jnp.full_like(p, as_dtype(fill, wanted), dtype=wanted)

    return tree.map_with_path(moment, params)


def real_dtype(dtype: Any) -> Any:
    """The dtype of the real part: float32 for complex64, and every real dtype itself."""
    return jnp.finfo(dtype).dtype


def abs_sq(x: Any) -> Any:
    """|x|^2, real: x * x where x is real."""
    return (x * jnp.conj(x)).real if jnp.iscomplexobj(x) else x * x


def by_real(x: Any) -> contextlib.AbstractContextManager[None]:
    """Where complex by real is meant: under strict promotion too, the one mixture of dtypes that is let through."""
    return jax.numpy_dtype_promotion("standard") if jnp.iscomplexobj(x) else contextlib.nullcontext()


def check_real(owner: str, params: Any) -> None:
    """Raise TypeError, with its path, where a parameter is complex."""
    for path, leaf in tree.flatten(params).items():
        if jnp.iscomplexobj(leaf):
            own = jnp.result_type(leaf)
            raise TypeError(f"{owner}: it works on real parameters; {path!r} is {own}. Leave it out with `masked`")


def _is_mask(of: Any) -> bool:
    return all(isinstance(leaf, bool) for leaf in jax.tree.leaves(of))


def widest(*dtypes: Any) -> Any:
    """The smallest dtype that holds all of these (jnp.promote_types refuses to mix under strict promotion)."""
    if all(dtype == dtypes[0] for dtype in dtypes):
        return dtypes[0]
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes)


def leafwise(
    owner: str, step: Callable[..., Any], grads: Any, *moments: Any, read: Sequence[Any] = ()
) -> tuple[Any, ...]:
    """`step(g, *moments, *read) -> (update, *new_moments)` on every leaf, as a tuple of trees.

    The arithmetic is done in the widest dtype of the gradient, its moments and the parameters read, and the update is
    returned in it: rounded to the dtype of a bfloat16 gradient, g + 1e-3 p would be g. Each moment is returned in its
    own dtype, so no state ever changes its type. What is real stays real beside complex gradients. `read` holds trees
    that are only read (parameters, masks).

    Raises:
      ValueError: a tree does not match the gradients; the message says which paths differ.
    """
    for moment in moments:
        check_like(owner, "the gradients do not match the state (made for other parameters?)", moment, grads)
    for other in read:
        if jax.tree.structure(other) != jax.tree.structure(grads) or not _is_mask(other):
            check_like(owner, "the gradients do not match the parameters", other, grads)
    leaves, structure = jax.tree.flatten(grads)
    columns = [jax.tree.leaves(other) for other in (*moments, *read)]
    rows = []
    for g, *others in zip(leaves, *columns, strict=True):
        own = [jnp.result_type(x) for x in (g, *others[: len(moments)])]
        beside = [jnp.result_type(x) for x in others[len(moments) :]]  # masks and integers do not count
        wide = widest(*own, *(dtype for dtype in beside if jnp.issubdtype(dtype, jnp.inexact)))
        inputs = [x if isinstance(x, bool) else _widen(x, wide) for x in (g, *others)]
        with by_real(g):
            outputs = step(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        rows.append([cast(x, dtype) for x, dtype in zip(outputs, (wide, *own[1:]), strict=True)])
    trees = zip(*rows, strict=True) if rows else [()] * (1 + len(moments))
    return tuple(jax.tree.unflatten(structure, column) for column in trees)


def _widen(x: Any, wide: Any) -> Any:
    return cast(x, wide if jnp.iscomplexobj(x) else real_dtype(wide))


def cast(x: Any, dtype: Any) -> Any:
    """`jnp.asarray(x, dtype)`, at no cost in tracing where it has nothing to do: most leaves of most trees."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return jnp.asarray(x, dtype)
