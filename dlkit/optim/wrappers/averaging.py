"""The average of the parameters over a run: exponential, or of all of them alike (Polyak, SWA)."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.optim.hyper import Scalar, as_count, safe_increment, settle
from dlkit.optim.leaves import by_real, check_like, need_params, real_dtype, widest
from dlkit.optim.report import find_states
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Transform

__all__ = ["AverageParams", "AverageParamsState", "average_params", "averaged_params"]


class AverageParamsState(NamedTuple):
    """Updates so far and parameters in the average (int32), and the average, in float32 at least."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    averaged: Int[Array, ""]
    average: Any


@dataclass(frozen=True)
class AverageParams(Transform[AverageParamsState]):
    """Keeps an average of the parameters in its state, and leaves the updates as they are. The last link of a chain.

        n-th parameters that count (n = 0, 1, ...): average = w average + (1 - w) p, with w = 0 for n = 0, then
        decay=None:    w = n / (n + 1)                      the mean of all of them: Polyak averaging, SWA
        decay=d:       w = d                                exponential; starts at the first parameters that count
        warmup=True:   w = min(d, (1 + n) / (10 + n))       so that the first ones are forgotten sooner

    `averaged_params(opt_state, params)` reads it. p are the parameters *after* the update, so no link may follow that
    changes the updates. A model with `BatchNorm` needs statistics of its own: `train.update_batch_norm`.

    Args:
      decay: None, or the weight of the old average.
      start: the first update (counted from 0) that counts. Until then the average is the parameters themselves.
      every: from `start` on, every so many updates count: an epoch's, for SWA.
      warmup: see above.

    Differences. torch `swa_utils.AveragedModel`: the mean, or with `get_ema_multi_avg_fn(d)` the exponential one; the
    same numbers. Keras `use_ema`: starts at the initial parameters. timm `ModelEmaV3`: warm-up by a power. optax:
    `ema` and `incremental_update`, by hand.

    References: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992. Izmailov et al.,
    "Averaging weights leads to wider optima and better generalization", 2018.

    >>> from dlkit import optim
    >>> tx = optim.chain(optim.sgd(1.0), average_params())
    >>> params = {"w": jnp.zeros(1)}
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update({"w": -jnp.ones(1)}, state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(params["w"], averaged_params(state, params)["w"])
    [1.] [1.]
    [2.] [1.5]
    [3.] [2.]

    Raises:
      ValueError: `decay` outside of [0, 1), `warmup` without it, a negative `start`; from `update`, `params` is None.
    """

    decay: Scalar | None = None
    _: KW_ONLY
    start: int = 0
    every: int = 1
    warmup: bool = False

    def __post_init__(self) -> None:
        if self.decay is not None:
            settle("average_params", self, decays=("decay",))
        elif self.warmup:
            raise ValueError("average_params: warmup=True needs a decay")
        object.__setattr__(self, "start", as_count("average_params", "start", self.start))
        object.__setattr__(self, "every", as_count("average_params", "every", self.every, 1))

    def init(self, params: Any) -> AverageParamsState:
        count, averaged = (jnp.zeros((), jnp.int32) for _ in range(2))
        return AverageParamsState(count, averaged, jax.tree.map(lambda p: jnp.array(p, _wide(p), copy=True), params))

    def update(self, grads: Any, state: AverageParamsState, params: Any = None) -> tuple[Any, AverageParamsState]:
        need_params("average_params", params)
        check_like(
            "average_params", "the updates do not match the state (made for other parameters?)", state.average, grads
        )
        check_like("average_params", "the parameters do not match the state", state.average, params)
        counts = jnp.logical_and(state.count >= self.start, (state.count - self.start) % self.every == 0)
        weight = jnp.where(state.averaged == 0, 0.0, self._weight(state.averaged.astype(jnp.result_type(float))))
        weight = jnp.where(counts, weight, jnp.where(state.averaged == 0, 0.0, 1.0))  # before it starts: p itself

        def mix(old: Any, p: Any, u: Any) -> Any:
            own = jnp.result_type(p)
            sum_dtype = widest(own, jnp.result_type(u))
            # As `apply_updates` does it: the parameters that are used.
            new = (jnp.asarray(p, sum_dtype) + jnp.asarray(u, sum_dtype)).astype(own).astype(old.dtype)
            w = weight.astype(real_dtype(old.dtype))
            with by_real(new):
                return jnp.where(w == 0, new, jnp.where(w == 1, old, old + (1 - w) * (new - old)))

        average = jax.tree.map(mix, state.average, params, grads)
        averaged = jnp.where(counts, safe_increment(state.averaged), state.averaged)
        return grads, AverageParamsState(safe_increment(state.count), averaged, average)

    def _weight(self, n: Array) -> Array:
        if self.decay is None:
            return n / (n + 1)
        decay = as_dtype(self.decay, n.dtype)
        return jnp.minimum(decay, (1 + n) / (10 + n)) if self.warmup else decay


def _wide(p: Any) -> Any:
    return widest(jnp.result_type(p), jnp.dtype(jnp.float32))


average_params = AverageParams


def averaged_params(opt_state: Any, params: Any = None) -> Any:
    """The average that `average_params` keeps in an optimizer's state.

    Args:
      opt_state: the optimizer's state.
      params: the parameters: the average then has their dtypes, and theirs are the leaves that it does not hold
        (frozen ones). Without them it is in float32 at least.

    Raises:
      ValueError: the state holds no average, or more than one.
    """
    found = find_states(opt_state, AverageParamsState)
    if len(found) != 1:
        raise ValueError(
            f"averaged_params: the optimizer state holds {len(found) or 'no'} averages: wanted one average_params in it"
        )
    average = next(iter(found.values())).average
    if params is None:
        return average

    def one(p: Any, held: Any) -> Any:
        return p if not jax.tree.leaves(held) else held.astype(jnp.result_type(p))

    return jax.tree.map(one, params, average, is_leaf=lambda leaf: leaf is None)
