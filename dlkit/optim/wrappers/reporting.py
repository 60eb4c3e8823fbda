"""What the last update used: learning rate, norms and step, read from an optimizer's state."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.optim.gradients.clipping import ClipByGlobalNormState, global_norm
from dlkit.optim.hyper import safe_increment
from dlkit.optim.report import find_states
from dlkit.optim.scaling import ScaleByLearningRateState, learning_rates
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.hyperparams import InjectHyperparamsState
from dlkit.optim.wrappers.loss_scaling import LossScaleState
from dlkit.optim.wrappers.skipping import ApplyIfFiniteState

__all__ = ["WithReport", "WithReportState", "report", "with_report"]


class WithReportState(NamedTuple):
    """Updates so far (int32), the norms of the last gradients and updates (float32), and the inner state."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    grad_norm: Float[Array, ""]
    update_norm: Float[Array, ""]
    inner_state: Any


@dataclass(frozen=True)
class WithReport(Transform[WithReportState]):
    """`inner`, and in the state the global norms of the gradients that came in and of the updates that went out.

    `report(opt_state)` reads them; `train.make_step` and `train.fit` add them to what they log. The norms are summed in
    float32. Around all links, `grad_norm` is that before any clipping.

    Args:
      inner: a transform.

    >>> from dlkit import optim
    >>> tx = with_report(optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.5)))
    >>> grads = {"w": jnp.array([3.0, 4.0])}
    >>> _, state = tx.update(grads, tx.init(grads), grads)
    >>> {name: float(value) for name, value in report(state).items()}
    {'step': 0.0, 'learning_rate': 0.5, 'grad_norm': 5.0, 'update_norm': 0.5}

    Raises:
      TypeError: `inner` is no transform.
    """

    inner: Any

    def __post_init__(self) -> None:
        check_link("with_report", self.inner)

    def init(self, params: Any) -> WithReportState:
        before, after = (jnp.zeros((), jnp.float32) for _ in range(2))
        return WithReportState(jnp.zeros((), jnp.int32), before, after, self.inner.init(params))

    def update(
        self, grads: Any, state: WithReportState, params: Any = None, **extra: Any
    ) -> tuple[Any, WithReportState]:
        updates, inner = call_update(self.inner, grads, state.inner_state, params, extra)
        norms = [global_norm(of).astype(jnp.float32) for of in (grads, updates)]
        return updates, WithReportState(safe_increment(state.count), norms[0], norms[1], inner)


with_report = WithReport


def report(opt_state: Any) -> dict[str, Array]:
    """What the last update used, as far as the optimizer's state holds it, for logs.

    | name | |
    |---|---|
    | `step` | the number t of the last update (the first is 0): schedules gave their values at t |
    | `learning_rate` | what it used (`learning_rate/PATH` where there are several) |
    | `grad_norm` | of the gradient before clipping: from `with_report`, else from `clip_by_global_norm` |
    | `update_norm` | of what was added to the parameters: from `with_report` |
    | `hyperparams/NAME` | from `inject_hyperparams` (but the learning rate, where it is there already) |
    | `loss_scale`, `skipped` | from `dynamic_loss_scale` (the scale of the next step); from `apply_if_finite` |

    With accumulation in the optimizer (`multi_steps`) the last *update* is meant, as with the learning rate.

    >>> from dlkit import optim
    >>> tx = optim.adam(optim.linear_schedule(0.1, 0.0, 10))
    >>> params = {"w": jnp.ones(2)}
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     _, state = tx.update(params, state, params)
    >>> {name: round(float(value), 4) for name, value in report(state).items()}
    {'step': 2.0, 'learning_rate': 0.08}
    """
    said: dict[str, Array] = {}
    rates, kept = learning_rates(opt_state), list(find_states(opt_state, WithReportState).values())
    counts = [state.count for state in find_states(opt_state, ScaleByLearningRateState).values()]
    injected = [*find_states(opt_state, InjectHyperparamsState).values()]
    counts = counts or [state.count for state in injected] or [state.count for state in kept]
    if counts:
        said["step"] = jnp.maximum(counts[0] - 1, 0)
    for path, rate in rates.items():
        said["learning_rate" if len(rates) == 1 else f"learning_rate/{path}"] = rate
    norms = [state.norm for state in find_states(opt_state, ClipByGlobalNormState).values()]
    if kept:
        said |= {"grad_norm": kept[0].grad_norm, "update_norm": kept[0].update_norm}
    elif len(norms) == 1:
        said["grad_norm"] = norms[0]
    for state in injected:
        values = {name: value for name, value in state.hyperparams.items() if not (rates and name == "learning_rate")}
        said |= {name if name == "learning_rate" else f"hyperparams/{name}": value for name, value in values.items()}
    for scale in find_states(opt_state, LossScaleState).values():
        said |= {"loss_scale": scale.scale, "skipped": scale.skipped}
    for skipping in find_states(opt_state, ApplyIfFiniteState).values():
        said["skipped"] = skipping.total_notfinite
    return said
