"""Why a gradient is wrong: what common mistakes would give is compared with what is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["Finding", "Probe", "explain"]


@dataclass(frozen=True)
class Finding:
    """A leaf whose derivatives are wrong, its worst element, and the likely cause.

    `cause` is one of "sign", "factor", "missing factor", "missing term", "transposed", "reordered", "exchanged",
    "lost", "not finite", "non-smooth", "jump", "elements", "not found"; `why` says it in words.
    """

    order: int
    mode: str
    leaf: str
    element: tuple[int, ...]
    got: float
    expected: float
    cause: str
    why: str

    def __str__(self) -> str:
        what = {1: "first", 2: "second"}[self.order]
        return (
            f"{self.leaf}, element {list(self.element)}: the {what} derivative by {self.mode} mode is {self.got:.6g}, "
            f"by finite differences {self.expected:.6g}\n  likely cause: {self.cause}: {self.why}"
        )


@dataclass(frozen=True, eq=False)
class Probe:
    """Derivatives of some elements of one leaf, `[points, elements]` by name; `chosen` are their flat positions."""

    shape: tuple[int, ...]
    chosen: Any
    values: Mapping[str, Any]
    rtol: float

    def allowed(self, found: Any) -> Any:
        """The tolerance of each element: relative to itself, and a hundredth of that to the largest of its leaf."""
        v = self.values
        slope = np.abs(v["slope"])
        largest = np.max(np.where(np.isfinite(slope), slope, 0), axis=1, keepdims=True, initial=0)
        own = np.where(np.isfinite(found), np.maximum(np.abs(found), slope), slope)
        return v["noise"] + v["truncation"] + self.rtol * (own + 0.01 * largest)

    @property
    def whole(self) -> bool:
        """Whether every element of the leaf is in it."""
        return len(self.chosen) == int(np.prod(self.shape, dtype=np.int64))


def explain(order: int, mode: str, k: int, paths: Sequence[str], probes: Mapping[int, Probe]) -> Finding | None:
    """What is wrong with leaf k in this mode; None where nothing is."""
    probe = probes[k]
    got, want, allowed = probe.values[mode], probe.values["slope"], probe.allowed(probe.values[mode])
    with np.errstate(all="ignore"):
        error = np.abs(got - want)
        wrong = ~(error <= allowed)
        if not wrong[0].any():
            return None
        rank = np.where(np.isfinite(error[0]), error[0] / allowed[0], np.inf)
        worst = int(np.argmax(np.where(wrong[0], rank, -1)))
        cause, why = _cause(mode, k, paths, probes, wrong)
    index = tuple(int(i) for i in np.unravel_index(int(probe.chosen[worst]), probe.shape))
    return Finding(order, mode, paths[k], index, float(got[0, worst]), float(want[0, worst]), cause, why)


def _cause(mode: str, k: int, paths: Sequence[str], probes: Mapping[int, Probe], wrong: Any) -> tuple[str, str]:
    probe = probes[k]
    v, got, want = probe.values, probe.values[mode], probe.values["slope"]
    bad = wrong[0]
    if not np.isfinite(want[0][bad]).all():
        return "not finite", "the function itself is not finite near the point: check the values that go into it"
    if not np.isfinite(got[0][bad]).all():
        return "not finite", (
            "the function is finite but its gradient is not: 0 times infinity, as when where() hides a division, a "
            "root or a logarithm whose gradient is computed all the same: make its operand safe with a where() inside"
        )
    if found := _rough(v, bad, got):
        return found
    points = [p for p in range(len(want)) if np.isfinite(want[p]).all() and np.isfinite(got[p]).all()]
    a, n, x = got[points], want[points], v["x"][points]
    tolerance = probe.allowed(got)[points]

    def same(left: Any, right: Any) -> bool:
        return bool(np.all(np.abs(left - right) <= 3 * tolerance))

    if np.all(np.abs(a[0]) <= 1e-12 * (1 + np.abs(n[0]))):
        return (
            "lost",
            "the gradient is zero: stop_gradient, a rounding or an integer on the way, or an argument the rule forgets",
        )
    if same(a, -n):
        return "sign", "every element is minus the right one"
    for j, other in probes.items():
        if j != k and other.shape == probe.shape and same(a, other.values["slope"][points]):
            return (
                "exchanged",
                f"this is the derivative with respect to {paths[j]}: the rule returns them in another order",
            )
    moved = _moved(probe, a, n, same)
    ratio = _ratio(a, n, tolerance)
    if ratio is not None:
        return (
            "factor",
            f"every element is {_fraction(ratio, probe.rtol)} times the right one{_hint(ratio, probe.shape)}",
        )
    if moved:
        return moved
    share = float(np.mean(wrong[: len(points)]))
    if share <= 0.5 and a.shape[1] > 2:
        places = [
            tuple(int(i) for i in np.unravel_index(int(c), probe.shape)) for c in probe.chosen[np.any(wrong, axis=0)]
        ]
        shown = ", ".join(str(list(p)) for p in places[:6]) + (", ..." if len(places) > 6 else "")
        return "elements", f"only some elements are wrong ({shown}), the others are right: an index, a boundary, a mask"
    for name, factor in (("the argument", x), ("the square of the argument", x * x), ("1 / the argument", 1 / x)):
        if np.isfinite(factor).all() and (c := _ratio(n, a * factor, tolerance)) is not None:
            times = "" if abs(c - 1) < 1e-2 else f"{_fraction(c, probe.rtol)} times "
            return "missing factor", f"a factor of the chain rule is missing: {times}{name}"
    return "missing term", _missing(n - a, x, tolerance, probe.rtol)


def _rough(v: Mapping[str, Any], bad: Any, got: Any) -> tuple[str, str] | None:
    """A kink or a jump at the point: one-sided slopes that differ however small the step."""
    up, down, near_up, near_down = (v[name][0][bad] for name in ("up", "down", "near_up", "near_down"))
    wide, near, noise = np.abs(up - down), np.abs(near_up - near_down), 4 * v["noise"][0][bad]
    size = np.maximum(np.abs(near_up), np.abs(near_down))
    if np.all((near > 0.75 * wide) & (near > noise + 0.02 * size)):
        if np.all(near > 1.5 * wide):
            return "jump", "the function jumps here, so it has no derivative: a comparison, a rounding, an index"
        inside = np.minimum(near_up, near_down) - noise <= got[0][bad]
        inside &= got[0][bad] <= np.maximum(near_up, near_down) + noise
        fine = "; what JAX gives lies between them, as a subgradient may" if inside.all() else ""
        i = int(np.argmax(near))
        return "non-smooth", (
            f"the function has a kink here: its slopes are {near_down[i]:.4g} on the left and {near_up[i]:.4g} on the "
            f"right{fine}: check it at another point"
        )
    return None


def _ratio(a: Any, n: Any, tolerance: Any) -> float | None:
    """The number c with a = c n at all elements and points."""
    weight = float(np.sum(n * n))
    if weight == 0 or a.size < 2:
        return None
    c = float(np.sum(a * n)) / weight
    close = np.abs(a - c * n) <= 3 * tolerance * max(1.0, abs(c))
    return c if bool(np.all(close)) and abs(c) > 1e-6 and float(np.sum(a * a)) > 0 else None


def _fraction(c: float, rtol: float) -> str:
    """A simple fraction where it is one within the accuracy of the differences."""
    near = Fraction(c).limit_denominator(64)
    return str(near) if near and abs(float(near) / c - 1) < 3 * rtol else f"{c:.6g}"


def _hint(c: float, shape: tuple[int, ...]) -> str:
    sizes = {int(np.prod(shape, dtype=np.int64)), *shape}
    for size in sorted(s for s in sizes if s > 1):
        if abs(c * size - 1) < 5e-3 or abs(c / size - 1) < 5e-3:
            return f": a mean over {size} taken for a sum, or the other way round"
    if abs(c - 2) < 1e-2 or abs(c - 0.5) < 5e-3:
        return ": the 2 of a square, or the 1/2 in front of it"
    return ""


def _moved(probe: Probe, a: Any, n: Any, same: Any) -> tuple[str, str] | None:
    if not probe.whole or a.shape[1] < 2:
        return None
    whole = n.reshape(len(n), *probe.shape)
    if len(probe.shape) == 2 and same(a, np.swapaxes(whole, 1, 2).reshape(len(n), -1)):
        return "transposed", "the elements are those of the transposed matrix: x' y in place of y' x, or a missing .T"
    for axis in range(1, whole.ndim):
        if same(a, np.flip(whole, axis).reshape(len(n), -1)):
            return "reordered", f"the elements are right but reversed along axis {axis - 1}"
        for shift in (1, -1):
            if same(a, np.roll(whole, shift, axis).reshape(len(n), -1)):
                return "reordered", f"the elements are right but shifted by {shift} along axis {axis - 1}"
    if same(np.sort(a, axis=1), np.sort(n, axis=1)):
        return "reordered", "the elements are right but in another order"
    return None


def _missing(rest: Any, x: Any, tolerance: Any, rtol: float) -> str:
    if (c := _ratio(rest, np.ones_like(rest), tolerance)) is not None:
        return f"what is missing is the same number everywhere, {c:.4g}: the derivative of a sum or of a mean"
    if (c := _ratio(rest, x, tolerance)) is not None:
        return (
            f"what is missing is {_fraction(c, rtol)} times the argument: the gradient of an L2 penalty, or of a square"
        )
    if (c := _ratio(rest, np.sign(x), tolerance)) is not None:
        return f"what is missing is {_fraction(c, rtol)} times its sign: the gradient of an L1 penalty"
    return "no factor makes it right: one side of a product or one of several paths to the output is left out or wrong"
