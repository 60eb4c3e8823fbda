"""CIFAR-10 from archives, the karate club beside networkx, Cora where it is; random changes of pictures."""

import io
import os
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import data, functional, nn

DATA = Path(os.environ.get("DLKIT_DATA", ""))
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def archive(path, size=32, classes=CLASSES):
    image = pytest.importorskip("PIL.Image")
    with zipfile.ZipFile(path, "w") as out:
        for i, word in enumerate(classes):
            for j in (1, 0):
                held = io.BytesIO()
                color = (25 * i, 255 - 25 * i, 100 * j)
                image.new("RGB", (size, size), color).save(held, "JPEG", quality=95)
                out.writestr(f"{word}/{j:04d}.jpg", held.getvalue())


def test_cifar10_reads_an_archive_class_after_class(tmp_path):
    archive(tmp_path / "train.zip")
    ds = data.cifar10("train", tmp_path)
    assert ds.x.shape == (20, 32, 32, 3)
    assert ds.x.dtype == np.uint8
    assert ds.classes == CLASSES
    assert ds.y.tolist() == [i for i in range(10) for _ in range(2)]
    want = [(25 * i, 255 - 25 * i, 100 * j) for i in range(10) for j in (0, 1)]  # in the order of the names
    assert np.abs(ds.x.mean((1, 2)) - want).max() <= 3  # JPEG is lossy
    assert data.cifar10("train", tmp_path, per_class=1).y.tolist() == list(range(10))


def test_cifar10_says_what_is_wrong(tmp_path, monkeypatch, unchecked):
    monkeypatch.delenv("DLKIT_DATA", raising=False)
    pytest.importorskip("PIL.Image")
    with pytest.raises(FileNotFoundError, match=r"test.zip was looked for in\n  .*root"):
        data.cifar10("test", tmp_path / "root")
    with pytest.raises(ValueError, match="got 'valid'"):
        data.cifar10("valid", tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="per_class must be at least 1"):
        data.cifar10("test", tmp_path, per_class=0)
    archive(tmp_path / "train.zip", 30)
    with pytest.raises(ValueError, match=r"\(30, 30\) pixels, expected 32 x 32"):
        data.cifar10("train", tmp_path)
    archive(tmp_path / "test.zip", classes=CLASSES[1:])
    with pytest.raises(ValueError, match="folder 'airplane'"):
        data.cifar10("test", tmp_path)


@pytest.mark.skipif(not (DATA / "cifar10_jpeg" / "test.zip").exists(), reason="DLKIT_DATA has no cifar10_jpeg")
def test_cifar10_where_it_is():
    ds = data.cifar10("test", per_class=20)
    assert ds.x.shape == (200, 32, 32, 3)
    assert 90 < ds.x.mean() < 150  # of the whole set: about 121


def test_the_karate_club_is_networkx_s():
    def compute():
        import networkx

        graph = networkx.karate_club_graph()
        clubs = [graph.nodes[i]["club"] != "Mr. Hi" for i in range(34)]
        return {"edges": np.array(sorted(map(sorted, graph.edges))), "y": np.array(clubs)}

    want = reference("karate/club", compute, needs="networkx")
    train, valid, test = data.karate_club()
    pairs = np.stack([train.senders[0], train.receivers[0]], 1)
    assert sorted(map(tuple, pairs[pairs[:, 0] < pairs[:, 1]])) == sorted(map(tuple, want["edges"]))
    assert {tuple(p) for p in pairs} == {tuple(p[::-1]) for p in pairs}
    np.testing.assert_array_equal(train.y[0], want["y"])
    weights = np.stack([part.weight[0] for part in (train, valid, test)])
    np.testing.assert_array_equal(weights.sum(0), 1)
    assert np.flatnonzero(weights[0]).tolist() == [0, 33]


@pytest.mark.skipif(not (DATA / "cora" / "cora.npz").exists(), reason="DLKIT_DATA has no cora/cora.npz")
def test_cora_has_the_standard_split():
    train, valid, test = data.cora()
    assert train.x.shape == (1, 2708, 1433)
    assert train.senders.shape == (1, 10_556)
    assert [int(part.weight.sum()) for part in (train, valid, test)] == [140, 500, 1000]
    assert np.bincount(train.y[0][train.weight[0] > 0]).tolist() == [20] * 7
    np.testing.assert_allclose(train.x.sum(2)[train.x.sum(2) > 0], 1, rtol=1e-5)


def test_cora_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.delenv("DLKIT_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="DLKIT_DATA is not set"):
        data.cora()
    np.savez(tmp_path / "cora.npz", edges=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="no array 'feature_rows': it has edges"):
        data.cora(tmp_path)


def test_random_flip_mirrors_whole_pictures():
    x = np.random.default_rng(0).integers(0, 255, (400, 3, 4, 2)).astype(np.uint8)
    y = np.asarray(functional.random_flip(jax.random.key(0), jnp.asarray(x), 0.25))
    mirrored = (y == x[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (y == x).all((1, 2, 3))).all()
    assert 60 < mirrored.sum() < 140  # binomial: 100, deviation 8.7
    with pytest.raises(ValueError, match=r"rate in \[0, 1\]"):
        functional.random_flip(jax.random.key(0), jnp.asarray(x), 2.0)


def test_random_crop_moves_and_fills_with_zeros(unchecked):
    x = np.arange(1, 601, dtype=np.int32).reshape(50, 3, 4, 1)
    y = np.asarray(functional.random_crop(jax.random.key(0), jnp.asarray(x), 2))
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    moves = [[(i, j) for i in range(5) for j in range(5) if (padded[b, i : i + 3, j : j + 4] == y[b]).all()]
             for b in range(50)]  # fmt: skip
    assert all(len(found) >= 1 for found in moves)
    assert len({found[0] for found in moves}) > 10
    with pytest.raises(ValueError, match="pictures"):
        functional.random_crop(jax.random.key(0), jnp.ones((3, 4)))


def test_the_layers_act_in_training_alone():
    x = jax.random.normal(jax.random.key(0), (8, 6, 6, 1))
    for layer in (nn.RandomFlip(1.0), nn.RandomCrop(3)):
        same, _ = layer.apply({}, None, x, nn.EVAL)
        assert same is x
        assert (layer.apply({}, None, x, nn.training(jax.random.key(1)))[0] != x).any()
    with pytest.raises(ValueError, match="pad of at least 0"):
        nn.RandomCrop(-1)
