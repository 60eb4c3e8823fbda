"""A function on the scores of attention, for all the forms that compute them.

It is written for one score and traced once, as a program on numbers. What it reads from outside, such as a table of
biases that is learned, becomes an argument of that program, so that it has a gradient wherever the program runs: in a
block, in a row, or on all scores at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array

__all__ = ["NO_MOD", "Held", "Mod", "ScoreMod", "traced_mod"]

ScoreMod: TypeAlias = Callable[[Array, Array, Array, Array, Array], Array]

Held: TypeAlias = tuple[tuple[Array, ...], tuple[Array, ...]]  # what it reads: floating point, and other


class Mod(NamedTuple):
    """The program, static; None leaves the scores as they are."""

    program: Any
    floating: tuple[bool, ...]  # which of its constants are

    def __call__(self, held: Held, s: Array, b: Array, h: Array, i: Array, j: Array) -> Array:
        """Scores `[B, H_kv, G, T, S]` of b `[B]`, h `[H_kv, G]`, i `[T]` or `[B, T]`, and j `[S]`."""
        if self.program is None:
            return s
        floats, others = (list(part) for part in held)
        constants = [(floats if f else others).pop(0) for f in self.floating]
        run = jaxpr_as_fun(ClosedJaxpr(self.program, constants))
        one: Any = lambda *args: run(*args)[0]  # noqa: E731
        # An axis at a time, and each number only over the axes it has: `table[h]` is read once a head.
        rows = 0 if i.ndim == 2 else None
        of_head = (0, None, 0, None, None)
        for axes in ((0, None, None, None, 0), (0, None, None, 0, None), of_head, of_head, (0, 0, None, rows, None)):
            one = jax.vmap(one, axes)
        return one(s, b, h, i, j)


NO_MOD = Mod(None, ())


def traced_mod(who: str, score_mod: ScoreMod | None, dtype: Any) -> tuple[Mod, Held]:
    """`score_mod` as a program on one score of `dtype`, and the arrays that it reads."""
    if score_mod is None:
        return NO_MOD, ((), ())
    number = jax.ShapeDtypeStruct((), jnp.int32)
    closed, out = jax.make_jaxpr(score_mod, return_shape=True)(jax.ShapeDtypeStruct((), dtype), *[number] * 4)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != () or out.dtype != dtype:
        got = f"{out.dtype}{list(out.shape)}" if isinstance(out, jax.ShapeDtypeStruct) else type(out).__name__
        raise ValueError(
            f"{who}: score_mod returned {got} for one score, {jnp.dtype(dtype)}[]; want one score of that dtype, "
            "from score_mod(score, batch, head, query, key), each a number"
        )
    constants = [jnp.asarray(c) for c in closed.consts]
    floating = tuple(bool(jnp.issubdtype(c.dtype, jnp.inexact)) for c in constants)
    floats, others = (tuple(c for c, f in zip(constants, floating, strict=True) if f is kind) for kind in (True, False))
    return Mod(closed.jaxpr, floating), (floats, others)
