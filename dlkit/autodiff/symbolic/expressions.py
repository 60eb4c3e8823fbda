"""Formula in, formula out: a JAX function and its derivative as expressions, and either in JAX again."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.autodiff.symbolic.to_jax import from_sympy
from dlkit.autodiff.symbolic.to_sympy import Translator, sympy_module

__all__ = ["Symbolic", "symbolic", "symbolic_grad"]

MOST = 200  # symbols; larger arrays make formulas that nobody reads


@dataclass(frozen=True)
class Symbolic:
    """Formulas for the output of a function, and the same function in JAX.

    `expression` is a SymPy expression, or a tree of arrays of them; `symbols` are those of each element of each
    argument, in a tree like the arguments. `print` it, call it with arrays, or take `.latex()`.
    """

    expression: Any = field(compare=False)
    symbols: Any = field(compare=False)

    def __str__(self) -> str:
        leaves = jax.tree.leaves(self.expression)
        texts = [str(e.item() if e.ndim == 0 else e.tolist()) for e in leaves]
        return (
            texts[0]
            if len(texts) == 1
            else "\n".join(f"{path}: {text}" for path, text in zip(tree.flatten(self.expression), texts, strict=True))
        )

    def latex(self) -> str:
        """The formula for LaTeX; arrays become matrices."""
        sp = sympy_module()
        parts = [e.item() if e.ndim == 0 else sp.Array(e.tolist()) for e in jax.tree.leaves(self.expression)]
        return r",\quad ".join(sp.latex(p) for p in parts)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def __call__(self, *args: Any) -> Any:
        """The value at `args`, which have the structure and shapes that the formula was made for."""
        names = [leaf for arg in self.symbols for leaf in jax.tree.leaves(arg)]
        values = [jnp.asarray(leaf) for arg in args for leaf in jax.tree.leaves(arg)]
        if [n.shape for n in names] != [v.shape for v in values]:
            raise ValueError(
                f"the formula is for arguments of the shapes {[list(n.shape) for n in names]}, "
                f"got {[list(v.shape) for v in values]}"
            )
        flat = [s for n in names for s in n.ravel()]
        leaves, structure = jax.tree.flatten(self.expression)
        run = from_sympy([e for leaf in leaves for e in leaf.ravel().tolist()], flat)
        found = iter(run(*(x for v in values for x in jnp.ravel(v))))
        return jax.tree.unflatten(
            structure, [jnp.stack([next(found) for _ in range(e.size)]).reshape(e.shape) for e in leaves]
        )


def symbolic(fn: Callable[..., Any], *args: Any, simplify: bool = True) -> Symbolic:
    """The formula of a JAX function.

    Args:
      fn: any function of the elementary functions, `where`, `max`, sums, indexing, small matmuls, `cond`, `scan`.
      args: arrays, or shapes, for each argument; without any each is a number.
      simplify: let SymPy simplify the result.

    A number x becomes the symbol x, an array w the symbols w_0, w_1, ..., all real. Constants become exact where they
    are integers, simple fractions, or multiples of pi, e or a root. A function with a rule of its own (`custom_jvp`) is
    translated by what it computes.

    >>> print(symbolic(lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2 + x / 2))
    x/2 + 1

    Raises:
      ImportError: SymPy is missing.
      NotImplementedError: the function uses a primitive without a formula, which is named.
      ValueError: the arguments hold more than 200 numbers.
    """
    expression, symbols, frozen = _translate(fn, args)
    thawed = jax.tree.map(lambda e: _each(lambda x: _thaw(x, frozen), e), expression)
    return Symbolic(_simplified(thawed, simplify), symbols)


def symbolic_grad(
    fn: Callable[..., Any], *args: Any, argnums: int | Sequence[int] = 0, simplify: bool = True
) -> Symbolic:
    """The derivative of a scalar JAX function as a formula.

    Args:
      fn: a function as `symbolic` takes it, with one number as its output.
      args: arrays, or shapes, for each argument; without any each is a number.
      argnums: which arguments to differentiate by; for several, the result is a tuple.
      simplify: let SymPy simplify each formula. It can take long on large ones.

    What `jax.lax.stop_gradient` encloses counts as constant, as it does in JAX. At kinks SymPy's derivative of max is
    shared equally, as JAX's is; that of |x| at 0 is 0, as JAX's (which takes sign(0) = 0).

    >>> print(symbolic_grad(lambda x: x * jnp.sin(5 * x)))
    5*x*cos(5*x) + sin(5*x)

    Raises:
      ImportError: SymPy is missing.
      NotImplementedError: the function uses a primitive without a formula, which is named.
      ValueError: the function is not scalar, or the arguments hold more than 200 numbers.
    """
    expression, symbols, frozen = _translate(fn, args)
    leaves = jax.tree.leaves(expression)
    if len(leaves) != 1 or leaves[0].ndim:
        raise ValueError(
            f"symbolic_grad wants a scalar function, this one gives shapes {[list(e.shape) for e in leaves]}"
        )
    whole = leaves[0].item()

    def by(names: Any) -> Any:
        return jax.tree.map(lambda leaf: _each(lambda s: _thaw(whole.diff(s), frozen), leaf), names)

    several = not isinstance(argnums, int)
    chosen = tuple(by(symbols[i]) for i in (argnums if not isinstance(argnums, int) else (argnums,)))
    return Symbolic(_simplified(chosen if several else chosen[0], simplify), symbols)


def _each(fn: Callable[[Any], Any], array: np.ndarray) -> np.ndarray:
    out = np.empty(array.shape, object)
    for at in np.ndindex(array.shape):
        out[at] = fn(array[at])
    return out


def _thaw(e: Any, frozen: dict[Any, Any]) -> Any:
    while frozen and e.free_symbols & frozen.keys():
        e = e.xreplace(frozen)
    return e


def _simplified(expression: Any, simplify: bool) -> Any:
    sp = sympy_module()
    return jax.tree.map(lambda leaf: _each(sp.simplify, leaf), expression) if simplify else expression


def _translate(fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...], dict[Any, Any]]:
    parameters = [p for p in inspect.signature(fn).parameters.values() if p.kind is not p.VAR_KEYWORD]
    if not args:
        args = tuple(jax.ShapeDtypeStruct((), jnp.zeros(()).dtype) for p in parameters if p.default is p.empty)
    names = [
        parameters[i].name
        if i < len(parameters) and parameters[i].kind is not parameters[i].VAR_POSITIONAL
        else f"x{i + 1}"
        for i in range(len(args))
    ]
    if tree.count(args) > MOST:
        raise ValueError(
            f"the arguments hold {tree.count(args)} numbers, and formulas are for at most {MOST}: use jax.grad"
        )
    symbols = tuple(_symbols(name, arg) for name, arg in zip(names, args, strict=True))
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    translator = Translator()
    found = translator.closed(closed, [leaf for s in symbols for leaf in jax.tree.leaves(s)])
    return jax.tree.unflatten(jax.tree.structure(out), found), symbols, translator.frozen


def _symbols(name: str, arg: Any) -> Any:
    sp = sympy_module()

    def of(path: str, leaf: Any) -> np.ndarray:
        stem = "_".join(part for part in (name, path.replace("/", "_")) if part)
        shape = tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)
        out = np.empty(shape, object)
        for at in np.ndindex(shape):
            out[at] = sp.Symbol("_".join([stem, *map(str, at)]), real=True)
        return out

    return tree.map_with_path(of, arg)
