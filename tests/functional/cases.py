"""Which of many combinations to test, and how to compare large arrays by a few numbers."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np


def pairwise(factors: Mapping[str, Sequence]) -> list[dict]:
    """A short list of combinations in which every pair of values of any two factors appears. Greedy, deterministic."""
    names = list(factors)
    todo = {
        (a, x, b, y)
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(range(len(factors[a])), range(len(factors[b])))
    }
    grid = list(itertools.product(*(range(len(factors[name])) for name in names)))
    np.random.default_rng(0).shuffle(grid)

    def covered(combo: Sequence[int]) -> set:
        return {(a, x, b, y) for (a, x), (b, y) in itertools.combinations(zip(names, combo, strict=True), 2)}

    chosen = []
    while todo:
        best = max(grid, key=lambda combo: len(covered(combo) & todo))
        todo -= covered(best)
        chosen.append({name: factors[name][i] for name, i in zip(names, best, strict=True)})
    return chosen


def fingerprint(*arrays) -> np.ndarray:
    """Eight random projections of each array: different arrays agree in all of them with probability zero.

    They keep the golden files small. Each has the scale of one element, so tolerances mean what they say.
    """
    lines = []
    for array in arrays:
        flat = np.asarray(array, np.float64).ravel()
        directions = np.random.default_rng(flat.size).standard_normal((8, flat.size))
        lines.append(directions @ flat / np.sqrt(max(flat.size, 1)))
    return np.concatenate(lines)


def close(got, want, tolerance: float) -> None:
    """Equal up to `tolerance`, relative above 1 and absolute below."""
    np.testing.assert_allclose(
        np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=tolerance, atol=tolerance
    )
