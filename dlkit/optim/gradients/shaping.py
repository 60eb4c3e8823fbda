"""Whole-gradient repairs: unit length, zero mean, no NaN, no step below zero."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise
from dlkit.optim.measures import bounded_root, tree_sum_sq
from dlkit.optim.transform import EmptyState, Transform

__all__ = [
    "Centralize",
    "Normalize",
    "NormalizeByUpdateNorm",
    "ZeroNans",
    "ZeroNansState",
    "centralize",
    "normalize",
    "normalize_by_update_norm",
    "zero_nans",
]


@dataclass(frozen=True)
class NormalizeByUpdateNorm(Transform[EmptyState]):
    """u = scale_factor g / (|g| + eps), where |g| is the length of all leaves taken as one vector.

    Differences. optax: equal; it sums bfloat16 squares in bfloat16, and `scale_factor` = 0 is NaN there.

    >>> normalize_by_update_norm(eps=0.0).update({"w": jnp.array([3.0, 4.0])}, EmptyState())[0]
    {'w': Array([0.6, 0.8], dtype=float32)}

    Raises:
      ValueError: a negative `eps`.
    """

    scale_factor: Scalar = 1.0
    eps: Scalar = 1e-6

    def __post_init__(self) -> None:
        settle("normalize_by_update_norm", self, numbers=("scale_factor",), nonnegative=("eps",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        return _over(grads, bounded_root(tree_sum_sq(grads)) + self.eps, self.scale_factor), state


@dataclass(frozen=True)
class Normalize(Transform[EmptyState]):
    """u = g / |g|, where |g| is the length of all leaves taken as one vector; zero for zero gradients.

    Differences. optax (`contrib.normalize`): equal, but NaN for zero gradients.

    >>> normalize().update({"w": jnp.array([3.0]), "b": jnp.array([4.0])}, EmptyState())[0]
    {'b': Array([0.8], dtype=float32), 'w': Array([0.6], dtype=float32)}
    """

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        return _over(grads, bounded_root(tree_sum_sq(grads)), 1.0), state


def _over(grads: Any, length: Array, factor: Any) -> Any:
    none = length == 0
    inverse = jnp.where(none, jnp.zeros_like(length), factor / jnp.where(none, jnp.ones_like(length), length))
    (updates,) = leafwise("normalize", lambda g: g * inverse.astype(g.real.dtype), grads)
    return updates


@dataclass(frozen=True)
class Centralize(Transform[EmptyState]):
    """u = g - mean(g), with a mean for every index of `unit_axis`. Scalars and vectors are left as they are.

    The paper takes the mean over the weights of one output. In dlkit's layouts, `[in, out]` and `[k, k, in, out]`,
    outputs are last: `centralize(unit_axis=-1)`. The default is optax's, which takes the mean over all axes but the
    first: right for torch's layouts, in which outputs are first.

    Reference: Yong, Huang, Hua, Zhang, "Gradient centralization: a new optimization technique for deep neural
    networks", 2020.

    >>> grads = {"w": jnp.array([[1.0, 2.0], [3.0, 6.0]])}
    >>> centralize(unit_axis=-1).update(grads, EmptyState())[0]
    {'w': Array([[-1., -2.],
           [ 1.,  2.]], dtype=float32)}

    Raises:
      ValueError: `unit_axis` is neither 0 nor -1.
    """

    unit_axis: int = 0

    def __post_init__(self) -> None:
        if self.unit_axis not in (0, -1):
            raise ValueError(f"centralize: unit_axis is {self.unit_axis}, wanted 0 or -1")

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        def step(g: Array) -> Array:
            axes = tuple(range(g.ndim))
            axes = axes[1:] if self.unit_axis == 0 else axes[:-1]
            return g if g.ndim < 2 else g - jnp.broadcast_to(jnp.mean(g, axis=axes, keepdims=True), g.shape)

        (updates,) = leafwise("centralize", step, grads)
        return updates, state


class ZeroNansState(NamedTuple):
    found_nan: Any  # for every parameter, whether its last gradient held a NaN


@dataclass(frozen=True)
class ZeroNans(Transform[ZeroNansState]):
    """u = 0 where g is NaN, and g elsewhere, infinities too. The state says which leaves held a NaN.

    A NaN in one element mostly means that the whole step is lost: skipping the step is the more careful answer.

    Differences. optax: equal.

    >>> tx = zero_nans()
    >>> updates, state = tx.update({"w": jnp.array([jnp.nan, 1.0])}, tx.init({"w": jnp.ones(2)}))
    >>> updates["w"], state.found_nan["w"]
    (Array([0., 1.], dtype=float32), Array(True, dtype=bool))
    """

    def init(self, params: Any) -> ZeroNansState:
        return ZeroNansState(jax.tree.map(lambda _: jnp.zeros((), jnp.bool_), params))

    def update(self, grads: Any, state: ZeroNansState, params: Any = None) -> tuple[Any, ZeroNansState]:
        (updates,) = leafwise("zero_nans", lambda g: jnp.where(jnp.isnan(g), jnp.zeros_like(g), g), grads)
        return updates, ZeroNansState(jax.tree.map(lambda g: jnp.any(jnp.isnan(g)), grads))


normalize_by_update_norm = NormalizeByUpdateNorm
normalize = Normalize
centralize = Centralize
zero_nans = ZeroNans
