import gc
import os
import subprocess
import sys
import threading
import time
import traceback

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from support import compiling

from dlkit.data import Arrays, Loader, prefetch

LIMIT = 2.0  # seconds: what an event may take, and what an error may take to arrive


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "dlkit-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert threads() == []
    yield
    gc.collect()
    assert threads() == []


def batches(count: int):
    return ({"x": np.full((2, 3), i, np.float32)} for i in range(count))


def test_gives_the_batches_in_order_on_the_device():
    got = list(prefetch(batches(20)))
    assert [int(batch["x"][0, 0]) for batch in got] == list(range(20))
    assert all(isinstance(batch["x"], jax.Array) for batch in got)
    assert list(prefetch([])) == []


def test_loader_through_prefetch_is_the_loader():
    loader = Loader(Arrays(x=np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)), 8)
    for plain, moved in zip(loader.epoch(2), prefetch(loader.epoch(2)), strict=True):
        for key, value in plain.items():
            np.testing.assert_array_equal(value, moved[key])
            assert value.dtype == moved[key].dtype


def test_next_batch_is_made_while_this_one_is_used():
    made = [threading.Event() for _ in range(6)]

    def source():
        for event in made:
            event.set()
            yield np.zeros(1)

    for k, _ in enumerate(prefetch(source(), depth=1)):
        # Only another thread can set it now: without overlap this waits in vain.
        assert k == 5 or made[k + 1].wait(LIMIT)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_holds_at_most_depth_batches(depth):
    made = 0

    def source():
        nonlocal made
        for _ in range(12):
            made += 1
            yield np.zeros(1)

    full = threading.Event()
    for taken, _ in enumerate(prefetch(source(), depth=depth), start=1):
        full.wait(0.01)  # time in which too eager a thread would go on
        assert made - taken <= depth


def test_slow_source_and_slow_step_cost_the_longer_one():
    def source():
        for _ in range(10):
            time.sleep(0.03)
            yield np.zeros(1)

    next(iter(prefetch([np.zeros(1)])))  # the first transfer starts the backend
    start = time.perf_counter()
    for _ in prefetch(source()):
        time.sleep(0.03)
    # 0.33 s with overlap, 0.60 s without.
    assert time.perf_counter() - start < 0.5


def test_an_error_of_the_source_arrives_with_its_traceback():
    def decode():
        raise OSError("damaged image")

    def source():
        yield np.zeros(1)
        decode()

    moved = prefetch(source())
    next(moved)
    start = time.perf_counter()
    with pytest.raises(OSError, match="damaged image") as caught:
        next(moved)
    assert time.perf_counter() - start < LIMIT
    assert "decode" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_an_error_before_the_first_batch():
    class Unreadable:
        def __iter__(self):
            raise FileNotFoundError("no such folder")

    with pytest.raises(FileNotFoundError, match="no such folder"):
        next(prefetch(Unreadable()))


def test_leaving_early_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield np.zeros(1)
        finally:
            closed.set()

    moved = prefetch(source())
    next(moved)
    assert threads() == ["dlkit-prefetch"]
    moved.close()
    assert threads() == []
    assert closed.is_set()

    for _ in prefetch(source()):
        break
    gc.collect()
    assert threads() == []


def test_nothing_runs_before_the_first_batch_is_asked_for():
    moved = prefetch(batches(3))
    assert threads() == []
    moved.close()


def test_x64_reaches_the_thread(x64):
    (moved,) = prefetch([np.ones(2)])
    assert moved.dtype == np.float64


def test_sharding_and_device():
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    (moved,) = prefetch([{"x": np.zeros((4, 2)), "weight": np.zeros(4)}], sharding)
    assert moved["x"].sharding == moved["weight"].sharding == sharding


def test_a_tree_of_shardings_with_several_processes(monkeypatch):
    # One process that believes there are two: its own rows are then all there are, which is all that can be seen here.
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    batch = {"x": np.arange(8.0, dtype=np.float32).reshape(4, 2), "more": {"a": np.zeros(4), "b": np.ones(4)}, "n": 3}
    (moved,) = prefetch([batch], {"x": rows, "more": whole, "n": None})  # `whole` stands for both below `more`
    assert moved["x"].sharding == rows
    assert moved["more"]["a"].sharding == moved["more"]["b"].sharding == whole
    assert int(moved["n"]) == 3
    np.testing.assert_array_equal(moved["x"], batch["x"])
    (moved,) = prefetch([{"x": batch["x"]}], rows)
    assert moved["x"].sharding == rows


def test_four_devices():
    program = """
import jax, numpy as np
from dlkit.data import Arrays, Loader, prefetch
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
loader = Loader(Arrays(x=np.arange(20, dtype=np.float32)), 8)
for plain, moved in zip(loader.epoch(0), prefetch(loader.epoch(0), sharding), strict=True):
    shards = moved["x"].addressable_shards
    assert len(shards) == 4 and all(shard.data.shape == (2,) for shard in shards)
    assert all(np.array_equal(np.asarray(moved[key]), plain[key]) for key in plain)
"""
    flags = {"XLA_FLAGS": compiling.devices(4), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={**os.environ, **flags})


def test_depth_must_be_positive():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        prefetch([], depth=0)
