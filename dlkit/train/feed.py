"""How batches get to the device."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import jax

from dlkit.data import Loader, prefetch

__all__ = ["feed", "replicated"]


@contextmanager
def feed(loader: Loader, epoch: int, start: int, sharding: Any) -> Iterator[Iterator[Any]]:
    """The batches of an epoch from `start` on, prefetched where that pays.

    A thread that prefetches costs more than a gather does, so where the device is the host, and nothing is computed on
    the way, the step takes the loader's arrays as they are.
    """
    batches: Any = loader.epoch(epoch, start)
    if sharding is not None or loader.transform is not None or jax.default_backend() != "cpu":
        batches = prefetch(batches, sharding)
    # A batch is meant to go to the device; what a guard is there for is the other direction.
    with jax.transfer_guard_host_to_device("allow"), closing(batches):
        yield batches


def replicated(sharding: Any) -> Any:
    """The sharding that puts the whole of an array on every device of this one's mesh; None for None."""
    if sharding is None or not hasattr(sharding, "mesh"):
        return None
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
