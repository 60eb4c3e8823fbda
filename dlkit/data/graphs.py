"""Graphs whose nodes have classes: Cora's citations, and a karate club that is embedded."""

import os

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.places import find

__all__ = ["cora", "karate_club"]

Split = tuple[Arrays, Arrays, Arrays]

# Who met whom outside of the club, by the larger number: friends[i] are those of member i with smaller numbers.
FRIENDS = (
    (), (0,), (0, 1), (0, 1, 2), (0,), (0,), (0, 4, 5), (0, 1, 2, 3), (0, 2), (2,), (0, 4, 5), (0,), (0, 3),
    (0, 1, 2, 3), (), (), (5, 6), (0, 1), (), (0, 1), (), (0, 1), (), (), (), (23, 24), (), (2, 23, 24), (2,),
    (23, 26), (1, 8), (0, 24, 25, 28), (2, 8, 14, 15, 18, 20, 22, 23, 29, 30, 31),
    (8, 9, 13, 14, 15, 18, 19, 20, 22, 23, 26, 27, 28, 29, 30, 31, 32),
)  # fmt: skip
WITH_THE_OFFICER = (9, 14, 15, 18, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33)


def karate_club() -> Split:
    """The 34 members of a karate club that split in two: (train, valid, test), each the one graph.

    Fields, of one example: x float32 `[1, 34, 34]`, a one in the place of the member; senders and receivers int32
    `[1, 156]`, each of the 78 friendships in both directions; y int32 `[1, 34]`, 0 for the instructor's side and 1 for
    the officer's; weight float32 `[1, 34]`, 1 for the members that the part is about. Known in training are the
    instructor (0) and the officer (33); every second of the others is in the validation set, the rest in the test set.

    >>> train, valid, test = karate_club()
    >>> train, [int(part["weight"].sum()) for part in (train, valid, test)]
    (Arrays('karate', 1 examples: x float32[34, 34], senders int32[156], receivers int32[156], y int32[34],
      weight float32[34]), [2, 16, 16])

    Reference: Zachary, An information flow model for conflict and fission in small groups, 1977.
    """
    edges = np.array([(i, j) for i, friends in enumerate(FRIENDS) for j in friends], np.int32)
    labels = np.isin(np.arange(34), WITH_THE_OFFICER).astype(np.int32)
    parts = [np.array([0, 33]), np.arange(1, 33, 2), np.arange(2, 33, 2)]
    return _parts("karate", np.eye(34, dtype=np.float32), edges, labels, parts, ("instructor", "officer"))


def cora(root: str | os.PathLike[str] | None = None) -> Split:
    """Cora, 2,708 papers and who cites whom, with the standard split: (train, valid, test), each the one graph.

    Fields as in `karate_club`: x `[1, 2708, 1433]`, words of a paper (binary, divided by their number, as in Kipf and
    Welling), senders and receivers `[1, 10556]`, y `[1, 2708]` in seven classes, and weight: 140, 500, 1,000 papers.

    Read from `cora.npz` in `root`, `$DLKIT_DATA/cora` or `$DLKIT_DATA`, with the arrays feature_rows, feature_cols,
    feature_values, feature_shape, edges `[E, 2]` (each once), labels, train, validation, test.

    Raises:
      FileNotFoundError: there is no such file; the message lists the places.
      ValueError: an array is missing in it.

    References: Sen et al., Collective classification in network data, 2008; Yang, Cohen and Salakhutdinov, Revisiting
    semi-supervised learning with graph embeddings, 2016, arXiv:1603.08861 (the split).
    """
    found = find("cora.npz", "cora", root)
    wanted = ("feature_rows", "feature_cols", "feature_values", "feature_shape", "edges", "labels", "train")
    with np.load(found, allow_pickle=False) as file:
        if missing := [name for name in (*wanted, "validation", "test") if name not in file.files]:
            raise ValueError(f"{found} has no array {missing[0]!r}: it has {', '.join(file.files)}")
        held = {name: file[name] for name in (*wanted, "validation", "test")}
    x = np.zeros(tuple(held["feature_shape"]), np.float32)
    x[held["feature_rows"], held["feature_cols"]] = held["feature_values"]
    x /= np.maximum(x.sum(1, keepdims=True), 1)
    parts = [held[name] for name in ("train", "validation", "test")]
    return _parts("cora", x, held["edges"].astype(np.int32), held["labels"].astype(np.int32), parts, None)


def _parts(
    name: str, x: np.ndarray, edges: np.ndarray, y: np.ndarray, parts: list[np.ndarray], classes: object
) -> Split:
    both = np.concatenate([edges, edges[:, ::-1]]).T
    made = []
    for rows in parts:
        weight = np.zeros(len(x), np.float32)
        weight[rows] = 1
        fields = {"x": x, "senders": both[0], "receivers": both[1], "y": y, "weight": weight}
        names = classes if isinstance(classes, tuple) else None
        made.append(Arrays(name=name, classes=names, **{k: v[None] for k, v in fields.items()}))
    train, valid, test = made
    return train, valid, test
