import json
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from dlkit.data import Arrays, Loader
from dlkit.data.order import SHUFFLE, permutation


def dataset(n: int) -> Arrays:
    return Arrays(x=np.arange(n * 2, dtype=np.float32).reshape(n, 2), y=np.arange(n, dtype=np.int32))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def philox(key: tuple[int, int], counter: int, count: int) -> list[int]:
    """Philox4x64-10 as in Salmon et al. (2011), in Python's integers. The counter is advanced before each block."""
    mask, words = 2**64 - 1, []
    while len(words) < count:
        counter = (counter + 1) % 2**256
        c = [counter >> 64 * i & mask for i in range(4)]
        k = list(key)
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [b >> 64 ^ c[1] ^ k[0], b & mask, a >> 64 ^ c[3] ^ k[1], a & mask]
            k = [k[0] + 0x9E3779B97F4A7C15 & mask, k[1] + 0xBB67AE8584CAA73B & mask]
        words += c
    return words[:count]


def test_order_is_a_sort_of_philox_words():
    for n, seed, epoch in ((1, 0, 0), (2, 1, 0), (50, 2**64 - 1, 3), (129, 12345, 2**64 - 1)):
        words = philox((seed, epoch), SHUFFLE << 192, n)
        bits = max(n - 1, 1).bit_length()
        expected = sorted(range(n), key=lambda i, words=words, bits=bits: (words[i] >> bits, i))
        assert permutation(n, seed, epoch, SHUFFLE).tolist() == expected


def test_golden_order():
    # Checkpoints name positions in this order: it must never change.
    loader = Loader(dataset(20), 4, seed=5)
    assert loader.indices(3).tolist() == [3, 13, 2, 11, 17, 14, 6, 9, 15, 0, 16, 1, 5, 19, 4, 8, 18, 10, 7, 12]
    assert loader.batch(3, 2)["index"].tolist() == [15, 0, 16, 1]


