import jax
import numpy as np
import pytest

from dlkit.data import Arrays, kfold, split


def ids(parts) -> list[np.ndarray]:
    return [part.id for part in parts]


def covers(parts, n: int) -> bool:
    """Disjoint and covering: every id is there exactly once."""
    return np.array_equal(np.sort(np.concatenate(ids(parts))), np.arange(n))


def dataset(rng: np.random.Generator, n: int, classes: int) -> Arrays:
    # Some classes are rare, and labels are neither contiguous nor non-negative.
    p = rng.dirichlet(np.full(classes, 0.7))
    return Arrays(id=np.arange(n), y=rng.choice(classes, n, p=p) * 3 - 2)


def test_random_splits_are_disjoint_covering_deterministic_and_stratified():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(10, 400))
        ds = dataset(rng, n, int(rng.integers(1, 12)))
        valid, test, seed = int(rng.integers(0, n // 3)), float(rng.uniform(0.1, 0.5)), int(rng.integers(2**63))
        for how in (None, "y"):
            parts = split(ds, valid=valid, test=test, seed=seed, stratify=how)
            assert covers(parts, n)
            assert [len(part) for part in parts[1:]] == [valid, int(test * n + 0.5)]
            again = split(ds, valid=valid, test=test, seed=seed, stratify=how)
            assert all(map(np.array_equal, ids(parts), ids(again)))
            assert all(np.all(np.diff(i) > 0) for i in ids(parts))
        for label in np.unique(ds.y):
            count = np.sum(ds.y == label)
            # Two roundings, of less than one example each, are made for the test set: one for what is left.
            assert abs(np.sum(parts[1].y == label) - valid * count / n) < 1
            assert abs(np.sum(parts[2].y == label) - len(parts[2]) * count / n) < 2


def test_balanced_classes_are_divided_exactly():
    ds = Arrays(id=np.arange(100), y=np.arange(100) % 5)
    for part in split(ds, valid=0.2, test=10, stratify="y"):
        assert np.ptp(np.bincount(part.y)) == 0


def test_seed_is_a_number_or_a_key():
    ds = Arrays(id=np.arange(100))
    one, key, raw = (split(ds, seed=s)[1].id for s in (7, jax.random.key(7), jax.random.PRNGKey(7)))
    other = split(ds, seed=jax.random.fold_in(jax.random.key(7), 1))[1].id
    np.testing.assert_array_equal(one, key)
    np.testing.assert_array_equal(one, raw)
    assert not np.array_equal(one, other)
    assert len(split(ds, seed=jax.random.key(7, impl="rbg"))[1]) == 10
    for bad, error in ((1.5, TypeError), (True, TypeError), (-1, ValueError), (2**64, ValueError)):
        with pytest.raises(error, match="seed"):
            split(ds, seed=bad)


def test_every_example_is_equally_likely_to_be_held_out():
    # 400 draws with probability 1/4: five standard deviations are 43.
    ds = Arrays(id=np.arange(20))
    held = np.bincount(np.concatenate([split(ds, valid=5, test=0, seed=s)[1].id for s in range(400)]), minlength=20)
    assert np.all(np.abs(held - 100) < 43), held


def test_the_order_is_pinned():
    train, valid, test = split(Arrays(id=np.arange(12)), valid=3, test=2, seed=11)
    assert (valid.id.tolist(), test.id.tolist()) == ([1, 3, 7], [8, 10])
    assert len(train) == 7


def test_groups_stay_together():
    rng = np.random.default_rng(1)
    for seed in range(50):
        writer = rng.integers(0, 15, 200)
        parts = split(Arrays(id=np.arange(200), writer=writer), valid=0.2, test=0.2, seed=seed, group="writer")
        assert covers(parts, 200)
        seen = [set(part.writer.tolist()) for part in parts]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]
        assert all(abs(len(part) - 40) <= np.bincount(writer).max() / 2 for part in parts[1:])


def test_kfold():
    rng = np.random.default_rng(2)
    for seed in range(50):
        n, k = int(rng.integers(20, 200)), int(rng.integers(2, 8))
        ds = Arrays(**dataset(rng, n, 4), g=rng.integers(0, 12, n))
        for how in ({}, {"stratify": "y"}, {"group": "g"}):
            folds = kfold(ds, k, seed=seed, **how)
            assert len(folds) == k
            assert covers([valid for _, valid in folds], n)
            assert all(covers(pair, n) for pair in folds)
            if "group" in how:
                assert not any(set(train.g.tolist()) & set(valid.g.tolist()) for train, valid in folds)
            else:
                assert np.ptp([len(valid) for _, valid in folds]) <= 1
            if "stratify" in how:
                for label in np.unique(ds.y):
                    assert np.ptp([np.sum(valid.y == label) for _, valid in folds]) <= 1


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"valid": 0.5, "test": 0.5}, ValueError, "none of the 10"),
        ({"valid": 10}, ValueError, "none of the 10"),
        ({"valid": 0.04}, ValueError, "valid=0.04 of 10 examples is none"),
        ({"test": 1.0}, ValueError, "test=1.0 is no fraction"),
        ({"test": -1}, ValueError, "test=-1 is negative"),
        ({"stratify": "z"}, KeyError, "no field 'z'"),
        ({"stratify": "f"}, TypeError, "stratify='f' wants a field of integers, got float"),
        ({"group": "m"}, ValueError, r"group='m' wants a field of shape \[n\]"),
        ({"stratify": "y", "group": "y"}, ValueError, "choose one"),
        ({"group": "y"}, ValueError, "2 groups cannot make 3 parts"),
    ],
)
def test_errors(kwargs, error, words):
    ds = Arrays(y=np.arange(10) % 2, f=np.arange(10.0), m=np.zeros((10, 2), int))
    with pytest.raises(error, match=words):
        split(ds, **kwargs)


def test_kfold_errors():
    for k in (1, 11):
        with pytest.raises(ValueError, match=r"k must be in 2 \.\. 10"):
            kfold(Arrays(y=np.arange(10)), k)
