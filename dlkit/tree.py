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

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "WEIGHTS",
    "count",
    "diff",
    "flatten",
    "map_with_path",
    "match",
    "match_weights",
    "nbytes",
    "path_str",
    "select",
]

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
    """The leaves of `tree` by path, in JAX's own leaf order.

    Raises:
      ValueError: two leaves have one path, as in `{"a/b": x, "a": {"b": y}}`.
    """
    leaves: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = path_str(key_path)
        if path in leaves:
            raise ValueError(
                f"two leaves have the path {path!r}, so nothing can be addressed by it: "
                'rename one of them (a key that contains "/" looks like two levels)'
            )
        leaves[path] = leaf
    return leaves


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


def _short(text: str, width: int) -> str:
    """`text` with its middle left out where it is longer than `width`."""
    return text if len(text) <= width else f"{text[: width // 2 - 2]} .. {text[-(width - width // 2 - 2) :]}"


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def _describe(leaf: Any) -> str:
    if not _is_array(leaf):
        text = repr(leaf)
        return text if len(text) < 40 and "\n" not in text else type(leaf).__name__
    weak = ", weak type" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype}[{','.join(str(n) for n in leaf.shape)}]{weak}"


def _line(key_path: Sequence[Any], expected: str, got: str) -> str:
    expected, got = _short(expected, 60), _short(got, 60)
    path = path_str(key_path) or "the root"
    if not got:
        return f"{_short(path, 100)}: missing (expected {expected})"
    if not expected:
        return f"{_short(path, 100)}: unexpected (got {got})"
    return f"{_short(path, 180 - len(expected) - len(got))}: expected {expected}, got {got}"


