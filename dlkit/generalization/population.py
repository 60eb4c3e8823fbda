"""Many networks trained at once: a run is a function of its key, so a population is its `vmap`."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.data import Arrays
from dlkit.nn import EVAL, fold_name
from dlkit.train import Task, TrainState, training_step
from dlkit.train.state import own as own_leaves

__all__ = ["Population", "train_population"]


@dataclass(frozen=True, eq=False)
class Population:
    """K trained networks.

    Attributes:
      states: the `train.TrainState`s, stacked: every leaf has a leading axis of K.
      epochs: `[R]`, after how many epochs the curves were measured, 0 first.
      curves: `[K, R]` by name: `train/loss`, `train/METRIC`, and `test/...` where there was a test set.
    """

    states: TrainState
    epochs: np.ndarray
    curves: dict[str, np.ndarray]

    @property
    def params(self) -> Any:
        """The parameters of all, stacked."""
        return self.states.params

    def __len__(self) -> int:
        return int(self.states.step.shape[0])

    def member(self, i: int) -> TrainState:
        """The state of one network, as `train.fit` would have returned it."""
        return jax.tree.map(lambda leaf: leaf[i], self.states)

    def final(self, name: str) -> np.ndarray:
        """`[K]`: the last value of a curve."""
        return self.curves[name][:, -1]


def train_population(
    task: Task,
    optimizer: Any,
    keys: Any,
    data: Arrays | Mapping[str, Any],
    *,
    epochs: int,
    batch_size: int | None = None,
    test: Arrays | Mapping[str, Any] | None = None,
    every: int | None = None,
    each: Sequence[str] = (),
    hyper: Any = None,
) -> Population:
    """Train one network for each key, all in one compiled program.

    Member i starts at `train.create_state(task.model, optimizer, keys[i])` and takes the steps of `train.fit`
    (`train.training_step`), in an order of examples of its own: a new permutation each epoch, and what is left over
    after the last whole batch sits the epoch out. With whole batches it is the run of `fit` with the seed of the key.

    Members that see the same examples with other labels, weights or rows are a leading axis of the data: name these
    fields in `each`. A field `weight` counts as everywhere, so subsets of a set are weights of 0 and 1.

    Args:
      task: the model, its loss and metrics.
      optimizer: of `dlkit.optim` or optax; with `hyper`, a function that makes one of a member's values.
      keys: `[K]`, of the initial parameters, the orders and the draws in the model.
      data: fields `[N, ...]`, or `[K, N, ...]` where named in `each`.
      epochs: passes over the data. batch_size: None for all of it, gradient descent.
      test: fields `[M, ...]`, the same for all.
      every: epochs between two points of the curves; None measures at the start and at the end alone.
      each: the fields of `data` that differ between members.
      hyper: a tree of arrays `[K, ...]`, such as learning rates.

    >>> from dlkit import losses, nn, optim
    >>> task = Task(nn.Linear(1, 1), losses.mse)
    >>> line = Arrays(x=np.linspace(-1, 1, 8, dtype=np.float32)[:, None], y=np.zeros((8, 1), np.float32))
    >>> rates, start = jnp.array([0.01, 0.1, 1.0]), jnp.stack([jax.random.key(0)] * 3)  # one start, three rates
    >>> found = train_population(task, optim.sgd, start, line, epochs=20, hyper=rates)
    >>> np.argsort(found.final("train/loss")).tolist()
    [2, 1, 0]

    Raises:
      ValueError: no key, sizes out of range or that do not fit, or an unknown field in `each`.
      TypeError: with `hyper`, an optimizer that is no function of it.
    """
    shared, own, members, rows = _divided(keys, data, each, hyper)
    size = rows if batch_size is None else batch_size
    every = epochs if every is None else every
    if epochs < 1 or every < 1 or epochs % every:
        raise ValueError(f"epochs must be at least 1 and a multiple of every, got epochs={epochs}, every={every}")
    if not 1 <= size <= rows:
        raise ValueError(f"batch_size must be from 1 to the {rows} examples, got {batch_size}")
    if hyper is not None and not callable(optimizer):
        raise TypeError(f"with hyper, optimizer must be a function of a member's values, got {optimizer!r}")
    held = None if test is None else {name: jnp.asarray(test[name]) for name in test.keys()}  # noqa: SIM118
    plan = _Plan(task, optimizer, rows, size, epochs, every)
    states, sums = plan.program()(keys, _params(task.model, keys), own, hyper, shared, held)
    points = np.arange(0, epochs + 1, every)
    return Population(states, points, _curves(task, jax.device_get(sums), members, len(points)))


@functools.partial(jax.jit, static_argnums=0)
def _params(model: Any, keys: Any) -> Any:
    """As `create_state` draws them. Apart from training, because drawing takes longest to compile, once a model."""
    return jax.vmap(lambda key: model.init(fold_name(key, "init")))(keys)


@dataclass(frozen=True)
class _Plan:
    """What the program of a population depends on beside its arguments."""

    task: Task
    optimizer: Any
    rows: int
    size: int
    epochs: int
    every: int

    def program(self) -> Any:
        try:
            return _program(self)
        except TypeError:  # an optimizer that holds an array has no hash
            return _program.__wrapped__(self)

    def member(self, key: Any, params: Any, own: Any, hyper: Any, shared: Any, held: Any) -> Any:
        task, examples = self.task, {**shared, **own}
        optimizer = self.optimizer if hyper is None else self.optimizer(hyper)
        sets = {"train": examples} if held is None else {"train": examples, "test": held}

        def measured(state: TrainState) -> dict[str, Any]:
            return {part: task.loss_and_sums(state.params, state.state, b, EVAL)[1][2] for part, b in sets.items()}

        def step(state: TrainState, batch: Any) -> tuple[TrainState, None]:
            return training_step(task, optimizer, state, batch)[0], None

        def epoch(state: TrainState, t: Any) -> tuple[TrainState, None]:
            if self.size == self.rows:
                return step(state, examples)
            order = jax.random.permutation(jax.random.fold_in(fold_name(key, "order"), t), self.rows)
            batches = order[: self.rows - self.rows % self.size].reshape(-1, self.size)
            return jax.lax.scan(lambda s, at: step(s, {k: v[at] for k, v in examples.items()}), state, batches)

        def stretch(state: TrainState, begin: Any) -> tuple[TrainState, Any]:
            before = measured(state)
            return jax.lax.scan(epoch, state, begin + jnp.arange(self.every))[0], before

        slots, start = optimizer.init(params), jnp.zeros((), jnp.int32)
        state = own_leaves(TrainState(start, params, task.model.init_state(), slots, fold_name(key, "run")))
        state, rows = jax.lax.scan(stretch, state, self.every * jnp.arange(self.epochs // self.every))
        return state, jax.tree.map(lambda rest, last: jnp.concatenate([rest, last[None]]), rows, measured(state))


@functools.lru_cache(maxsize=32)
def _program(plan: _Plan) -> Any:
    return jax.jit(jax.vmap(plan.member, in_axes=(0, 0, 0, 0, None, None)))


def _divided(keys: Any, data: Any, each: Sequence[str], hyper: Any) -> tuple[dict[str, Any], dict[str, Any], int, int]:
    """The fields that all share, those of each member, and how many members and examples there are."""
    if not jnp.ndim(keys) or not len(keys):
        raise ValueError("keys: give one for each member, jax.random.split(key, K)")
    fields = {name: jnp.asarray(data[name]) for name in data.keys()}  # noqa: SIM118
    if unknown := [name for name in each if name not in fields]:
        raise ValueError(f"each names {unknown[0]!r}, but the data have {', '.join(fields)}")
    members = len(keys)
    own = {name: fields.pop(name) for name in each}
    for path, leaf in [*own.items(), *(("hyper", leaf) for leaf in jax.tree.leaves(hyper))]:
        if not jnp.ndim(leaf) or len(leaf) != members:
            raise ValueError(f"{path} must have a leading axis of the {members} members, got shape {jnp.shape(leaf)}")
    lengths = {name: a.shape[0] for name, a in fields.items()} | {name: a.shape[1] for name, a in own.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"every field must have one row for each example, got {lengths}")
    return fields, own, members, next(iter(lengths.values()))


def _curves(task: Task, sums: dict[str, Any], members: int, points: int) -> dict[str, np.ndarray]:
    curves: dict[str, np.ndarray] = {}
    for part, held in sums.items():
        for k in range(members):
            for r in range(points):
                for name, value in task.result(jax.tree.map(lambda a, at=(k, r): a[at], held)).items():
                    if np.ndim(value) == 0:
                        curve = curves.setdefault(f"{part}/{name}", np.full((members, points), np.nan))
                        curve[k, r] = value
    return curves
