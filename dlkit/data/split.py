"""Train, validation and test sets: disjoint, covering, and the same for the same seed everywhere."""

from typing import Any

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.order import SPLIT, permutation, seed_of


def split(
    dataset: Arrays,
    *,
    valid: float | int = 0.1,
    test: float | int = 0.1,
    seed: Any = 0,
    stratify: str | None = None,
    group: str | None = None,
) -> tuple[Arrays, Arrays, Arrays]:
    """Divide a dataset into (train, valid, test); each example is in exactly one, in its original order.

    A part of size m drawn with `stratify` has floor or ceil of m n_c / n examples of a class that has n_c of the n left
    to draw from (largest remainders; the seed breaks ties). With `group`, examples with the same value stay together
    and sizes are the nearest that whole groups allow. scikit-learn's `train_test_split` rounds fractions up; here they
    are rounded to nearest.

    Args:
        valid, test: a fraction (float below 1) or a count (int). 0 gives a dataset of length 0.
        seed: an integer in [0, 2^64), or a `jax.random` key.
        stratify: the integer field `[n]` whose classes are kept in proportion, such as `"y"`.
        group: the integer field `[n]` that says what belongs together, such as the writer of a digit.

    Raises:
        ValueError: a part that was asked for, or the training set, would be empty; a fraction outside [0, 1); or both
            `stratify` and `group`.
        KeyError: no such field. TypeError: it does not hold integers.

    >>> ds = Arrays(x=np.arange(50.0), y=np.arange(50) % 5)
    >>> [len(part) for part in split(ds, valid=0.2, test=5, stratify="y")]
    [35, 10, 5]
    """
    n, seed = len(dataset), seed_of(seed)
    sizes = [_size("valid", valid, n), _size("test", test, n)]
    if sum(sizes) >= n:
        raise ValueError(
            f"valid={valid} and test={test} leave none of the {n} examples for training: make them smaller"
        )
    labels, by_group = _labels(dataset, stratify, group)
    part = np.zeros(n, np.int8)
    if labels is not None and by_group:
        _assign_groups(part, labels, sizes, seed)
    else:
        _assign_classes(part, np.zeros(n, np.intp) if labels is None else labels, sizes, seed)
    train, held, tested = (dataset.take(np.flatnonzero(part == k)) for k in range(3))
    return train, held, tested


def kfold(
    dataset: Arrays, k: int, *, seed: Any = 0, stratify: str | None = None, group: str | None = None
) -> list[tuple[Arrays, Arrays]]:
    """The k pairs (train, valid) of cross-validation: each example is in exactly one of the validation sets.

    Sizes differ by at most one; with `stratify`, so do the counts of every class. With `group`, whole groups go,
    largest first, to the smallest fold. Arguments and errors are those of `split`.

    >>> [len(valid) for _, valid in kfold(Arrays(y=np.arange(10)), 3)]
    [4, 3, 3]
    """
    n, seed = len(dataset), seed_of(seed)
    labels, by_group = _labels(dataset, stratify, group)
    units = n if labels is None or not by_group else int(labels.max()) + 1
    if not 2 <= k <= units:
        raise ValueError(f"k must be in 2 .. {units} (the {'groups' if by_group else 'examples'} there are), got {k}")
    order = permutation(n, seed, 0, SPLIT)
    fold = np.empty(n, np.intp)
    if labels is not None and by_group:
        counts = np.bincount(labels)
        shuffled = permutation(units, seed, 1, SPLIT)
        of_group, filled = np.empty(units, np.intp), np.zeros(k, np.intp)
        for g in shuffled[np.argsort(-counts[shuffled], kind="stable")]:
            of_group[g] = filled.argmin()
            filled[of_group[g]] += counts[g]
        fold = of_group[labels]
    else:
        # Dealt like cards, class after class: a run of equal labels spreads over the folds as evenly as it can.
        dealt = order if labels is None else order[np.argsort(labels[order], kind="stable")]
        fold[dealt] = np.arange(n) % k
    return [(dataset.take(np.flatnonzero(fold != i)), dataset.take(np.flatnonzero(fold == i))) for i in range(k)]


def _size(name: str, value: float | int, n: int) -> int:
    if isinstance(value, int | np.integer):
        if value < 0:
            raise ValueError(f"{name}={value} is negative: give a count, or a fraction in [0, 1)")
        return int(value)
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value} is no fraction in [0, 1); a count must be an int, as in {name}=500")
    size = int(value * n + 0.5)
    if value and not size:
        raise ValueError(f"{name}={value} of {n} examples is none: give a larger fraction, a count, or 0")
    return size


def _labels(dataset: Arrays, stratify: str | None, group: str | None) -> tuple[np.ndarray | None, bool]:
    """The field to stratify or to group by, as integers 0 .. K - 1, and whether it is to group by."""
    if stratify is not None and group is not None:
        raise ValueError(f"stratify={stratify!r} and group={group!r} cannot be had together: choose one")
    name = group if stratify is None else stratify
    if name is None:
        return None, False
    values = dataset[name]
    word = "stratify" if group is None else "group"
    if values.dtype.kind not in "iub":
        raise TypeError(f"{word}={name!r} wants a field of integers, got {values.dtype}")
    if values.ndim != 1:
        raise ValueError(f"{word}={name!r} wants a field of shape [n], got {list(values.shape)}")
    return np.unique(values, return_inverse=True)[1].reshape(-1), group is not None


def _assign_classes(part: np.ndarray, labels: np.ndarray, sizes: list[int], seed: int) -> None:
    order = permutation(len(part), seed, 0, SPLIT)
    pools = order[np.argsort(labels[order], kind="stable")]  # class after class, in random order inside each
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))[:-1]])
    left = np.bincount(labels)
    ties = permutation(len(left), seed, 1, SPLIT)
    for number, size in enumerate(sizes, start=1):
        total = int(left.sum())
        take, remainder = np.divmod(size * left, total)
        extra = ties[np.argsort(-remainder[ties], kind="stable")][: size - int(take.sum())]
        take[extra] += 1
        for start, count in zip(starts, take, strict=True):
            part[pools[start : start + count]] = number
        starts, left = starts + take, left - take


def _assign_groups(part: np.ndarray, groups: np.ndarray, sizes: list[int], seed: int) -> None:
    counts = np.bincount(groups)
    order = permutation(len(counts), seed, 1, SPLIT)
    ends = np.concatenate([[0], np.cumsum(counts[order])])
    wanted = sum(size > 0 for size in sizes) + 1
    if len(counts) < wanted:
        raise ValueError(f"{len(counts)} groups cannot make {wanted} parts: each part holds at least one whole group")
    first = 0
    for number, size in enumerate(sizes, start=1):
        if not size:
            continue
        wanted -= 1
        # At least one group here, and one left for each part that is still to come.
        choices = np.arange(first + 1, len(counts) - wanted + 1)
        last = int(choices[np.argmin(np.abs(ends[choices] - ends[first] - size))])
        part[np.isin(groups, order[first:last])] = number
        first = last