def _children(node: Any) -> tuple[list[tuple[Any, Any]] | None, Any]:
    """The keys and children one level below (None for a leaf), and the structure of that level alone."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if [key_path for key_path, _ in pairs] == [()]:
        return None, structure
    return [(key_path[0], child) for key_path, child in pairs], structure


def _only_in_one(key_path: tuple[Any, ...], node: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    leaves = jax.tree_util.tree_leaves_with_path(node)
    if not leaves:
        yield key_path, "None" if node is None else f"an empty {type(node).__name__}"
    for rest, leaf in leaves:
        yield (*key_path, *rest), _describe(leaf)


def _kinds(a: Any, b: Any) -> tuple[str, str]:
    """The names of two types, with their modules where the names alone are the same."""
    kinds = [type(x) for x in (a, b)]
    names = ["None" if kind is type(None) else kind.__name__ for kind in kinds]
    if names[0] == names[1]:
        names = [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]
    return names[0], names[1]


def _static(a: Any, b: Any, children: set[Any], structures: tuple[Any, Any]) -> tuple[str, str]:
    """What differs between two containers of one type and with the same children: their static fields."""
    if dataclasses.is_dataclass(a):
        kind, names = type(a).__name__, {getattr(key, "name", None) for key in children}
        for field in dataclasses.fields(a):
            ours, theirs = getattr(a, field.name, None), getattr(b, field.name, None)
            if field.name not in names and repr(ours) != repr(theirs):
                return f"{kind}({field.name}={_describe(ours)})", f"{kind}({field.name}={_describe(theirs)})"
    return str(structures[0]), str(structures[1])


def _sharding(leaf: Any) -> Any:
    """Where a committed array lies; None for what has no place: numpy arrays, shapes, traced values."""
    try:
        return leaf.sharding if leaf.committed else None
    except (AttributeError, TypeError):  # what traced values raise is a TypeError
        return None


def _place(sharding: Any) -> str:
    devices = sorted(device.id for device in sharding.device_set)
    ids = ",".join(map(str, devices)) if len(devices) <= 4 else f"{devices[0]}..{devices[-1]}"
    spec = getattr(sharding, "spec", None)
    how = "" if spec is None else f"{tuple(spec)} of {dict(sharding.mesh.shape)} "
    return f"{how}on {next(iter(sharding.device_set)).platform} {ids}"


def _leaf_difference(a: Any, b: Any, values: bool) -> tuple[str, str] | None:
    if not (_is_array(a) and _is_array(b)):
        same = not (_is_array(a) or _is_array(b)) and type(a) is type(b)
        return None if same and (not values or repr(a) == repr(b)) else (_describe(a), _describe(b))
    if _describe(a) != _describe(b):
        return _describe(a), _describe(b)
    ours, theirs = _sharding(a), _sharding(b)
    if ours is None or theirs is None or ours.is_equivalent_to(theirs, len(a.shape)):
        return None
    return _place(ours), _place(theirs)


def _differences(key_path: tuple[Any, ...], a: Any, b: Any, values: bool) -> Iterator[str]:
    (ours, structure), (theirs, other) = _children(a), _children(b)
    if ours is None and theirs is None:
        found = _leaf_difference(a, b, values)
        if found:
            yield _line(key_path, *found)
    elif ours is None or theirs is None:
        expected = _describe(a) if ours is None else _kinds(a, b)[0]
        yield _line(key_path, expected, _describe(b) if theirs is None else _kinds(a, b)[1])
    elif type(a) is not type(b):
        yield _line(key_path, *_kinds(a, b))
    else:
        have = dict(theirs)
        for key, child in ours:
            if key in have:
                yield from _differences((*key_path, key), child, have[key], values)
            else:
                yield from (_line(path, what, "") for path, what in _only_in_one((*key_path, key), child))
        known = {key for key, _ in ours}
        for key, child in theirs:
            if key not in known:
                yield from (_line(path, "", what) for path, what in _only_in_one((*key_path, key), child))
        if structure != other and known == have.keys():
            yield _line(key_path, *_static(a, b, known, (structure, other)))


def diff(expected: Tree, got: Tree, *, limit: int = 8, values: bool = False) -> str:
    """What differs between two trees, one short line a path: missing, unexpected, container, shape, dtype, weak type,
    sharding, an array beside something else.

    Empty when the trees have the same containers, shapes and dtypes. Two containers of different types are one line,
    whatever they hold. Shardings are compared where both leaves are arrays committed to their devices. At most `limit`
    lines, each below 200 characters, and one that counts the rest. With `values=True` leaves that are not arrays are
    compared by value too.

    >>> print(diff({"a": (1.0, 2.0), "b": jnp.zeros(2)}, {"a": [1.0, 2.0], "b": jnp.zeros(3)}))
    a: expected tuple, got list
    b: expected float32[2], got float32[3]
    """
    lines = list(_differences((), expected, got, values))
    if len(lines) > limit:
        lines = [*lines[:limit], f"... and {len(lines) - limit} more"]
    return "\n".join(lines)


WEIGHTS = ("**/w", "**/table")
"""The weights proper: matrices, kernels and embedding tables, so no bias, no scale or shift of a norm."""


def match_weights(tree: Tree, patterns: str | Iterable[str] = WEIGHTS) -> Tree:
    """`match`, but of `WEIGHTS` one glob is enough, since not every model has tables: what decays and penalties act on.

    >>> match_weights({"head": {"w": 1.0, "b": 2.0}})
    {'head': {'b': False, 'w': True}}

    Raises:
      ValueError: neither glob of `WEIGHTS` matches a leaf, or one of any other patterns does not.
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if patterns != WEIGHTS:
        return match(tree, patterns)
    found = match(tree, patterns, required=False)
    if not any(jax.tree.leaves(found)):
        paths = list(flatten(tree))
        shown = ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "") or "none: the tree has no leaves"
        raise ValueError(
            f"`WEIGHTS`, the leaves called `w` or `table`, matches none of the {len(paths)} paths; "
            f"give globs of your own; the paths are: {shown}"
        )
    return found