def test_random_loaders():
    """300 random settings: a permutation each epoch, each id once at weight 1, any jump, any number of processes."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, processes = int(rng.integers(1, 120)), int(rng.choice([1, 2, 3, 4, 6, 8]))
        size = processes * int(rng.integers(1, 40))
        seed, epoch = int(rng.integers(2**64, dtype=np.uint64)), int(rng.integers(1000))
        drop = bool(rng.integers(2)) and size <= n
        loader = Loader(dataset(n), size, seed=seed, drop_last=drop)
        order = loader.indices(epoch)
        assert np.array_equal(np.sort(order), np.arange(n))

        batches = list(loader.epoch(epoch))
        assert len(batches) == len(loader) == (n // size if drop else -(-n // size))
        for batch in batches:
            assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
                "x": ((size, 2), "float32"),
                "y": ((size,), "int32"),
                "weight": ((size,), "float32"),
                "index": ((size,), "int32"),
            }
            assert np.array_equal(batch["y"], batch["index"])  # padding rows are real examples too
            assert np.array_equal(batch["x"], loader.dataset.x[batch["index"]])
        index = np.concatenate([b["index"] for b in batches])
        weight = np.concatenate([b["weight"] for b in batches])
        assert set(weight.tolist()) <= {0.0, 1.0}
        assert np.array_equal(index[weight == 1], order[: n // size * size] if drop else order)
        assert np.all(weight[:n] == 1)
        assert np.all(weight[n:] == 0)

        fresh, jump = Loader(dataset(n), size, seed=seed, drop_last=drop), int(rng.integers(len(loader)))
        assert same(fresh.batch(epoch, jump), batches[jump])
        assert all(map(same, fresh.epoch(epoch, start=jump), batches[jump:]))

        ranks = [replace(loader, process_index=r, process_count=processes).batch(epoch, jump) for r in range(processes)]
        assert same({k: np.concatenate([rank[k] for rank in ranks]) for k in ranks[0]}, batches[jump])


def test_epochs_and_seeds_differ():
    orders = {tuple(Loader(dataset(30), 5, seed=s).indices(e).tolist()) for s in range(10) for e in range(10)}
    assert len(orders) == 100


def test_every_place_is_equally_likely():
    # 2,000 epochs of 5: each of the 25 (example, place) pairs is expected 400 times; five standard deviations are 90.
    loader = Loader(dataset(5), 5)
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), loader.indices(epoch)] += 1
    assert np.all(np.abs(counts - 400) < 90), counts


def test_without_shuffle_the_order_is_the_dataset_s():
    loader = Loader(dataset(5), 3, shuffle=False)
    assert [b["index"].tolist() for b in loader.epoch(9)] == [[0, 1, 2], [3, 4, 0]]


def test_batch_larger_than_the_dataset():
    (batch,) = Loader(dataset(3), 8, shuffle=False).epoch(0)
    assert batch["index"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert batch["weight"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_weighted_mean_over_an_epoch_is_the_mean():
    values = np.random.default_rng(3).normal(size=1003)
    for size in (1, 7, 64, 1003, 2000):
        batches = list(Loader(Arrays(v=values), size).epoch(0))
        total = sum(np.sum(b["v"] * b["weight"]) for b in batches)
        assert abs(total / sum(b["weight"].sum() for b in batches) - values.mean()) < 1e-12


def test_the_dataset_s_own_weights_are_multiplied_in():
    loader = Loader(Arrays(x=np.zeros(3), weight=np.array([0.5, 2, 3])), 2, shuffle=False)
    assert [b["weight"].tolist() for b in loader.epoch(0)] == [[0.5, 2], [3, 0]]
    loader = Loader(Arrays(x=np.zeros(3), weight=np.array([[1, 0], [1, 1], [0, 1]])), 2, shuffle=False)  # of tokens
    assert [b["weight"].tolist() for b in loader.epoch(0)] == [[[1, 0], [1, 1]], [[0, 1], [0, 0]]]
    assert loader.batch(0, 0)["weight"].dtype == np.float32


def test_batches_belong_to_the_caller():
    loader = Loader(dataset(4), 2)
    first = loader.batch(0, 0)
    first["x"][:] = -1
    assert not np.any(loader.batch(0, 0)["x"] == -1)
    with pytest.raises(ValueError, match="read-only"):
        loader.indices(0)[0] = 1


def double(batch):
    return {**batch, "x": batch["x"] * 2}


@dataclass(frozen=True)
class Scale:
    factor: float

    def __call__(self, batch):
        return {**batch, "x": batch["x"] * np.float32(self.factor)}


def lose_rows(batch):
    return {**batch, "x": batch["x"][:1]}


def lose_weight(batch):
    return {"x": batch["x"]}


def test_transform():
    ds = dataset(10)
    plain, doubled = Loader(ds, 4), Loader(ds, 4, transform=double)
    np.testing.assert_array_equal(doubled.batch(1, 2)["x"], plain.batch(1, 2)["x"] * 2)
    np.testing.assert_array_equal(Loader(ds, 4, transform=Scale(2.0)).batch(1, 2)["x"], doubled.batch(1, 2)["x"])
    with pytest.raises(TypeError, match=r"lose_rows made field 'x' of shape \[1, 2\].*4 rows"):
        Loader(ds, 4, transform=lose_rows).batch(0, 0)
    with pytest.raises(TypeError, match="lose_weight must return the batch with 'weight' and 'index'"):
        Loader(ds, 4, transform=lose_weight).batch(0, 0)


BASE = {"seed": 3, "batch_size": 4, "shuffle": True, "drop_last": False, "transform": double}


def test_state_goes_through_json_and_resumes():
    ds = dataset(10)
    loader = Loader(ds, **BASE)
    state = json.loads(json.dumps(loader.state(7, 2)))
    # Another process, and another number of processes: the same order.
    epoch, index = Loader(dataset(10), **BASE).check_state(state)
    assert (epoch, index) == (7, 2)
    assert Loader(ds, **BASE, process_index=1, process_count=2).check_state(state) == (7, 2)
    assert loader.check_state(loader.state(7, len(loader))) == (8, 0)
    assert len(json.dumps(state)) < 400


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("seed", {"seed": 4}),
        ("batch_size", {"batch_size": 5}),
        ("length", {"dataset": dataset(11)}),
        ("shuffle", {"shuffle": False}),
        ("drop_last", {"drop_last": True}),
        ("transform", {"transform": None}),
        ("transform", {"transform": Scale(2.0)}),
        ("dataset", {"dataset": Arrays(x=np.zeros((10, 2)), y=np.zeros(10))}),
    ],
)
def test_state_of_another_loader_is_refused(field, change):
    state = Loader(dataset(10), **BASE).state(0, 1)
    other = Loader(**{"dataset": dataset(10), **BASE, **change})
    with pytest.raises(ValueError, match=f"not of this loader: {field} was"):
        other.check_state(state)


def test_settings_of_a_transform_are_part_of_the_state():
    one, two = (Loader(dataset(4), 2, transform=Scale(f)) for f in (2.0, 3.0))
    with pytest.raises(ValueError, match=r"transform was 'Scale\(factor=2.0\)'"):
        two.check_state(one.state(0, 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": -1}, "epoch -1"),
        ({"epoch": 1.5}, "epoch 1.5"),
        ({"index": 3}, "index 3"),
        ({"index": True}, "index True"),
        ({"index": None}, "index None"),
        ({"seed": True}, "seed was True"),
    ],
)
def test_damaged_state_is_refused(change, words):
    loader = Loader(dataset(10), 4, seed=1)
    with pytest.raises(ValueError, match=words):
        loader.check_state({**loader.state(0, 0), **change})
    with pytest.raises(ValueError, match="seed was 'nothing'"):
        loader.check_state({"epoch": 0, "index": 0})


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 5, "process_count": 2}, "5 is not divisible by process_count 2"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, "process_index 2"),
        ({"batch_size": 11, "drop_last": True}, "no batch: batch_size 11 exceeds the 10"),
        ({"batch_size": 2, "seed": -1}, "seed -1"),
        ({"batch_size": 2, "dataset": dataset(3).take([])}, "0 examples"),
        ({"batch_size": 2, "dataset": Arrays(index=np.arange(3))}, "field 'index'"),
    ],
)
def test_errors(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Loader(**{"dataset": dataset(10), **kwargs})


def test_feeds_200_000_images_a_second():
    # benchmarks/loader.py measures 13,000,000 on one core, so this fails only where images are gathered one by one.
    rng = np.random.default_rng(4)
    loader = Loader(Arrays(x=rng.integers(0, 256, (12_800, 28, 28, 1), np.uint8), y=np.zeros(12_800, np.int32)), 128)
    seconds = []
    for epoch in range(5):
        start = time.perf_counter()
        for _ in loader.epoch(epoch):
            pass
        seconds.append(time.perf_counter() - start)
    assert 12_800 / min(seconds) > 200_000


def test_positions_that_do_not_exist():
    loader = Loader(dataset(10), 4)
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"batch {index} does not exist"):
            loader.batch(0, index)
    with pytest.raises(ValueError, match="epoch must be"):
        loader.batch(-1, 0)
    with pytest.raises(ValueError, match="start 4"):
        loader.epoch(0, start=4)
    assert list(loader.epoch(0, start=3)) == []
