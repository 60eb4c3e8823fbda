"""Clipping: each element of the gradient, or its length."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise, widest
from dlkit.optim.report import find_states
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import EmptyState, Transform

__all__ = [
    "Clip",
    "ClipByGlobalNorm",
    "ClipByGlobalNormState",
    "clip",
    "clip_by_global_norm",
    "global_norm",
    "gradient_norm",
]


def global_norm(tree: Any) -> Float[Array, ""]:
    """sqrt(sum of all squares): the length of all leaves taken as one vector. 0 for a tree without leaves.

    The squares are summed in float32 (in float64 where a leaf is float64): a bfloat16 sum would stop growing at 256
    ones.

    >>> global_norm({"w": jnp.array([3.0]), "b": jnp.array([4.0], jnp.bfloat16)})
    Array(5., dtype=float32)
    """
    leaves = [part for leaf in jax.tree.leaves(tree) for part in _real(leaf)]
    dtype = widest(jnp.dtype(jnp.float32), *(jnp.result_type(leaf) for leaf in leaves))
    total = jnp.zeros((), dtype)
    for leaf in leaves:
        total += jnp.sum(jnp.square(jnp.asarray(leaf, dtype)))
    return jnp.sqrt(total)


def _real(leaf: Any) -> list[Any]:
    """|a + ib|^2 = a^2 + b^2."""
    return [jnp.real(leaf), jnp.imag(leaf)] if jnp.iscomplexobj(leaf) else [leaf]


@dataclass(frozen=True)
class Clip(Transform[EmptyState]):
    """u = min(max(g, -max_delta), max_delta), element by element. Infinities are clipped too, NaN stays NaN.

    optax: `clip`; torch: `clip_grad_value_`; Keras: `clipvalue`.

    >>> clip(1.0).update({"w": jnp.array([-3.0, 0.5])}, EmptyState())[0]
    {'w': Array([-1. ,  0.5], dtype=float32)}

    Raises:
      ValueError: `max_delta` is negative.
    """

    max_delta: Scalar

    def __post_init__(self) -> None:
        settle("clip", self, nonnegative=("max_delta",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        (updates,) = leafwise(
            "clip", lambda g: jnp.clip(g, -as_dtype(self.max_delta, g.dtype), as_dtype(self.max_delta, g.dtype)), grads
        )
        return updates, state


class ClipByGlobalNormState(NamedTuple):
    norm: Float[Array, ""]  # float32: the norm of the last gradients, before clipping; 0 before the first update


@dataclass(frozen=True)
class ClipByGlobalNorm(Transform[ClipByGlobalNormState]):
    """u = g * min(1, max_norm / norm), where norm is the length of all gradients taken as one vector.

    The norm before clipping stays in the state, and `gradient_norm(opt_state)` finds it. The corner cases:

    | gradients                          | updates                                                       | norm |
    |------------------------------------|---------------------------------------------------------------|------|
    | all zero, any `max_norm`           | zero                                                          | 0    |
    | any finite, `max_norm` = 0         | zero                                                          | norm |
    | an infinite element                | that element stays infinite, the finite ones become 0         | inf  |
    | finite, squares overflow float32   | zero: the step is skipped rather than taken at full length    | inf  |
    | a NaN                              | as they came                                                  | NaN  |

    So nothing that is not finite is hidden (put `optax.apply_if_finite` around to skip such steps), and none is made.

    Differences. optax: NaN for zero gradients with `max_norm` = 0; the norm in the gradients' dtype and not kept.
    torch `clip_grad_norm_`: max_norm / (norm + 1e-6), so a clipped gradient is shorter by up to 1e-6 / norm.
    Keras `global_clipnorm` equals this; its `clipnorm` is per leaf.

    Reference: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013.

    >>> tx = clip_by_global_norm(1.0)
    >>> updates, state = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(None))
    >>> updates["w"], gradient_norm(state)
    (Array([0.6, 0.8], dtype=float32), Array(5., dtype=float32))

    Raises:
      ValueError: `max_norm` is negative.
    """

    max_norm: Scalar

    def __post_init__(self) -> None:
        settle("clip_by_global_norm", self, nonnegative=("max_norm",))

    def init(self, params: Any) -> ClipByGlobalNormState:
        return ClipByGlobalNormState(jnp.zeros((), jnp.float32))

    def update(self, grads: Any, state: ClipByGlobalNormState, params: Any = None) -> tuple[Any, ClipByGlobalNormState]:
        norm = global_norm(grads)
        long = norm > self.max_norm
        # The inner `where` keeps 0 / 0 out of the branch that is not taken, and so out of its gradient.
        factor = jnp.where(long, self.max_norm / jnp.where(long, norm, jnp.ones_like(norm)), jnp.ones_like(norm))

        def shorten(g: Array) -> Array:
            return jnp.where(jnp.isinf(g), g, g * factor.astype(g.dtype))

        (updates,) = leafwise("clip_by_global_norm", shorten, grads)
        return updates, ClipByGlobalNormState(norm.astype(jnp.float32))


clip = Clip
clip_by_global_norm = ClipByGlobalNorm


def gradient_norm(opt_state: Any) -> Float[Array, "..."]:
    """The norm of the last gradients before clipping, from the state of an optimizer with `clip_by_global_norm`.

    Raises:
      ValueError: the state holds no such norm, or more than one.
    """
    found = find_states(opt_state, ClipByGlobalNormState)
    if len(found) != 1:
        raise ValueError(
            f"gradient_norm: the optimizer state holds {len(found) or 'no'} norms: wanted one clip_by_global_norm in it"
        )
    return next(iter(found.values())).norm
