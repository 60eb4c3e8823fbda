"""Paths into nested trees: one syntax for freezing, decay, learning-rate groups, loading and logging.

A leaf's path joins its keys with `/`: `blocks/attn/qkv/w`. A pattern is a glob over path segments: `*`, `?` and
`[...]` stay inside one segment, `**` stands for any number of segments, none included. So `**/w` is every leaf called
`w`, `backbone/**` is everything below `backbone`, `head/b` is one leaf.

>>> params = {"backbone": {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}, "head": {"w": jnp.ones((2, 1))}}
>>> list(flatten(params))
['backbone/b', 'backbone/w', 'head/w']
>>> match(params, "**/w")
{'backbone': {'b': False, 'w': True}, 'head': {'w': True}}
"""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["count", "diff", "flatten", "map_with_path", "match", "nbytes", "path_str", "select"]

Tree = Any


def _segment(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def path_str(key_path: Sequence[Any]) -> str:
    """The path of a leaf, from the key path that `jax.tree_util` gives."""
    return "/".join(_segment(key) for key in key_path)


def flatten(tree: Tree) -> dict[str, Any]:
    """The leaves of `tree` by path, in JAX's own leaf order."""
    return {path_str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_path(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map`, with the leaf's path as the first argument of `fn`."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(path_str(path), *leaves), tree, *rest)


def _matches(segments: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not segments
    if pattern[0] == "**":
        return any(_matches(segments[i:], pattern[1:]) for i in range(len(segments) + 1))
    return bool(segments) and fnmatch.fnmatchcase(segments[0], pattern[0]) and _matches(segments[1:], pattern[1:])


def match(tree: Tree, patterns: str | Iterable[str], *, required: bool = True) -> Tree:
    """A tree of booleans: whether each leaf's path matches any of the globs in `patterns`.

    Raises:
      ValueError: a pattern matches no leaf, unless `required` is False; the message lists the nearest paths.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    paths = list(flatten(tree))
    hits = {pattern: [p for p in paths if _matches(p.split("/"), pattern.split("/"))] for pattern in patterns}
    if required:
        for pattern, found in hits.items():
            if not found:
                raise ValueError(_nothing_matches(pattern, paths))
    chosen = {path for found in hits.values() for path in found}
    return map_with_path(lambda path, _: path in chosen, tree)


def _nothing_matches(pattern: str, paths: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern.replace("**/", "").replace("/**", ""), paths, n=5, cutoff=0.3)
    shown = ", ".join(near or paths[:5]) or "none: the tree has no leaves"
    return f"pattern {pattern!r} matches none of the {len(paths)} paths; near it: {shown}"


def select(tree: Tree, patterns: str | Iterable[str], *, required: bool = True) -> dict[str, Any]:
    """The leaves whose paths match, by path. Raises as `match` does."""
    chosen = flatten(match(tree, patterns, required=required))
    return {path: leaf for path, leaf in flatten(tree).items() if chosen[path]}


def count(tree: Tree) -> int:
    """The number of elements in all leaves (arrays or shapes)."""
    return sum(int(np.prod(np.shape(leaf), dtype=np.int64)) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Tree) -> int:
    """The bytes that the arrays (or shapes) of `tree` take."""
    return sum(
        int(np.prod(np.shape(leaf), dtype=np.int64)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree)
    )


def _describe(leaf: Any) -> str:
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        return repr(leaf) if len(repr(leaf)) < 40 else type(leaf).__name__
    weak = ", weak type" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype}[{','.join(str(n) for n in leaf.shape)}]{weak}"


def diff(expected: Tree, got: Tree, *, limit: int = 8, values: bool = False) -> str:
    """What differs between two trees, one line a path: missing, unexpected, shape, dtype, weak type.

    Empty when the trees have the same structure, shapes and dtypes. At most `limit` lines, and one that counts the
    rest. With `values=True` leaves that are not arrays are compared by value too.
    """
    want, have = flatten(expected), flatten(got)
    lines = []
    for path in want.keys() | have.keys():
        if path not in have:
            lines.append(f"{path}: missing (expected {_describe(want[path])})")
        elif path not in want:
            lines.append(f"{path}: unexpected (got {_describe(have[path])})")
        elif _describe(want[path]) != _describe(have[path]) and (values or hasattr(want[path], "dtype")):
            lines.append(f"{path}: expected {_describe(want[path])}, got {_describe(have[path])}")
    lines.sort()
    if not lines:
        a, b = jax.tree.structure(expected), jax.tree.structure(got)
        if a != b:
            lines = [f"the containers differ: expected {a}, got {b}"]
    if len(lines) > limit:
        lines = [*lines[:limit], f"... and {len(lines) - limit} more"]
    return "\n".join(lines)
