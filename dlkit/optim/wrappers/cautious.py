"""Cautious optimizers: no step against the gradient."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise, widest
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform, call_update, check_link

__all__ = ["Cautious", "CautiousState", "cautious"]


class CautiousState(NamedTuple):
    inner_state: Any


@dataclass(frozen=True)
class Cautious(Transform[CautiousState]):
    """Sets to zero what an optimizer would do against the gradient, and makes the rest of the leaf's step longer.

        agrees = u g < 0                                     element by element
        u = u agrees / max(mean(agrees), min_share)          leaf by leaf

    A momentum may point uphill for a while; its steps then wait. Around `adamw` the decay counts as part of u; the
    paper has it outside: `chain(cautious(scale_by_adam(), downhill=False), add_decayed_weights(...),
    scale_by_learning_rate(...))`.

    Args:
      inner: an optimizer or a rule.
      min_share: the least share of agreeing elements that steps are divided by.
      downhill: whether `inner`'s updates point against the gradient, as those of an optimizer do. Rules like
        `scale_by_adam` point along it: `downhill=False`, for which agrees = u g > 0.

    Differences. The paper's algorithm divides by (count of agreeing + 1) / size, its authors' code and timm's
    (`cadamw`, `clion`, ...) by max(mean, 1e-3), as here. Complex elements agree by the real part of u conj(g).

    Reference: Liang, Chen, Liu, Liu, "Cautious optimizers: improving training with one line of code", 2024.

    >>> from dlkit import optim
    >>> tx = cautious(optim.sgd(1.0, momentum=0.9))
    >>> state = tx.init({"w": jnp.ones(2)})
    >>> for grads in (jnp.array([1.0, 1.0]), jnp.array([-0.5, 1.0])):
    ...     updates, state = tx.update({"w": grads}, state)
    ...     print(updates["w"])
    [-1. -1.]
    [-0.  -3.8]

    Raises:
      TypeError: `inner` is no transform.
      ValueError: `min_share` is negative.
    """

    inner: Any
    min_share: Scalar = 1e-3
    _: KW_ONLY
    downhill: bool = True

    def __post_init__(self) -> None:
        check_link("cautious", self.inner)
        settle("cautious", self, nonnegative=("min_share",))

    def init(self, params: Any) -> CautiousState:
        return CautiousState(self.inner.init(params))

    def update(self, grads: Any, state: CautiousState, params: Any = None, **extra: Any) -> tuple[Any, CautiousState]:
        updates, inner_state = call_update(self.inner, grads, state.inner_state, params, extra)

        def step(u: Array, g: Array) -> Array:
            along = (u * jnp.conj(g)).real if jnp.iscomplexobj(u) else u * g
            agrees = (along < 0 if self.downhill else along > 0).astype(u.real.dtype)
            share = jnp.mean(agrees, dtype=widest(agrees.dtype, jnp.dtype(jnp.float32)))
            least = jnp.maximum(share, as_dtype(self.min_share, share.dtype))
            none = least == 0
            factor = jnp.where(none, jnp.zeros_like(least), 1 / jnp.where(none, jnp.ones_like(least), least))
            return u * (agrees * factor.astype(agrees.dtype))

        (updates,) = leafwise("cautious", step, updates, read=(grads,))
        return updates, CautiousState(inner_state)


cautious = Cautious
