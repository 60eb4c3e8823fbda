"""Curvature matrices as linear operators: products over streaming batches, blocks of them, dense when small."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dlkit import tree
from dlkit.batches import spread
from dlkit.curvature.objective import Counted, Objective, Term, as_objective, check_real, mass
from dlkit.optim.second_order import vectors

__all__ = ["Operator", "fisher_product", "gauss_newton_product", "hessian_product"]

Family = Literal["categorical", "bernoulli", "normal", "empirical"]


@dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric matrix over parameters that is known by its products: `operator(v)` is a tree like v.

    Attributes:
      size: rows of the matrix: the numbers in the block's leaves.
      params, paths: where it is taken, and the leaves that are its block, in the order of its rows.
      traces: how often products of this kind and loss were traced: once for single vectors, once for blocks of `width`
        of them. Neither more data nor a ragged last batch of a dataset adds to it.
    """

    kind: str
    objective: Objective
    params: Any
    paths: tuple[str, ...]
    width: int
    _compiled: Counted

    @property
    def size(self) -> int:
        leaves = tree.flatten(self.params)
        return sum(math.prod(jnp.shape(leaves[path])) for path in self.paths)

    @property
    def rounding(self) -> float:
        """The relative error of a product."""
        return float(jnp.finfo(vectors.scalar_dtype(self.params)).eps)

    @property
    def traces(self) -> int:
        return self._compiled.traces

    @property
    def _whole(self) -> bool:
        return len(self.paths) == len(jax.tree.leaves(self.params))

    def _block(self) -> dict[str, Any]:
        leaves = tree.flatten(self.params)
        return {path: leaves[path] for path in self.paths}

    def tree(self, vector: Any) -> Any:
        """A flat vector `[n]` as a tree: like `params`; for a block of them, a dict of leaves by path."""
        dtype = vectors.scalar_dtype(self.params)
        block = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), dtype), self._block())
        rows, start = {}, 0
        for path in sorted(block):  # the order of a dict's leaves
            shape = block[path].shape
            rows[path] = jnp.asarray(np.asarray(vector)[start : start + math.prod(shape)].reshape(shape), dtype)
            start += math.prod(shape)
        return tree.map_with_path(lambda path, _: rows[path], self.params) if self._whole else rows

    def vector(self, of: Any) -> np.ndarray:
        """A tree as a flat vector `[n]`, the inverse of `tree`.

        Raises:
          ValueError: it is no tree like the block.
        """
        like = self.params if self._whole else self._block()
        shapes = [jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.float32), t) for t in (like, of)]
        if different := tree.diff(*shapes):
            raise ValueError(f"the vector must be a tree like the {self.kind}'s block of parameters:\n{different}")
        leaves = tree.flatten(of)
        return np.concatenate([np.ravel(np.asarray(leaves[path], np.float64)) for path in sorted(self.paths)])

    def __call__(self, v: Any) -> Any:
        return self.tree(self.apply(self.vector(v)))

    def apply(self, rows: Any) -> np.ndarray:
        """Products with flat vectors: `[n]` or `[m, n]` to the same shape, float64 on the host.

        Blocks of vectors share the passes over the data, `width` at a time.
        """
        rows = np.asarray(rows)
        flat = rows.reshape(-1, self.size)
        if len(flat) == 1:
            return self._pass(flat).reshape(rows.shape)
        parts = []
        for start in range(0, len(flat), self.width):
            part = flat[start : start + self.width]
            filled = np.pad(part, ((0, self.width - len(part)), (0, 0)))
            parts.append(self._pass(filled)[: len(part)])
        return np.concatenate(parts).reshape(rows.shape) if parts else np.zeros(rows.shape)

    def _pass(self, rows: np.ndarray) -> np.ndarray:
        given = jnp.asarray(rows, vectors.scalar_dtype(self.params))
        total, weight = jnp.zeros_like(given), jnp.zeros(())
        for batch in self.objective.batches(self.params):
            total, weight = self._compiled(total, weight, given, self.params, self.objective.state, batch)
        if not float(weight) > 0:
            raise ValueError("the data hold no batch, or batches without weight")
        return np.asarray(total, np.float64) / float(weight)

    def matrix(self, *, limit: int = 5000) -> np.ndarray:
        """The matrix itself, `[n, n]` in float64, symmetric to the last digit: n products.

        Raises:
          ValueError: it has more than `limit` rows.
        """
        n = self.size
        if n > limit:
            raise ValueError(
                f"the {self.kind} has {n:,} rows, which is above limit={limit:,}: take a block of it "
                "(blocks='head/**'), top_eigenpairs or spectral_density, or a larger limit"
            )
        found = np.zeros((n, n))
        for start in range(0, n, self.width):
            rows = np.eye(min(self.width, n - start), n, start)
            found[start : start + len(rows)] = self.apply(rows)
        return (found + found.T) / 2


