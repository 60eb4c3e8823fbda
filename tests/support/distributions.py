"""Whether two sets of draws have the same mean, standard deviation and bounds."""

import numpy as np


def statistics(w):
    w = np.asarray(w, np.float64)
    return {"mean": w.mean(), "std": w.std(), "low": w.min(), "high": w.max()}


def assert_same_statistics(got, want, what, bounded):
    """Within 2 %: of the standard deviation, and of the bounds where the distribution has some."""
    unit = max(float(want["std"]), abs(float(want["mean"])) if want["std"] == 0 else 0.0)
    for name in ("mean", "std", "low", "high") if bounded else ("mean", "std"):
        tolerance = 0.02 * (abs(float(want[name])) if name in ("low", "high") else unit)
        assert abs(got[name] - float(want[name])) <= tolerance, f"{what}: {name} {got[name]}, expected {want[name]}"
