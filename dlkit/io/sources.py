"""Where each leaf of a model lies in somebody else's file: names and layouts, used in both directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import jax
import numpy as np

from dlkit import tree
from dlkit.io.load import converted
from dlkit.io.report import Report
from dlkit.io.tensors import Tensors

__all__ = ["Source", "export_tensors", "import_tensors"]

Layout = Literal["same", "transpose", "conv", "conv_transpose", "channels"]


@dataclass(frozen=True)
class Source:
    """Where a leaf comes from.

    - `names`: one name, or with `stacked` one for each index of the leaf's first axis (the blocks of a `Stack`).
    - `layout`: how theirs differs: "transpose" for torch's linear maps, "conv" for `[c_out, c_in, *kernel]`,
      "conv_transpose" for `[c_in, c_out, *kernel]`; these become `[*kernel, c_in, c_out]` and `[*kernel, c_out,
      c_in]`; "channels" for `[d, 1, 1]` where ours is `[d]`.
    - `part`: (i, n) where theirs is n of ours side by side along our last axis, as q, k and v in one matrix.
    """

    names: tuple[str, ...]
    layout: Layout = "same"
    part: tuple[int, int] = (0, 1)
    stacked: bool = False


def _ours(value: np.ndarray, source: Source) -> np.ndarray:
    """From their layout to ours, without regard to parts."""
    if source.layout == "transpose":
        return value.T
    if source.layout in ("conv", "conv_transpose"):
        return np.moveaxis(value, (0, 1), (-1, -2))
    if source.layout == "channels":
        return value[..., 0, 0]
    return value


def _theirs(value: Any, source: Source) -> Any:
    if source.layout == "transpose":
        return value.T
    if source.layout in ("conv", "conv_transpose"):
        return np.moveaxis(value, (-1, -2), (0, 1))
    if source.layout == "channels":
        return value[..., None, None]
    return value


def _wanted(shape: tuple[int, ...], source: Source) -> tuple[int, ...]:
    """The shape of theirs, from the shape of one of ours."""
    if shape:
        shape = (*shape[:-1], shape[-1] * source.part[1])
    return _theirs(np.broadcast_to(np.zeros((), np.bool_), shape), source).shape


def import_tensors(
    template: Any,
    tensors: Mapping[str, Any],
    sources: Mapping[str, Source],
    *,
    ignore: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    where: str = "the file",
    strict: bool = True,
) -> tuple[Any, Report]:
    """A tree like `template` with the numbers of `tensors`, and the report.

    Args:
      template: arrays or shapes (`jax.eval_shape(model.init, key)`); leaves have its dtypes.
      tensors: from `open_tensors`, or any mapping of names to arrays.
      sources: for every leaf, by path.
      ignore: globs of their names that carry no weights, such as stored masks.
      aliases: their names that hold the same numbers as another one, where weights are tied; compared if both are
        there, and read from the other where only one is.
      strict: raise unless the report is complete; else leaves without numbers keep the template's.

    Raises:
      WeightsError: the report has missing, unexpected or mismatched names, or tied ones hold different numbers.
    """
    aliases = aliases or {}
    leaves = tree.flatten(template)
    if lacking := leaves.keys() - sources.keys():
        raise ValueError(f"import_tensors: no source for the leaves {', '.join(sorted(lacking)[:5])}")
    shapes = tensors.shapes if isinstance(tensors, Tensors) else {k: tuple(np.shape(v)) for k, v in tensors.items()}
    instead = {b: a for a, b in aliases.items() if b not in shapes and a in shapes}
    used: dict[str, None] = {}
    missing: dict[str, None] = {}
    mismatched: dict[str, str] = {}
    kept, made = [], []
    for path, leaf in leaves.items():
        source = sources[path]
        one = tuple(leaf.shape[1:]) if source.stacked else tuple(leaf.shape)
        pieces = []
        for wanted in source.names:
            name = instead.get(wanted, wanted)
            if name not in shapes:
                missing[name] = None
            elif (want := _wanted(one, source)) != shapes[name]:
                mismatched[name] = f"{name}: expected {list(want)}, got {list(shapes[name])}"
            else:
                used[name] = None
                value = _ours(np.asarray(tensors[name]), source)
                i, n = source.part
                if n > 1:
                    size = value.shape[-1] // n
                    value = value[..., i * size : (i + 1) * size]
                pieces.append(value)
        if len(pieces) == len(source.names):
            made.append(converted(path, np.stack(pieces) if source.stacked else pieces[0], leaf.dtype))
        else:
            kept.append(path)
            made.append(leaf)
    unexpected, skipped = [], []
    for name in shapes:
        if name in used or name in mismatched:
            continue
        if name in aliases:
            if aliases[name] in shapes and not np.array_equal(np.asarray(tensors[name]), tensors[aliases[name]]):
                mismatched[name] = f"{name}: expected the numbers of {aliases[name]}, to which it is tied, got others"
            else:
                used[name] = None
        elif any(fnmatchcase(name, glob) for glob in ignore):
            skipped.append(name)
        else:
            unexpected.append(name)
    report = Report(
        tuple(used), tuple(missing), tuple(unexpected), tuple(mismatched.values()), tuple(skipped), tuple(kept)
    )
    if strict:
        report.check(where)
    return jax.tree.unflatten(jax.tree.structure(template), made), report


def export_tensors(params: Any, sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
    """The leaves under their names and in their layout: what `import_tensors` read, bit for bit."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    how: dict[str, Source] = {}
    for path, leaf in tree.flatten(params).items():
        source, value = sources[path], np.asarray(leaf)
        for name, one in zip(source.names, value if source.stacked else [value], strict=True):
            parts.setdefault(name, {})[source.part[0]] = one
            how[name] = source
    found = {}
    for name, held in parts.items():
        value = np.concatenate([held[i] for i in sorted(held)], axis=-1) if len(held) > 1 else held[0]
        found[name] = np.ascontiguousarray(_theirs(value, how[name]))
    return found