Linear = Callable[[Any], Any]


def _hessian(term: Term, at: Callable[[Any], Any], x: Any, state: Any, batch: Any) -> Linear:
    return jax.linearize(jax.grad(lambda x: term.value(at(x), state, batch)), x)[1]


def _through(outputs: Callable[[Any], Any], x: Any, curve: Callable[[Any], Linear]) -> Linear:
    """v -> J' C J v, C being `curve(outputs)`."""
    z, forward = jax.linearize(outputs, x)
    backward, middle = jax.linear_transpose(forward, x), curve(z)
    return lambda v: backward(middle(forward(v)))[0]


def _gauss_newton(term: Term, at: Callable[[Any], Any], x: Any, state: Any, batch: Any) -> Linear:
    outputs, loss = term.split(state, batch)
    return _through(lambda x: outputs(at(x)), x, lambda z: jax.linearize(jax.grad(loss), z)[1])


def _fisher(family: str, term: Term, at: Callable[[Any], Any], x: Any, state: Any, batch: Any) -> Linear:
    if family == "empirical":
        return _through(
            lambda x: term.each(at(x), state, batch), x, lambda z: lambda u: _shares(batch, z.shape, z.dtype) * u
        )
    outputs, _ = term.split(state, batch)
    return _through(lambda x: outputs(at(x)), x, lambda z: functools.partial(_family, family, z, batch))


def _family(family: str, z: Array, batch: Any, u: Array) -> Array:
    """The Fisher matrix of p(y | z), averaged over the examples, times u."""
    if family == "bernoulli":
        p = jax.nn.sigmoid(z)
        return _shares(batch, z.shape, z.dtype) * p * (1 - p) * u
    share = _shares(batch, z.shape[:-1], z.dtype)[..., None] if z.ndim > 1 else _shares(batch, z.shape, z.dtype)
    if family == "normal":
        return share * u
    p = jax.nn.softmax(z, axis=-1)
    return share * p * (u - jnp.sum(p * u, axis=-1, keepdims=True))


