"""Batches on the device before they are asked for."""

import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import Any

import jax

_PATIENCE = 2.0  # seconds that closing waits for a source in the middle of a batch


def prefetch(source: Iterable[Any], sharding: Any = None, depth: int = 2) -> Generator[Any, None, None]:
    """Iterate over `source` with up to `depth` batches made and moved to the device while earlier ones are used.

    One thread of this process takes the batches from the source, in their order, and starts their transfer. Nothing is
    forked. Batches that were made and not used are dropped on closing: a loader's position is the caller's own
    (epoch, index), so none is lost. An exception of the source is raised here with its traceback, after the batches
    that came before it. Leaving the loop, `close()`, and an exception in the loop's body end the thread.

    Args:
        source: batches: any pytrees of arrays.
        sharding: where to put them, one sharding or a tree of them, which may be a prefix of the batch's; None is the
            default device. In a run of several processes each gives its own rows, and the results are the global
            arrays.
        depth: how many batches may be held beside the one in use; they take that much device memory.

    Raises:
        ValueError: `depth` is below 1.

    >>> import numpy as np
    >>> [int(batch["x"].sum()) for batch in prefetch({"x": np.full(2, i)} for i in range(3))]
    [0, 2, 4]
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    # The settings of a thread are its own: without these, enable_x64 and default_device would not reach the transfer.
    x64, device = jax.config.jax_enable_x64, jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

    def place(batch: Any) -> Any:
        with jax.enable_x64(x64), jax.default_device(device):
            if sharding is None or jax.process_count() == 1:
                return jax.device_put(batch, sharding)
            # `sharding` may be a prefix of the batch, as for device_put: each one counts for all that lies below it.
            return jax.tree.map(
                lambda one, part: jax.tree.map(lambda a: _from_all_processes(one, a), part),
                sharding,
                batch,
                is_leaf=lambda x: x is None,
            )

    return _consume(_Worker(source, place, depth))


def _from_all_processes(sharding: Any, rows: Any) -> jax.Array:
    return jax.device_put(rows) if sharding is None else jax.make_array_from_process_local_data(sharding, rows)


class _Worker:
    """The thread's side. A slot is taken before a batch is made, so no more than `depth` ever exist."""

    def __init__(self, source: Iterable[Any], place: Any, depth: int) -> None:
        self.source, self.place = source, place
        self.slots, self.filled = threading.Semaphore(depth), threading.Semaphore(0)
        self.results: deque[tuple[Any, BaseException | None]] = deque()
        self.stop = False
        self.thread = threading.Thread(target=self.run, name="dlkit-prefetch", daemon=True)

    def run(self) -> None:
        error: BaseException | None = StopIteration()
        iterator: Any = None
        try:
            iterator = iter(self.source)
            while True:
                self.slots.acquire()
                if self.stop:
                    break
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
                self.put(self.place(batch), None)
                del batch
        except BaseException as raised:
            error = raised
        if self.stop and hasattr(iterator, "close"):
            iterator.close()
        self.put(None, error)

    def put(self, batch: Any, error: BaseException | None) -> None:
        self.results.append((batch, error))
        self.filled.release()


def _consume(worker: _Worker) -> Generator[Any, None, None]:
    worker.thread.start()
    try:
        while True:
            worker.filled.acquire()
            batch, error = worker.results.popleft()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            worker.slots.release()
            yield batch
            del batch
    finally:
        worker.stop = True
        worker.slots.release()
        worker.thread.join(_PATIENCE)
