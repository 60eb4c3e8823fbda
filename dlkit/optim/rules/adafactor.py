"""Adafactor: RMSProp that remembers a row and a column of a matrix instead of all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.blocks import clip_by_block_rms, scale_by_param_block_rms
from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, safe_increment, settle
from dlkit.optim.leaves import abs_sq, by_real, need_params, real_dtype, widest, zeros_like
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale, scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask, MaskedNode

__all__ = ["FactoredState", "ScaleByFactoredRms", "adafactor", "scale_by_factored_rms"]


class FactoredState(NamedTuple):
    """Updates so far (int32), and averages of the squared gradients: `v_row` and `v_col` for a parameter that is
    factored, `v` for any other. A `MaskedNode`, which holds nothing, stands where there is none."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    v_row: Any  # the mean over the longest axis
    v_col: Any  # the mean over the second longest axis
    v: Any


def factored_axes(shape: tuple[int, ...], factored: bool, least: int) -> tuple[int, int] | None:
    """The second longest and the longest axis, or None where the second is shorter than `least`."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape)
    return None if shape[order[-2]] < least else (int(order[-2]), int(order[-1]))


@dataclass(frozen=True)
class ScaleByFactoredRms(Transform[FactoredState]):
    """u = g / sqrt(v), where v is the average of g^2, of a matrix from averages of its rows and columns alone.

        beta = 1 - t^-decay_rate                        t = 1 in the first update
        v = beta v + (1 - beta) (g^2 + epsilon)
        of a matrix:    v = v_row v_col / mean(v_row), with v_row and v_col the means of the rows and of the columns

    A parameter with more than two axes has its two longest ones factored, and a mean for each index of the others.

    Args:
      factored: whether matrices are factored at all.
      decay_rate: the power of t.
      step_offset: is subtracted from the count, for a count that goes on from an earlier run; t is at least 1.
      min_dim_size_to_factor: the least length of the second longest axis of a parameter that is factored.
      epsilon: is added to the squares.
      decay_rate_fn: a function of count - step_offset and decay_rate that gives beta; None means the one above.

    Differences. optax: equal, the decay in float32 included, whatever the dtype of the rest; there, what is not kept
    is an array of one zero, and `step_offset` above the count gives NaN.

    Reference: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.

    >>> tx = scale_by_factored_rms(min_dim_size_to_factor=2)
    >>> params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    >>> state = tx.init(params)
    >>> state.v_row["w"].shape, state.v_col["w"].shape, state.v["b"].shape, state.v["w"]
    ((2,), (3,), (3,), MaskedNode())
    >>> tx.update({"w": jnp.full((2, 3), 4.0), "b": jnp.full(3, -4.0)}, state, params)[0]["b"]
    Array([-1., -1., -1.], dtype=float32)

    Raises:
      ValueError: a negative `decay_rate`, `epsilon` or `min_dim_size_to_factor`; from `update`, when `params` is None.
    """

    factored: bool = True
    decay_rate: Scalar = 0.8
    step_offset: int = 0
    min_dim_size_to_factor: int = 128
    epsilon: Scalar = 1e-30
    decay_rate_fn: Callable[[Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        settle("scale_by_factored_rms", self, nonnegative=("decay_rate", "epsilon"))
        for name in ("step_offset", "min_dim_size_to_factor"):
            object.__setattr__(self, name, as_count("scale_by_factored_rms", name, getattr(self, name)))

    def init(self, params: Any) -> FactoredState:
        zeros = zeros_like("scale_by_factored_rms", params, real=True)

        def without(which: int) -> Any:
            def mean(p: Array) -> Any:
                axes = factored_axes(p.shape, self.factored, self.min_dim_size_to_factor)
                return MaskedNode() if axes is None else jnp.mean(p, axis=axes[which])

            return jax.tree.map(mean, zeros)

        whole = jax.tree.map(
            lambda p: MaskedNode() if factored_axes(p.shape, self.factored, self.min_dim_size_to_factor) else p, zeros
        )
        return FactoredState(jnp.zeros((), jnp.int32), without(1), without(0), whole)

    def update(self, grads: Any, state: FactoredState, params: Any = None) -> tuple[Any, FactoredState]:
        need_params("scale_by_factored_rms", params)
        beta = self._decay(state.count)
        leaves, structure = jax.tree.flatten(grads)
        columns = [structure.flatten_up_to(of) for of in (state.v_row, state.v_col, state.v)]
        rows = [self._step(beta, g, *moments) for g, *moments in zip(leaves, *columns, strict=True)]
        updates, v_row, v_col, v = (structure.unflatten([row[i] for row in rows]) for i in range(4))
        return updates, FactoredState(safe_increment(state.count), v_row, v_col, v)

    def _decay(self, count: Int[Array, ""]) -> Float[Array, ""]:
        if self.decay_rate_fn is not None:
            return jnp.asarray(self.decay_rate_fn(count - self.step_offset, self.decay_rate))
        # In float32 at every precision: optax's is, and in float64 its rounding is what one would see.
        t = jnp.maximum(count - self.step_offset + 1, 1).astype(jnp.float32)
        return 1 - t ** as_dtype(-self.decay_rate, jnp.float32)

    def _step(self, beta: Array, g: Array, v_row: Any, v_col: Any, v: Any) -> tuple[Any, ...]:
        own = jnp.result_type(g)
        kept = (v_row if isinstance(v, MaskedNode) else v).dtype
        wide = widest(own, kept)
        g, beta = jnp.asarray(g, wide), beta.astype(real_dtype(wide))
        square = abs_sq(g) + self.epsilon
        if not isinstance(v, MaskedNode):
            v = beta * v.astype(square.dtype) + (1 - beta) * square
            return _over_root(g, v), v_row, v_col, v.astype(kept)
        axes = factored_axes(g.shape, self.factored, self.min_dim_size_to_factor)
        assert axes is not None
        second, longest = axes
        v_row = beta * v_row.astype(square.dtype) + (1 - beta) * jnp.mean(square, axis=longest)
        v_col = beta * v_col.astype(square.dtype) + (1 - beta) * jnp.mean(square, axis=second)
        mean = jnp.mean(v_row, axis=second - (second > longest), keepdims=True)
        share = v_row / jnp.broadcast_to(jnp.where(mean == 0, jnp.ones_like(mean), mean), v_row.shape)
        u = _over_root(_over_root(g, jnp.expand_dims(share, longest)), jnp.expand_dims(v_col, second))
        return u, v_row.astype(kept), v_col.astype(kept), v


scale_by_factored_rms = ScaleByFactoredRms


def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    dtype_momentum: Any = jnp.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: Scalar = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
) -> Chain:
    """Adafactor: Adam's scaling from the memory of a row and a column, in steps relative to the parameters.

        d = g / sqrt(v)                                  v from rows and columns: see `ScaleByFactoredRms`
        d = d / max(1, rms(d) / clipping_threshold)      leaf by leaf
        d = learning_rate d max(rms(p), 1e-3)            leaf by leaf
        m = momentum m + (1 - momentum) d
        p = p - (m + weight_decay_rate p)

    Args:
      learning_rate: a number, a schedule, a callable from the count to a rate; None leaves it out.
      min_dim_size_to_factor: a matrix is factored where both sides are at least as long.
      decay_rate, decay_offset: the average's decay is 1 - (t - decay_offset)^-decay_rate, t = 1 in the first update.
      multiply_by_parameter_scale: whether steps are relative to the root mean square of the parameter.
      clipping_threshold: the largest root mean square of a leaf's direction; None for no clipping.
      momentum: None for no average of the directions.
      dtype_momentum: the dtype of that average.
      weight_decay_rate: a number or a schedule; it is not multiplied by the learning rate. None for no decay.
      eps: is added to the squared gradients.
      factored: whether matrices are factored.
      weight_decay_mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax: equal. torch `Adafactor`: the rate is min(lr, 1 / sqrt(t)), every matrix is factored along its
    last two axes, eps is the machine's and bounds v from below, weight decay is multiplied by the rate. Keras
    `Adafactor`: the same rate, also factored along the last two axes. With matrices, and a schedule
    min(lr, 1 / sqrt(t)), Keras's steps are those of `adafactor(schedule, min_dim_size_to_factor=1)`.

    Reference: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adafactor(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    4.101
    3.407
    2.862

    Raises:
      ValueError: a negative argument; from `update`, when `params` is None.
    """
    links: list[Any] = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        links.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        links.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        links.append(scale_by_param_block_rms())
    if momentum is not None:  # together: m = momentum m + (1 - momentum) d
        links += [scale(1 - momentum), trace(momentum, accumulator_dtype=dtype_momentum)]
    if weight_decay_rate is not None:
        links.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*links, scale(-1.0))


def _over_root(g: Array, v: Array) -> Array:
    """g / sqrt(v), and 0 where v is 0: with `epsilon` = 0, and where it is below the dtype's least number."""
    v = jnp.broadcast_to(v, g.shape)
    with by_real(g):
        return jnp.where(v == 0, jnp.zeros_like(g), g / jnp.sqrt(jnp.where(v == 0, jnp.ones_like(v), v)))
