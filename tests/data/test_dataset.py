import copy
import hashlib
import pickle

import numpy as np
import pytest

from dlkit.data import Arrays


def make(n: int = 7) -> Arrays:
    rng = np.random.default_rng(0)
    return Arrays(x=rng.normal(size=(n, 3, 2)).astype(np.float32), y=np.arange(n, dtype=np.int32), name="toy")


def test_access():
    ds = make()
    assert len(ds) == 7
    assert ds.x is ds["x"]
    assert list(ds.keys()) == ["x", "y"]
    assert "x" in ds
    assert "z" not in ds
    assert dict(ds)["y"] is ds.y
    assert ds[-1]["y"] == 6
    assert [row["y"] for row in ds] == list(range(7))
    assert repr(ds) == "Arrays('toy', 7 examples: x float32[3, 2], y int32[])"


def test_take_is_numpy_indexing_and_keeps_metadata():
    ds = Arrays(x=np.arange(12).reshape(6, 2), name="toy", classes=["a", "b"])
    rows = [5, 0, 0, -1]
    for got in (ds.take(rows), ds[np.array(rows)]):
        np.testing.assert_array_equal(got.x, np.arange(12).reshape(6, 2)[rows])
        assert (got.name, got.classes) == ("toy", ("a", "b"))
    np.testing.assert_array_equal(ds[1:4].x, ds.x[1:4])
    assert len(ds.take([])) == 0
    with pytest.raises(IndexError):
        ds.take([6])
    with pytest.raises(TypeError, match="flatnonzero"):
        ds.take(np.ones(6, bool))
    with pytest.raises(ValueError, match=r"one-dimensional.*\(1, 1\)"):
        ds.take([[0]])


def test_frozen_without_touching_the_arrays_given():
    mine = np.zeros(3)
    ds = Arrays(x=mine)
    with pytest.raises(AttributeError, match="frozen"):
        ds.x = mine
    with pytest.raises(ValueError, match="read-only"):
        ds.x[0] = 1
    mine[0] = 1  # still writeable
    assert np.shares_memory(mine, ds.x)  # and not copied


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({}, ValueError, "no field"),
        ({"x": np.zeros(3), "labels": np.zeros(4)}, ValueError, "'labels' has 4 examples.*'x' has 3"),
        ({"x": np.zeros(3), "names": np.array(["a", None, 1], object)}, TypeError, "'names' has dtype object"),
        ({"words": np.array(["a", "b"])}, TypeError, "'words' has dtype <U1"),
        ({"ragged": [[1], [1, 2]]}, ValueError, "'ragged'"),
        ({"void": np.zeros((0, 4))}, ValueError, "'void' is empty"),
        ({"scalar": 3.0}, ValueError, "'scalar' is one number"),
        ({"take": np.zeros(2)}, ValueError, "'take'"),
        ({"a b": np.zeros(2)}, ValueError, "'a b'"),
    ],
)
def test_errors_name_the_field(fields, error, words):
    with pytest.raises(error, match=words):
        Arrays(**fields)


def test_missing_field_says_which_there_are():
    with pytest.raises(KeyError, match="no field 'z': there are x, y"):
        make()["z"]
    with pytest.raises(AttributeError, match="'z': its fields are x, y"):
        make().z


def test_fingerprint_is_sha256_of_names_dtypes_shapes_and_bytes():
    ds = Arrays(x=np.array([[1, 2]], np.int16))
    assert ds.fingerprint() == hashlib.sha256(b"x:int16:(1, 2);" + bytes([1, 0, 2, 0])).hexdigest()


def test_fingerprint_sees_content_and_nothing_else():
    ds = make()
    x, y = np.array(ds.x), np.array(ds.y)
    first = ds.fingerprint()
    assert first == Arrays(y=y, x=np.asfortranarray(x), name="other").fingerprint()
    assert first == Arrays(x=x.astype(">f4"), y=y).fingerprint()
    changed = x.copy()
    changed[3, 1, 1] += 1
    others = [
        Arrays(x=changed, y=y),
        Arrays(x=x, z=y),
        Arrays(x=x, y=y.astype(np.int64)),
        Arrays(x=x.reshape(7, 6), y=y),
        ds[:6],
    ]
    assert len({first, *(other.fingerprint() for other in others)}) == 6


def test_fingerprint_in_chunks(monkeypatch):
    ds = make()
    whole = ds.fingerprint()
    monkeypatch.setattr("dlkit.data.dataset._CHUNK", 50)
    assert make().fingerprint() == whole


@pytest.mark.parametrize("again", [lambda ds: pickle.loads(pickle.dumps(ds)), copy.deepcopy, copy.copy])  # noqa: S301
def test_pickled_and_copied_arrays_are_frozen_and_hash_what_they_hold(again):
    ds = Arrays(x=np.arange(6.0).reshape(3, 2), y=np.arange(3), name="abc", classes=("a", "b", "c"))
    before = ds.fingerprint()
    other = again(ds)
    assert not other.x.flags.writeable
    assert not other.y.flags.writeable
    assert (other.name, other.classes, list(other.keys())) == ("abc", ("a", "b", "c"), ["x", "y"])
    with pytest.raises(ValueError, match="read-only"):
        other.x[0] = 1
    assert other.__dict__["_digest"] is None
    assert other.fingerprint() == before
