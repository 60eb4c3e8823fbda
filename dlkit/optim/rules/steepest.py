"""Steepest descent in a norm: one family, of which SGD, sign descent and Muon are three members."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, settle
from dlkit.optim.leaves import by_real, widest
from dlkit.optim.matrices import MuonDimensionNumbers, layout, newton_schulz, polar, resolve_numbers, settle_numbers
from dlkit.optim.measures import bounded_root, leaf_norm, tree_sum_sq
from dlkit.optim.rules.momentum import trace
from dlkit.optim.rules.muon import QUINTIC
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, EmptyState, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByDual", "scale_by_dual", "steepest_descent"]

Norm = Literal["l2", "linf", "spectral"]
Scaling = Literal["dual", "unit"]
Across = Literal["l2", "max"]
Orthogonalize = Literal["svd", "newton_schulz"]


@dataclass(frozen=True)
class ScaleByDual(Transform[EmptyState]):
    """u = the direction of steepest ascent in a norm: see `steepest_descent`.

    Args:
      norm: of one leaf: `"l2"`, `"linf"`, `"spectral"`.
      scaling: `"dual"` for |g|_* times the unit vector, which is minus the minimizer of -<g, d> + |d|^2 / 2; `"unit"`
        for the unit vector alone.
      across: how the norms of the leaves make one norm: `"l2"` for the root of the sum of their squares, `"max"` for
        the largest. None means `"l2"` for l2 and `"max"` for the other two.
      orthogonalize: for `"spectral"`, how U V^T is found: `"svd"`, exactly, or `"newton_schulz"`, as Muon does.
      eps: is added to the norm that Newton-Schulz divides by.
      weight_dimension_numbers: for `"spectral"`, which axes are inputs and outputs: see `muon`. None: the last axis is
        the output, all others are inputs.

    >>> grads = {"w": jnp.array([3.0, -4.0])}
    >>> for norm in ("l2", "linf"):
    ...     dual, unit = (scale_by_dual(norm, scaling=scaling) for scaling in ("dual", "unit"))
    ...     print(dual.update(grads, EmptyState())[0]["w"], unit.update(grads, EmptyState())[0]["w"])
    [ 3. -4.] [ 0.6 -0.8]
    [ 7. -7.] [ 1. -1.]

    Raises:
      ValueError: an argument is none of those listed.
    """

    norm: Norm = "l2"
    _: KW_ONLY
    scaling: Scaling = "dual"
    across: Across | None = None
    orthogonalize: Orthogonalize = "svd"
    eps: Scalar = 1e-8
    weight_dimension_numbers: Any = None

    def __post_init__(self) -> None:
        known = {
            "norm": ("l2", "linf", "spectral"),
            "scaling": ("dual", "unit"),
            "across": (None, "l2", "max"),
            "orthogonalize": ("svd", "newton_schulz"),
        }
        for name, wanted in known.items():
            if getattr(self, name) not in wanted:
                raise ValueError(f"steepest_descent: {name} is {getattr(self, name)!r}, wanted one of {wanted}")
        settle("steepest_descent", self, nonnegative=("eps",))
        numbers = settle_numbers("steepest_descent", self.weight_dimension_numbers)
        object.__setattr__(self, "weight_dimension_numbers", numbers)

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        across = self.across or ("l2" if self.norm == "l2" else "max")
        if (self.norm, self.scaling, across) == ("l2", "dual", "l2"):
            return grads, state  # |g| g / |g|
        numbers = resolve_numbers(self.weight_dimension_numbers, grads, _matrix)
        units = jax.tree.map(self._unit, grads, numbers)
        if (self.scaling, across) == ("unit", "max"):
            return units, state
        duals = jax.tree.map(_inner, grads, units)  # |g|_* of every leaf
        if across == "l2" and self.scaling == "unit":
            length = bounded_root(tree_sum_sq(duals))
            factors = jax.tree.map(lambda dual: _divide(dual, length.astype(dual.dtype)), duals)
        elif across == "l2":
            factors = duals
        else:
            total = _total(duals)
            factors = jax.tree.map(lambda dual: total.astype(dual.dtype), duals)

        def scaled(unit: Array, factor: Array) -> Array:
            with by_real(unit):
                return unit * factor.astype(unit.real.dtype)

        return jax.tree.map(scaled, units, factors), state

    def _unit(self, g: Array, numbers: Any) -> Array:
        """The unit vector of this leaf's norm that has the largest inner product with g; 0 for zero."""
        if self.norm == "linf":
            return jnp.sign(g)
        if self.norm == "l2" or numbers is None:  # the spectral norm of a single column is its length
            length = leaf_norm(g)
            return g * _divide(jnp.ones_like(length), length).astype(g.real.dtype)
        by = layout("steepest_descent", g.shape, numbers)
        x = by.to_matrices(g)
        o = polar(x) if self.orthogonalize == "svd" else newton_schulz(x, (QUINTIC,) * 5, "frobenius", self.eps)
        return by.back(o, g.shape)


def _matrix(leaf: Any) -> MuonDimensionNumbers | None:
    axes = jnp.ndim(leaf)
    return MuonDimensionNumbers(tuple(range(axes - 1)), axes - 1) if axes >= 2 else None


