"""Loading a part of a file into parameters that exist: another head, another prefix, no optimizer state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.io.report import Report
from dlkit.io.tensors import Tensors, open_tensors, write_tensors

__all__ = ["load", "save"]


def save(path: str | Path, params: Any, metadata: dict[str, str] | None = None) -> None:
    """Write a tree of arrays as one safetensors file, by path: `blocks/attention/q/w`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save(path, {"head": {"w": jnp.ones((2, 3))}})
    >>> load({"head": {"w": jnp.zeros((2, 3))}}, path)[0]["head"]["w"].sum()
    Array(6., dtype=float32)
    """
    write_tensors(path, tree.flatten(params), metadata)


def load(
    into: Any,
    path: str | Path | Tensors,
    *,
    rename: Sequence[tuple[str, str]] = (),
    skip: Sequence[str] = (),
    on_mismatch: Literal["error", "keep"] = "error",
) -> tuple[Any, Report]:
    """`into` with the numbers of a file at the same paths, and the report of what was used.

    Args:
      into: a tree of arrays, such as fresh parameters; what is not loaded stays bit for bit.
      path: as of `open_tensors`: a file, a directory with shards, the step of a checkpoint.
      rename: pairs of prefixes of whole path segments, (in the file, in `into`), the first that fits is applied: the
        pair ("train/params", "") takes that prefix away, ("", "encoder") puts one in front.
      skip: globs of paths, after renaming. Names of the file that match are left out, and leaves of `into` that match
        stay as they are: "opt_state/**" drops an optimizer's state, "head/**" starts a new head.
      on_mismatch: "keep" lets a leaf stay as it is where the file has another shape; the report tells of it as kept.

    Returns:
      The tree, of the containers and dtypes of `into`, and the report.

    Raises:
      WeightsError: a leaf is not in the file, a name has no leaf, or a shape differs; with the report.
      TypeError: the file's dtype is not that of the leaf in kind: integers for floating point.
    """
    if on_mismatch not in ("error", "keep"):
        raise ValueError(f"load got on_mismatch={on_mismatch!r}; want 'error' or 'keep'")
    tensors = path if isinstance(path, Tensors) else open_tensors(path)
    leaves = tree.flatten(into)
    names = {name: _renamed(name, rename) for name in tensors}
    if doubled := {new for new in names.values() if list(names.values()).count(new) > 1}:
        raise ValueError(f"load: rename={list(rename)} gives two names of the file the path {min(doubled)!r}")
    every = dict.fromkeys([*names.values(), *leaves], 0)
    left = tree.match(every, skip) if skip else dict.fromkeys(every, False)
    new, used, mismatched, unexpected, kept = dict(leaves), [], [], [], []
    for name, at in names.items():
        if left[at]:
            continue
        if at not in leaves:
            unexpected.append(name)
        elif tuple(jnp.shape(leaves[at])) != tensors.shapes[name]:
            if on_mismatch == "keep":
                kept.append(at)
            else:
                want, got = list(jnp.shape(leaves[at])), list(tensors.shapes[name])
                mismatched.append(f"{name}: expected {want}, got {got}")
        else:
            new[at] = converted(name, tensors[name], jnp.result_type(leaves[at]))
            used.append(name)
    there = set(names.values())
    report = Report(
        tuple(used),
        tuple(p for p in leaves if p not in there and not left[p]),
        tuple(unexpected),
        tuple(mismatched),
        tuple(name for name, at in names.items() if left[at]),
        (*kept, *(p for p in leaves if left[p])),
    ).check("the file" if isinstance(path, Tensors) else str(path))
    return jax.tree.unflatten(jax.tree.structure(into), list(new.values())), report


def converted(name: str, value: np.ndarray, dtype: Any) -> jax.Array:
    """`value` as an array of ours, of `dtype`."""
    kinds = [jnp.issubdtype(d, jnp.inexact) for d in (value.dtype, dtype)]
    if kinds[0] != kinds[1]:
        raise TypeError(f"{name} is {value.dtype} in the file; the model has {dtype} there")
    return jnp.asarray(np.array(value).astype(dtype))


def _renamed(name: str, rename: Sequence[tuple[str, str]]) -> str:
    for old, new in rename:
        if old == "" or name == old or name.startswith(f"{old}/"):
            rest = name[len(old) :].lstrip("/")
            return "/".join(part for part in (new, rest) if part)
    return name
