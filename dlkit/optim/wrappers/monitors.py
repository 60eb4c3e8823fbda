"""Measurements inside a chain, kept in the state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlkit.optim.transform import Transform, call_update
from dlkit.optim.wrappers.averages import Ema, EmaState
from dlkit.optim.wrappers.shown import Shown, check_callable

__all__ = [
    "MeasureWithEma",
    "Monitor",
    "MonitorState",
    "Snapshot",
    "SnapshotState",
    "measure_with_ema",
    "monitor",
    "snapshot",
]


class SnapshotState(NamedTuple):
    """The last measurement by its name; zeros before the first."""

    measurement: dict[str, Any]


@dataclass(frozen=True, repr=False)
class Snapshot(Shown, Transform[SnapshotState]):
    """Keeps `measure(updates)` of the last call in the state, and passes the updates on.

    Args:
      measure_name: its name in the state.
      measure: from the updates at this place of the chain to an array or a tree of arrays.

    >>> from dlkit import optim
    >>> tx = optim.chain(optim.sgd(0.1), snapshot("norm", optim.global_norm), optim.clip(0.05))
    >>> grads = {"w": jnp.array([3.0, 4.0])}
    >>> _, state = tx.update(grads, tx.init(grads), grads)
    >>> state[1].measurement["norm"]
    Array(0.5, dtype=float32)

    Raises:
      TypeError: `measure` is no function.
    """

    measure_name: str
    measure: Callable[..., Any]

    def __post_init__(self) -> None:
        check_callable("snapshot", "measure", self.measure)

    def init(self, params: Any) -> SnapshotState:
        return SnapshotState({self.measure_name: _zeros(self.measure, params)})

    def update(self, grads: Any, state: SnapshotState, params: Any = None) -> tuple[Any, SnapshotState]:
        return grads, SnapshotState({self.measure_name: _as(self.measure(grads), state.measurement[self.measure_name])})


snapshot = Snapshot


@dataclass(frozen=True, repr=False)
class MeasureWithEma(Shown, Transform[EmaState]):
    """For `monitor`: the moving average of `measure(updates)`. Its `update` returns the average, not updates.

    Args:
      measure: from the updates to a number or an array; booleans count as 0 and 1.
      decay, debias, accumulator_dtype: see `ema`.

    >>> tx = measure_with_ema(lambda updates: jnp.sum(updates["w"]) > 1, 0.9)
    >>> average, state = tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}))
    >>> average.round(4)
    Array(1., dtype=float32)

    Raises:
      TypeError: `measure` is no function. ValueError: `decay` outside of [0, 1).
    """

    measure: Callable[..., Any]
    decay: Any
    debias: bool = True
    accumulator_dtype: Any = None

    def __post_init__(self) -> None:
        check_callable("measure_with_ema", "measure", self.measure)
        inner = self._ema()  # its checks
        object.__setattr__(self, "decay", inner.decay)
        object.__setattr__(self, "accumulator_dtype", inner.accumulator_dtype)

    def init(self, params: Any) -> EmaState:
        return self._ema().init(_floats(_zeros(self.measure, params)))

    def update(self, grads: Any, state: EmaState, params: Any = None) -> tuple[Any, EmaState]:
        return self._ema().update(_floats(self.measure(grads)), state)

    def _ema(self) -> Ema:
        return Ema(self.decay, self.debias, self.accumulator_dtype)


measure_with_ema = MeasureWithEma


class MonitorState(NamedTuple):
    """The last measurements by name, and the states of those that have one (None for the others)."""

    measurements: dict[str, Any]
    measure_states: tuple[Any, ...]


@dataclass(frozen=True, repr=False)
class Monitor(Shown, Transform[MonitorState]):
    """Several measurements of the updates at this place of the chain; the updates pass on.

    Args:
      measures: by name, a function of the updates, or a transform whose "updates" are the measurement, such as
        `measure_with_ema`.

    >>> from dlkit import optim
    >>> tx = monitor({"norm": optim.global_norm, "mean": measure_with_ema(optim.global_norm, 0.9)})
    >>> grads = {"w": jnp.array([3.0, 4.0])}
    >>> _, state = tx.update(grads, tx.init(grads))
    >>> {name: round(float(value), 4) for name, value in state.measurements.items()}
    {'norm': 5.0, 'mean': 5.0}

    Raises:
      TypeError: a measure is neither.
    """

    measures: Any

    def __post_init__(self) -> None:
        pairs = tuple(self.measures.items()) if isinstance(self.measures, Mapping) else self.measures
        for name, measure in pairs:
            if not (_has_state(measure) or callable(measure)):
                raise TypeError(f"monitor: {name} is {measure!r}, wanted a function of the updates or a transform")
        object.__setattr__(self, "measures", pairs)

    def init(self, params: Any) -> MonitorState:
        zeros, states = {}, []
        for name, measure in self.measures:
            held = measure.init(params) if _has_state(measure) else None
            # Traced, not computed: what a measurement would be of zeros is nobody's number.
            zeros[name] = _zeros(lambda p, m=measure, s=held: self._measured(m, p, s, p, {})[0], params)
            states.append(held)
        return MonitorState(zeros, tuple(states))

    def update(self, grads: Any, state: MonitorState, params: Any = None, **extra: Any) -> tuple[Any, MonitorState]:
        values, states = {}, []
        for (name, measure), held in zip(self.measures, state.measure_states, strict=True):
            value, held = self._measured(measure, grads, held, params, extra)
            values[name] = _as(value, state.measurements[name])
            states.append(held)
        return grads, MonitorState(values, tuple(states))

    def _measured(self, measure: Any, grads: Any, held: Any, params: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        if _has_state(measure):
            return call_update(measure, grads, held, params, extra)
        return measure(grads), None


monitor = Monitor


def _has_state(measure: Any) -> bool:
    return callable(getattr(measure, "init", None)) and callable(getattr(measure, "update", None))


def _zeros(measure: Callable[..., Any], params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(measure, params))


def _as(value: Any, like: Any) -> Any:
    return jax.tree.map(lambda new, old: jax.lax.convert_element_type(jnp.asarray(new), old.dtype), value, like)


def _floats(of: Any) -> Any:
    def one(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(jnp.float32)

    return jax.tree.map(one, of)