def _inner(g: Array, unit: Array) -> Float[Array, ""]:
    wide = widest(g.real.dtype, jnp.dtype(jnp.float32))
    return jnp.sum((g * jnp.conj(unit)).real, dtype=wide)


def _total(duals: Any) -> Float[Array, ""]:
    leaves = jax.tree.leaves(duals)
    dtype = widest(jnp.dtype(jnp.float32), *(leaf.dtype for leaf in leaves))
    return sum((leaf.astype(dtype) for leaf in leaves), start=jnp.zeros((), dtype))


def _divide(a: Array, b: Array) -> Array:
    none = b == 0
    return jnp.where(none, jnp.zeros_like(a), a / jnp.where(none, jnp.ones_like(b), b))


scale_by_dual = ScaleByDual


def steepest_descent(
    learning_rate: ScalarOrSchedule,
    norm: Norm = "l2",
    momentum: Scalar | None = None,
    nesterov: bool = False,
    *,
    scaling: Scaling = "dual",
    across: Across | None = None,
    orthogonalize: Orthogonalize = "svd",
    eps: Scalar = 1e-8,
    weight_dimension_numbers: Any = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Chain:
    """The step that lowers the linear model of the loss most, for its length in a norm of your choice.

        scaling="dual":   d = argmin of <g, d> + |d|^2 / (2 eta)  =  -eta |g|_* d*
        scaling="unit":   d = eta argmin of <g, d>, |d| <= 1      =  -eta d*

    where |g|_* = max of <g, d> over |d| <= 1 is the dual norm, and d* a d that attains it:

    | norm of a leaf                         | d*         | dual norm          | `"dual"`              | `"unit"`     |
    |----------------------------------------|------------|--------------------|-----------------------|--------------|
    | `"l2"`: the length                     | g / len(g) | l2: len(g)         | gradient descent      | normalized   |
    | `"linf"`: the largest element          | sign(g)    | l1: sum of abs(g)  | its signs, scaled     | `sign_sgd`   |
    | `"spectral"`: largest singular value   | U V^T      | nuclear: sum of S  | Muon, `adaptive=True` | Muon's step  |

    (g = U S V^T.) With `"dual"`, a loss whose curvature in this norm is at most 1 / eta is lowered by at least
    eta / 2 |g|_*^2 in every step. With `"unit"` a step has length eta however small the gradient is: a schedule has to
    lower it.

    The norms of several leaves make one norm by `across`: the root of the sum of their squares, or their maximum. With
    the maximum, `"linf"` is the l-infinity norm of all parameters taken as one vector, and d* is found leaf by leaf,
    with one dual norm, the sum of those of the leaves. With the sum of squares, l2 is the length of that vector.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      norm: of one leaf. In `"spectral"`, a vector is a matrix of one column: its norm is its length.
      momentum: v = momentum v + g stands for g; None for no velocity.
      nesterov: g + momentum v stands for v.
      scaling: `"dual"` or `"unit"`.
      across: `"l2"` or `"max"`; None means `"l2"` for l2 and `"max"` for the other two.
      orthogonalize: `"svd"`, exactly, or `"newton_schulz"`, Muon's five steps of products of matrices.
      eps: is added to the norm that Newton-Schulz divides by.
      weight_dimension_numbers: for `"spectral"`: see `muon`. None: the last axis is the output, all others are inputs.
      weight_decay: a number or a schedule: decoupled.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax, torch and Keras have none. Equal to members of the family, whose numbers it gives exactly:
    `sgd` (l2), `sign_sgd` and `signum` (linf, unit), `muon(nesterov=False)` of matrices not wider than tall (spectral,
    unit, newton_schulz, the same momentum; up to `eps`, which Muon adds to the norm of an average, not of a velocity).

    References: Boyd, Vandenberghe, "Convex optimization", 2004, section 9.4. Bernstein, Newhouse, "Old optimizer, new
    norm: an anthology", 2024. Carlson et al., "Stochastic spectral descent", 2015.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] - jnp.eye(2)) ** 2) / 2
    >>> for norm, eta in (("l2", 1.0), ("linf", 0.25), ("spectral", 0.5)):
    ...     params = {"w": jnp.array([[3.0, 0.5], [-0.5, 1.0]])}
    ...     tx = steepest_descent(eta, norm)
    ...     state = tx.init(params)
    ...     for _ in range(20):
    ...         updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...         params = optim.apply_updates(params, updates)
    ...     print(norm, bool(loss(params) < 0.05))
    l2 True
    linf True
    spectral True

    Raises:
      ValueError: an argument is none of those listed, or negative; Nesterov momentum without momentum.
    """
    if momentum is None and nesterov:
        raise ValueError("steepest_descent: nesterov=True needs a momentum, got momentum=None")
    rule = scale_by_dual(
        norm,
        scaling=scaling,
        across=across,
        orthogonalize=orthogonalize,
        eps=eps,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    velocity = () if momentum is None else (trace(momentum, nesterov),)
    decays = callable(weight_decay) or as_float("steepest_descent", "weight_decay", weight_decay)
    decay = (add_decayed_weights(weight_decay, mask),) if decays else ()
    return chain(*velocity, rule, *decay, scale_by_learning_rate(learning_rate))
