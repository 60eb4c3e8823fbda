"""torch's Adafactor: the average of squared gradients of a matrix, from those of its rows and columns."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, safe_increment, schedule_value, settle
from dlkit.optim.leaves import check_like, need_params, widest, zeros_like
from dlkit.optim.scaling import ScaleByLearningRateState
from dlkit.optim.torch.base import Times, ascent, pair
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["FactoredRms", "FactoredRmsState", "adafactor"]


class FactoredRmsState(NamedTuple):
    """Averages of squared gradients: of rows and columns from two axes on, of every element below; else a 0."""

    rate: ScaleByLearningRateState  # updates so far, and the rate last used
    row: Any
    column: Any
    full: Any


@dataclass(frozen=True)
class FactoredRms(Transform[FactoredRmsState]):
    """Adafactor's step, rate included: see `adafactor`, and `optim.keras.adafactor` for `eps_in_square`.

    Raises:
      ValueError: a positive `beta2_decay`, a `d` below 1, or another negative argument; from `update`, when `params`
        is None.
    """

    learning_rate: ScalarOrSchedule = 1e-2
    beta2_decay: Scalar = -0.8
    eps1: Scalar | None = None
    eps2: Scalar = 1e-3
    d: Scalar = 1.0
    _: KW_ONLY
    eps_in_square: bool = False

    def __post_init__(self) -> None:
        eps1 = () if self.eps1 is None else ("eps1",)
        settle(
            "adafactor",
            self,
            schedules=("learning_rate",),
            numbers=("beta2_decay", "d"),
            nonnegative=(*eps1, "eps2"),
        )
        if isinstance(self.beta2_decay, float) and self.beta2_decay > 0:
            raise ValueError(f"adafactor: beta2_decay is {self.beta2_decay}, wanted 0 or less")
        if isinstance(self.d, float) and self.d < 1:
            raise ValueError(f"adafactor: d is {self.d}, wanted 1 or more")

    def init(self, params: Any) -> FactoredRmsState:
        zeros = zeros_like("adafactor", params)
        count = jnp.zeros((), jnp.int32)
        rate = schedule_value("adafactor", self.learning_rate, count).astype(jnp.float32)
        return FactoredRmsState(
            ScaleByLearningRateState(count, rate),
            jax.tree.map(lambda z: z.sum(-1, keepdims=True) if z.ndim > 1 else z.sum(), zeros),
            jax.tree.map(lambda z: z.sum(-2, keepdims=True) if z.ndim > 1 else z.sum(), zeros),
            jax.tree.map(lambda z: z.sum() if z.ndim > 1 else z, zeros),
        )

    def update(self, grads: Any, state: FactoredRmsState, params: Any = None) -> tuple[Any, FactoredRmsState]:
        need_params("adafactor", params)
        check_like("adafactor", "the gradients do not match the parameters", params, grads)
        count = safe_increment(state.rate.count)
        base = schedule_value("adafactor", self.learning_rate, state.rate.count)
        t = count.astype(base.dtype)
        share = jnp.power(t, as_dtype(self.beta2_decay, t.dtype))  # the weight of the new squares
        rho = jnp.minimum(base, 1 / jnp.sqrt(t))

        leaves, structure = jax.tree.flatten(grads)
        columns = [jax.tree.leaves(other) for other in (params, state.row, state.column, state.full)]
        rows = [self._leaf(share, rho, *row) for row in zip(leaves, *columns, strict=True)]
        parts = list(zip(*rows, strict=True)) if rows else [()] * 4
        updates, *moments = (jax.tree.unflatten(structure, part) for part in parts)
        rate = ScaleByLearningRateState(count, rho.astype(jnp.float32))
        return updates, FactoredRmsState(rate, *moments)

    def _leaf(self, share: Array, rho: Array, g: Any, p: Any, row: Any, column: Any, full: Any) -> tuple[Any, ...]:
        dtype = jnp.result_type(full)
        eps1 = jnp.finfo(jnp.result_type(p)).eps if self.eps1 is None else self.eps1
        wide = widest(jnp.result_type(g), jnp.result_type(p), dtype)
        g, p, row, column, full, share, rho = (jnp.asarray(x, wide) for x in (g, p, row, column, full, share, rho))
        square = g * g + eps1 if self.eps_in_square else g * g
        if g.ndim > 1:
            row = row + share * (jnp.mean(square, axis=-1, keepdims=True) - row)
            column = column + share * (jnp.mean(square, axis=-2, keepdims=True) - column)
            mean = jnp.mean(row, axis=-2, keepdims=True)
            estimate = row / (mean if self.eps_in_square else jnp.maximum(mean, as_dtype(eps1, wide))) * column
        else:
            estimate = full = full + share * (square - full)
        if not self.eps_in_square:
            estimate = jnp.maximum(estimate, as_dtype(eps1, wide) * as_dtype(eps1, wide))
        u = g / jnp.sqrt(estimate)
        size = jnp.maximum(_rms(p), as_dtype(self.eps2, wide))
        u = -(rho * size / jnp.maximum(_rms(u) / self.d, jnp.ones((), wide))) * u
        return u, row.astype(dtype), column.astype(dtype), full.astype(dtype)


def _rms(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x)) / math.sqrt(max(x.size, 1))


def adafactor(
    lr: ScalarOrSchedule = 1e-2,
    beta2_decay: Scalar = -0.8,
    eps: tuple[Scalar | None, Scalar] = (None, 1e-3),
    d: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    *,
    maximize: bool = False,
    mask: Mask = None,
) -> Chain:
    """torch.optim.Adafactor: Adam's scaling at the memory of a row and a column, steps in proportion to |p|.

        w = t^beta2_decay                                t = 1 in the first update
        r = r + w (mean over columns of g^2 - r)         c = c + w (mean over rows of g^2 - c)
        n = r c / max(mean(r), eps1)                     of a vector: n = n + w (g^2 - n)
        u = g / sqrt(max(n, eps1^2))
        p = p - lr weight_decay p - max(eps2, rms(p)) min(lr, 1 / sqrt(t)) u / max(1, rms(u) / d)

    Rows and columns are those of the last two axes.

    Args:
      lr: the upper limit of the relative rate, or a schedule.
      beta2_decay: the power with which new squares lose weight; 0 or less.
      eps: eps1 and eps2 above; None for eps1 means the resolution of the parameter's dtype.
      d: the root mean square above which u is shortened.
      weight_decay: decoupled.
      maximize: climb instead of descending.
      mask: which parameters decay; None for all.

    Differences. `optim.adafactor`, optax's, is another set of choices (thresholds of factoring, clipping, momentum).

    Reference: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = adafactor(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    1.507
    0.780
    0.458

    Raises:
      ValueError: as `FactoredRms`, or a negative `weight_decay`.
    """
    eps1, eps2 = pair("adafactor", "eps", eps)
    decay = as_float("adafactor", "weight_decay", weight_decay)
    if isinstance(decay, float) and not decay >= 0:
        raise ValueError(f"adafactor: weight_decay is {decay}, wanted 0 or more")
    shrink = (add_decayed_weights(Times(lr, -decay), mask),) if decay else ()
    return chain(*ascent(maximize), FactoredRms(lr, beta2_decay, eps1, eps2, d), *shrink)
