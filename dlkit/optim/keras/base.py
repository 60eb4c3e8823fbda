"""What every optimizer of Keras's has: clipping in three forms, and weight decay before the step."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.gradients.clipping import clip, clip_by_global_norm, global_norm
from dlkit.optim.gradients.decay import decay_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float, safe_increment, schedule_value, settle
from dlkit.optim.leaves import leafwise, need_params
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, EmptyState, Transform, call_update, chain, check_link
from dlkit.optim.wrappers.masks import Mask, resolve_mask, settle_mask

__all__ = ["ClipEachByNorm", "DecayFirst", "DecayFirstState"]


@dataclass(frozen=True)
class ClipEachByNorm(Transform[EmptyState]):
    """g = g min(1, max_norm / |g|) for every array by itself: Keras's `clipnorm`.

    >>> tx = ClipEachByNorm(1.0)
    >>> tx.update({"w": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}, EmptyState())[0]
    {'b': Array([0.5], dtype=float32), 'w': Array([0.6, 0.8], dtype=float32)}

    Raises:
      ValueError: `max_norm` is not above 0.
    """

    max_norm: Scalar

    def __post_init__(self) -> None:
        settle("clipnorm", self, nonnegative=("max_norm",))
        if not self.max_norm:
            raise ValueError("clipnorm: max_norm is 0.0, wanted more than 0")

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        def shorten(g: Array) -> Array:
            norm = global_norm(g)
            return g * (self.max_norm / jnp.maximum(norm, self.max_norm * jnp.ones_like(norm))).astype(g.dtype)

        (updates,) = leafwise("clipnorm", shorten, grads)
        return updates, state


class DecayFirstState(NamedTuple):
    """Updates so far (int32), and the state of the inner transform."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    inner_state: Any


@dataclass(frozen=True)
class DecayFirst(Transform[DecayFirstState]):
    """Weight decay as Keras does it: p = p - learning_rate weight_decay p, then the step of `inner` from there.

    Where the step does not depend on p this is the usual decoupled decay. It differs where it does (LAMB's ratios,
    FTRL), and where the step's rate is inside a velocity, into which this decay does not go.

    Args:
      inner: an optimizer, its learning rate included.
      learning_rate: the rate of the decay: that of `inner`.
      weight_decay: a number.
      mask: which parameters decay; None for all.

    >>> from dlkit import optim
    >>> tx = DecayFirst(optim.sgd(0.1, momentum=0.9), 0.1, 0.5)
    >>> params = {"w": jnp.ones(1)}
    >>> tx.update({"w": jnp.zeros(1)}, tx.init(params), params)[0]
    {'w': Array([-0.05], dtype=float32)}

    Raises:
      TypeError: `inner` is no transform.
      ValueError: a negative `weight_decay`; from `update`, when `params` is None.
    """

    inner: Any
    learning_rate: ScalarOrSchedule
    weight_decay: Scalar
    mask: Any = None

    def __post_init__(self) -> None:
        check_link("weight decay", self.inner)
        settle("weight decay", self, schedules=("learning_rate",), nonnegative=("weight_decay",))
        object.__setattr__(self, "mask", settle_mask("weight decay", self.mask))

    def init(self, params: Any) -> DecayFirstState:
        resolve_mask(self.mask, params)
        return DecayFirstState(jnp.zeros((), jnp.int32), self.inner.init(params))

    def update(
        self, grads: Any, state: DecayFirstState, params: Any = None, **extra: Any
    ) -> tuple[Any, DecayFirstState]:
        need_params("weight decay", params)
        factor = self.weight_decay * schedule_value("weight decay", self.learning_rate, state.count)
        chosen = resolve_mask(self.mask, params)

        def shrink(p: Any, decays: bool) -> Any:
            return p - factor.astype(jnp.result_type(p)) * p if decays else p

        def step(u: Array, p: Array, decays: bool) -> Array:
            return u - factor.astype(u.dtype) * p if decays else u

        smaller = jax.tree.map(shrink, params, chosen)
        updates, inner_state = call_update(self.inner, grads, state.inner_state, smaller, extra)
        (updates,) = leafwise("weight decay", step, updates, read=(params, chosen))
        return updates, DecayFirstState(safe_increment(state.count), inner_state)


@dataclass(frozen=True)
class Base:
    """The arguments that all of Keras's optimizers share, checked."""

    owner: str
    weight_decay: Any
    clipnorm: Any
    clipvalue: Any
    global_clipnorm: Any
    mask: Any

    def clips(self) -> tuple[Any, ...]:
        given = {
            "clipnorm": (ClipEachByNorm, self.clipnorm),
            "clipvalue": (clip, self.clipvalue),
            "global_clipnorm": (clip_by_global_norm, self.global_clipnorm),
        }
        given = {name: pair for name, pair in given.items() if pair[1] is not None}
        if len(given) > 1:
            raise ValueError(f"{self.owner}: {' and '.join(given)} were given, wanted one of them")
        links = []
        for name, (kind, limit) in given.items():
            limit = as_float(self.owner, name, limit)
            if isinstance(limit, float) and limit < 0:
                raise ValueError(f"{self.owner}: {name} is {limit}, wanted 0 or more")
            links += [kind(limit)] if limit else []  # 0 means no clipping to Keras
        return tuple(links)

    def after(self, *direction: Any, rate: ScalarOrSchedule) -> Chain:
        """A direction that does not depend on p, then the decay and the rate."""
        decay = decay_links(0.0 if self.weight_decay is None else self.weight_decay, self.mask)
        return chain(*self.clips(), *direction, *decay, scale_by_learning_rate(rate))

    def before(self, *step: Any, rate: ScalarOrSchedule) -> Chain:
        """A whole step that starts from the decayed p."""
        decay = 0.0 if self.weight_decay is None else as_float(self.owner, "weight_decay", self.weight_decay)
        if not decay:
            return chain(*self.clips(), *step)
        return chain(*self.clips(), DecayFirst(chain(*step), rate, decay, self.mask))


def base(owner: str, weight_decay: Any, clipnorm: Any, clipvalue: Any, global_clipnorm: Any, mask: Mask) -> Base:
    return Base(owner, weight_decay, clipnorm, clipvalue, global_clipnorm, mask)
