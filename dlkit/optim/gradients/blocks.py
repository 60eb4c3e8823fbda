"""Scaling and clipping block by block: by the length of a leaf, or of each unit in it."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.measures import leaf_norm, leaf_rms, sum_sq
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import EmptyState, Transform

__all__ = [
    "AdaptiveGradClip",
    "ClipByBlockRms",
    "ScaleByParamBlockNorm",
    "ScaleByParamBlockRms",
    "adaptive_grad_clip",
    "clip_by_block_rms",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
]


@dataclass(frozen=True)
class ScaleByParamBlockNorm(Transform[EmptyState]):
    """u = g max(|p|, min_scale), leaf by leaf, with the l2 norm of the whole leaf.

    >>> params = {"w": jnp.array([3.0, 4.0])}
    >>> scale_by_param_block_norm().update({"w": jnp.array([1.0, -1.0])}, EmptyState(), params)[0]
    {'w': Array([ 5., -5.], dtype=float32)}

    Raises:
      ValueError: a negative `min_scale`; from `update`, when `params` is None.
    """

    min_scale: Scalar = 1e-3

    def __post_init__(self) -> None:
        settle("scale_by_param_block_norm", self, nonnegative=("min_scale",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("scale_by_param_block_norm", params)

        def step(g: Array, p: Array) -> Array:
            return g * leaf_norm(p, self.min_scale).astype(g.real.dtype)

        (updates,) = leafwise("scale_by_param_block_norm", step, grads, read=(params,))
        return updates, state


@dataclass(frozen=True)
class ScaleByParamBlockRms(Transform[EmptyState]):
    """u = g max(rms(p), min_scale), leaf by leaf, with the root mean square of the whole leaf.

    >>> params = {"w": jnp.array([1.0, 7.0])}
    >>> scale_by_param_block_rms().update({"w": jnp.array([1.0, -1.0])}, EmptyState(), params)[0]
    {'w': Array([ 5., -5.], dtype=float32)}

    Raises:
      ValueError: a negative `min_scale`; from `update`, when `params` is None.
    """

    min_scale: Scalar = 1e-3

    def __post_init__(self) -> None:
        settle("scale_by_param_block_rms", self, nonnegative=("min_scale",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("scale_by_param_block_rms", params)

        def step(g: Array, p: Array) -> Array:
            return g * leaf_rms(p, self.min_scale).astype(g.real.dtype)

        (updates,) = leafwise("scale_by_param_block_rms", step, grads, read=(params,))
        return updates, state


@dataclass(frozen=True)
class ClipByBlockRms(Transform[EmptyState]):
    """u = g / max(1, rms(g) / threshold), leaf by leaf: no leaf's root mean square is above the threshold.

    Differences. optax: equal, but for a threshold of 0 and a leaf of zeros, which is NaN there and 0 here. Keras's
    `clipnorm` bounds the norm of each leaf, not its root mean square.

    Reference: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.

    >>> clip_by_block_rms(1.0).update({"w": jnp.array([1.0, 7.0]), "b": jnp.array([0.5])}, EmptyState())[0]
    {'b': Array([0.5], dtype=float32), 'w': Array([0.2, 1.4], dtype=float32)}

    Raises:
      ValueError: a negative threshold.
    """

    threshold: Scalar

    def __post_init__(self) -> None:
        settle("clip_by_block_rms", self, nonnegative=("threshold",))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        def step(g: Array) -> Array:
            rms = leaf_rms(g)
            above = rms > as_dtype(self.threshold, rms.dtype)
            one = jnp.ones_like(rms)
            factor = jnp.where(above, self.threshold / jnp.where(above, rms, one), one)
            return g * jnp.where(jnp.isnan(rms), rms, factor).astype(g.real.dtype)

        (updates,) = leafwise("clip_by_block_rms", step, grads)
        return updates, state


@dataclass(frozen=True)
class AdaptiveGradClip(Transform[EmptyState]):
    """Each unit's gradient is at most `clipping` times as long as the unit's own weights.

        u = g min(1, clipping max(|p|, eps) / |g|)          |p|, |g|: l2 norms of one unit

    A unit is what feeds one output. Which axes of a leaf belong to one unit:

    | leaf                                    | a unit is                 | norms over axes |
    |-----------------------------------------|---------------------------|-----------------|
    | scalar, vector, any other with one side | all of it                 | all             |
    | `[in, out]`                             | a column                  | 0               |
    | 3 axes                                  | a slice along the first   | 0               |
    | `[k, k, in, out]`                       | the kernel of one output  | 0, 1, 2         |
    | `[k, k, k, in, out]`                    | the kernel of one output  | 0, 1, 2, 3      |

    That is right for dlkit's channels-last kernels, with one exception: a leaf of three axes is taken for a projection
    `[in, heads, width]`, as in optax. For the kernels `[k, in, out]` of one-dimensional convolutions choose them with
    `masked` and give `axis=(0, 1)`; likewise `axis=1` for the stacked `[depth, in, out]` of a scanned `Stack`.

    Args:
      clipping: the largest ratio of the norms.
      eps: what |p| is taken for where it is less, so that a unit that starts at zero may leave it.
      axis: the axes of one unit, for every leaf; None means the table above.

    Differences. optax: equal. torch and Keras have none; timm's `adaptive_clip_grad` takes torch's layout.

    Reference: Brock et al., "High-performance large-scale image recognition without normalization", 2021.

    >>> params = {"w": jnp.array([[3.0, 0.0], [4.0, 0.0]])}
    >>> grads = {"w": jnp.array([[6.0, 0.1], [8.0, 0.0]])}
    >>> adaptive_grad_clip(1.0, eps=0.5).update(grads, EmptyState(), params)[0]
    {'w': Array([[3. , 0.1],
           [4. , 0. ]], dtype=float32)}

    Raises:
      ValueError: a negative argument; from `update`, when `params` is None, or for a leaf of more than 5 axes.
    """

    clipping: Scalar
    eps: Scalar = 1e-3
    axis: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        settle("adaptive_grad_clip", self, nonnegative=("clipping", "eps"))
        if isinstance(self.axis, list):
            object.__setattr__(self, "axis", tuple(self.axis))

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        need_params("adaptive_grad_clip", params)

        def step(g: Array, p: Array) -> Array:
            axis = unit_axes(g.shape) if self.axis is None else self.axis
            of_g, of_p = (sum_sq(x, axis, keepdims=True) for x in (g, p))
            least = as_dtype(self.eps, of_p.dtype)
            # Squares are compared, and the root is taken only where the unit is too long: its slope at 0 is infinite.
            most = self.clipping * jnp.sqrt(jnp.maximum(of_p, least * least))
            long = of_g > most * most
            factor = jnp.where(long, most / jnp.sqrt(jnp.where(long, of_g, jnp.ones_like(of_g))), jnp.ones_like(of_g))
            return g * jnp.broadcast_to(factor, g.shape).astype(g.real.dtype)

        (updates,) = leafwise("adaptive_grad_clip", step, grads, read=(params,))
        return updates, state


def unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes over which the norm of one unit is taken: the table in `AdaptiveGradClip`."""
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(len(shape)))
    if len(shape) > 5:
        raise ValueError(
            f"adaptive_grad_clip: a leaf has the shape {shape}: beyond 5 axes, say with `axis=` which are one unit"
        )
    return (0,) if len(shape) <= 3 else tuple(range(len(shape) - 1))


scale_by_param_block_norm = ScaleByParamBlockNorm
scale_by_param_block_rms = ScaleByParamBlockRms
clip_by_block_rms = ClipByBlockRms
adaptive_grad_clip = AdaptiveGradClip
