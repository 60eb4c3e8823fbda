"""Batches whose order is a pure function of (seed, epoch, index)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.order import SHUFFLE, permutation, seed_of

Batch = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Loader:
    """Cut a dataset into batches of one shape, in an order that depends on (seed, epoch, index) alone.

    A batch is a dict of the dataset's fields (`[B, ...]`) with `weight` (float32 `[B]`) and `index` (int32 `[B]`, the
    number of each example in the dataset). The last batch is as large as the others: it is filled with examples from
    the start of the epoch's order at weight 0, so that nothing recompiles and sum(w m) / sum(w) over an epoch counts
    each example once. A dataset's own field `weight` is multiplied in: `[n]`, or `[n, T]` for tokens or nodes.

    There is no hidden position: `batch(epoch, index)` gives the same batch however often and from wherever it is
    called. With P processes, process r gets rows r B/P .. (r + 1) B/P of the same global batch: the order does not
    depend on P. Unlike torch's `DataLoader`, nothing is drawn from a global generator and no process is started; a
    batch is one gather for each field.

    Args:
        dataset: the examples, n of them.
        batch_size: B, rows of the global batch; it may exceed n.
        seed: an integer in [0, 2^64) or a `jax.random` key.
        shuffle: a new permutation for each epoch; False keeps the dataset's order.
        drop_last: leave out the last batch if it would need filling (other examples in each epoch, if shuffled).
        process_index, process_count: r and P, such as `jax.process_index()` and `jax.process_count()`.
        transform: a plain function (or a frozen dataclass that is callable) from batch to batch, applied to whole
            arrays. It must treat each row by itself and depend on nothing else, and keep `weight` and `index`.
            Random augmentation belongs into the training step, where the key of the step is.

    Raises:
        TypeError: a dataset that is no `Arrays`, such as a dict.
        ValueError: an argument out of range, B not divisible by P, no batch at all, or a field named `index`.

    >>> loader = Loader(Arrays(x=np.arange(5.0)), batch_size=2, shuffle=False)
    >>> for batch in loader.epoch(0):
    ...     print(batch["x"], batch["weight"])
    [0. 1.] [1. 1.]
    [2. 3.] [1. 1.]
    [4. 0.] [1. 0.]
    """

    dataset: Arrays
    batch_size: int
    seed: Any = 0
    shuffle: bool = True
    drop_last: bool = False
    process_index: int = 0
    process_count: int = 1
    transform: Callable[[Batch], Batch] | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _ones: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, Arrays):  # a dict has a length too, that of its fields
            how = "data.Arrays(x=x, y=y)" if isinstance(self.dataset, tuple | list) else "data.Arrays(**fields)"
            raise TypeError(f"expected data.Arrays, got {type(self.dataset).__name__}: {how}")
        n, size, count = len(self.dataset), self.batch_size, self.process_count
        object.__setattr__(self, "seed", seed_of(self.seed))
        if not 0 < n < 2**31:
            raise ValueError(f"the dataset has {n} examples: a loader wants at least 1 and fewer than 2^31")
        if size < 1:
            raise ValueError(f"batch_size must be at least 1, got {size}")
        if not 0 <= self.process_index < count:
            raise ValueError(f"process_index {self.process_index} is not in 0 .. process_count - 1 = {count - 1}")
        if size % count:
            raise ValueError(f"batch_size {size} is not divisible by process_count {count}: take a multiple of it")
        if self.drop_last and size > n:
            raise ValueError(f"drop_last=True leaves no batch: batch_size {size} exceeds the {n} examples")
        if "index" in self.dataset:
            raise ValueError("field 'index' is the loader's own, the number of each example: rename the dataset's")
        _name(self.transform)
        ones = np.ones(size // count, np.float32)
        ones.flags.writeable = False  # every full batch shares it
        object.__setattr__(self, "_ones", ones)

    def __len__(self) -> int:
        """Batches in an epoch."""
        n, size = len(self.dataset), self.batch_size
        return n // size if self.drop_last else -(-n // size)

    def indices(self, epoch: int) -> np.ndarray:
        """The order of the examples in this epoch, `[n]`: batch i holds those at i B .. (i + 1) B. Read-only.

        It takes one sort when an epoch is first asked for, and is then remembered.
        """
        return self._order(epoch)[: len(self.dataset)]

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch `index` of `epoch`: this process's rows of it.

        Raises:
            IndexError: there is no such batch. ValueError: the epoch is negative.
            TypeError: the transform did not return a batch.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} does not exist: an epoch has batches 0 .. {len(self) - 1}")
        local = len(self._ones)
        start = index * self.batch_size + self.process_index * local
        rows = self._order(epoch)[start : start + local]
        batch = {key: array.take(rows, axis=0) for key, array in self.dataset.items()}
        weight, real = self._ones, len(self.dataset) - start
        if real < local:
            weight = (np.arange(local) < real).astype(np.float32)
        if "weight" in batch:
            own = batch["weight"].astype(np.float32)
            weight = weight.reshape(-1, *(1,) * (own.ndim - 1)) * own
        batch["weight"] = weight
        batch["index"] = rows.astype(np.int32)
        return batch if self.transform is None else self._transformed(batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on.

        Raises:
            ValueError: `start` is not in 0 .. len(self).
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start {start} is not in 0 .. {len(self)}, the batches of an epoch")
        self._order(epoch)
        return (self.batch(epoch, index) for index in range(start, len(self)))

    def state(self, epoch: int, index: int) -> dict[str, Any]:
        """The position before batch `index` of `epoch`, with what the order depends on: a small dict for JSON.

        `index` may be `len(loader)`: the next epoch's start. The number of processes is left out, because the order
        does not depend on it.
        """
        if index == len(self):
            epoch, index = epoch + 1, 0
        state = {"epoch": int(epoch), "index": int(index), **self._fingerprint()}
        self._position(state)
        return state

    def check_state(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """The (epoch, index) to go on from, if the state is that of a loader with the same order.

        Raises:
            ValueError: naming the first thing that differs: a state from another seed, batch size, dataset, ... would
                go on with other examples than the run it comes from.
        """
        for key, mine in self._fingerprint().items():
            theirs = state.get(key, "nothing")
            if type(theirs) is not type(mine) or theirs != mine:
                raise ValueError(
                    f"this state is not of this loader: {key} was {theirs!r}, and is {mine!r} here; "
                    f"build the loader with the old {key}, or start anew"
                )
        return self._position(state)

    def _fingerprint(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "length": len(self.dataset),
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "transform": _name(self.transform),
            "dataset": self.dataset.fingerprint(),
        }

    def _position(self, state: Mapping[str, Any]) -> tuple[int, int]:
        epoch, index = state.get("epoch"), state.get("index")
        if type(epoch) is not int or not 0 <= epoch < 2**64:
            raise ValueError(f"epoch {epoch!r} of the state is no integer in [0, 2^64)")
        if type(index) is not int or not 0 <= index < len(self):
            raise ValueError(f"index {index!r} of the state is no integer in 0 .. {len(self) - 1}")
        return epoch, index

    def _order(self, epoch: int) -> np.ndarray:
        """The epoch's order, filled up to whole batches by going through it again."""
        order = self._orders.get(epoch)
        if order is None:
            if not 0 <= epoch < 2**64:
                raise ValueError(f"epoch must be in [0, 2^64), got {epoch}")
            n = len(self.dataset)
            order = permutation(n, self.seed, epoch, SHUFFLE) if self.shuffle else np.arange(n)
            if not self.drop_last:
                order = np.resize(order, max(n, len(self) * self.batch_size))
            order.flags.writeable = False
            if len(self._orders) > 1:  # this epoch and, while prefetching, its neighbour
                self._orders.clear()
            self._orders[epoch] = order
        return order

    def _transformed(self, batch: Batch) -> Batch:
        assert self.transform is not None
        result = self.transform(dict(batch))
        if not isinstance(result, dict) or not {"weight", "index"} <= result.keys():
            kind = f"a dict of {sorted(result)}" if isinstance(result, dict) else type(result).__name__
            raise TypeError(
                f"transform {_name(self.transform)} must return the batch with 'weight' and 'index', got {kind}"
            )
        for key, value in result.items():
            if np.shape(value)[:1] != self._ones.shape:
                raise TypeError(
                    f"transform {_name(self.transform)} made field {key!r} of shape {list(np.shape(value))}: "
                    f"it must keep the {len(self._ones)} rows of the batch"
                )
        return result


def _name(transform: Any) -> str | None:
    """What the state calls a transform: the settings of a dataclass, the name of a function."""
    if transform is None or is_dataclass(transform):
        return None if transform is None else repr(transform)
    name = getattr(transform, "__qualname__", None)
    if not callable(transform) or name is None:
        raise ValueError(f"transform must be a plain function or a callable frozen dataclass, got {transform!r}")
    return name