def _shares(batch: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    weight = batch.get("weight") if hasattr(batch, "get") else None
    weight = spread(weight, shape, dtype)
    total = jnp.sum(weight)
    return weight / jnp.where(total > 0, total, jnp.ones_like(total))


@functools.lru_cache(maxsize=128)
def _program(kind: str, term: Term, paths: tuple[str, ...]) -> Counted:
    def add(total: Any, weight: Any, rows: Any, params: Any, state: Any, batch: Any) -> Any:
        leaves = tree.flatten(params)
        x, back = vectors.flat({path: leaves[path] for path in paths})

        def at(x: Any) -> Any:
            chosen = back(x)
            return tree.map_with_path(lambda path, leaf: chosen.get(path, leaf), params)

        if kind == "Hessian":
            product = _hessian(term, at, x, state, batch)
        elif kind == "Gauss-Newton matrix":
            product = _gauss_newton(term, at, x, state, batch)
        else:
            product = _fisher(kind.split()[0], term, at, x, state, batch)
        much = mass(batch)
        # One after another: all at once would multiply the memory of a product by the number of vectors.
        return total + much.astype(rows.dtype) * jax.lax.map(product, rows), weight + much

    return Counted(add)


def _operator(kind: str, loss: Any, params: Any, blocks: str | Sequence[str], width: int) -> Operator:
    objective = as_objective(loss)
    check_real(kind, params)
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    paths = tuple(sorted(tree.select(params, blocks)))
    return Operator(kind, objective, params, paths, width, _program(kind, objective.term, paths))


def hessian_product(loss: Any, params: Any, *, blocks: str | Sequence[str] = "**", width: int = 16) -> Operator:
    """The Hessian of the loss as an operator: v -> H v, forward over reverse differentiation (Pearlmutter 1994).

    It is that of the whole objective, a task's regularizer included, and of the model in mode `EVAL`.

    Args:
      loss: an `Objective`, or a scalar function of the parameters.
      params: where.
      blocks: globs over paths: the rows and columns of these leaves alone, say `head/**`. Other leaves are constants,
        and nothing is differentiated in them.
      width: vectors in a pass over the data, where there are several.

    >>> hessian = hessian_product(lambda p: p["x"] ** 2 * p["y"], {"x": jnp.array(1.0), "y": jnp.array(2.0)})
    >>> hessian.matrix()
    array([[4., 2.],
           [2., 0.]])
    >>> hessian({"x": jnp.array(1.0), "y": jnp.array(0.0)})
    {'x': Array(4., dtype=float32), 'y': Array(2., dtype=float32)}

    Raises:
      TypeError: parameters that are not real and floating-point; a loss that is no real scalar.
      ValueError: a glob that matches nothing.

    Reference: Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
    """
    return _operator("Hessian", loss, params, blocks, width)


def gauss_newton_product(loss: Any, params: Any, *, blocks: str | Sequence[str] = "**", width: int = 16) -> Operator:
    """The generalized Gauss-Newton matrix J' H J, J the Jacobian of the outputs, H the loss's Hessian in them.

    It is positive semidefinite where the loss is convex in the outputs. A regularizer is left out.

    Args:
      loss: an `Objective` of a task, or one with `outputs`.
      params, blocks, width: as for `hessian_product`.

    >>> squares = Objective(lambda z, batch: jnp.mean(z**2) / 2, jnp.ones((1, 1)), outputs=lambda p, batch: p**2)
    >>> gauss_newton_product(squares, jnp.array([1.0])).matrix()  # the Hessian is 6
    array([[4.]])

    Raises:
      ValueError: the objective has no outputs; a glob that matches nothing.

    Reference: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", 2002.
    """
    return _operator("Gauss-Newton matrix", loss, params, blocks, width)


def fisher_product(
    loss: Any,
    params: Any,
    *,
    family: Family = "categorical",
    blocks: str | Sequence[str] = "**",
    width: int = 16,
) -> Operator:
    """The Fisher matrix E[g g'], g the gradient of -log p(y | outputs), y drawn from the model; no draw is made.

    Args:
      loss: an `Objective` of a task, or one with `outputs`.
      family: what the outputs are. "categorical": logits over the last axis, the mean over all others. "bernoulli": a
        logit each, the mean over all. "normal": means of variance 1, the sum over the last axis (of `[B]`: none), the
        mean over all others. "empirical": g of the loss itself at the targets, one for every value that it returns,
        which is no Fisher matrix but is often called so (Kunstner et al. 2019).
      params, blocks, width: as for `hessian_product`.

    For "categorical" it equals `gauss_newton_product` of the cross-entropy.

    Raises:
      ValueError: an unknown family; no outputs; a glob that matches nothing.

    Reference: Martens, "New insights and perspectives on the natural gradient method", 2020, section 5.
    """
    known = ("categorical", "bernoulli", "normal", "empirical")
    if family not in known:
        raise ValueError(f"fisher_product: family is {family!r}, wanted one of {', '.join(known)}")
    return _operator(f"{family} Fisher matrix", loss, params, blocks, width)
