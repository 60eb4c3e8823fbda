"""A label for every parameter: path globs in order, a tree of labels (or a prefix of one), or a callable."""

from dataclasses import dataclass
from typing import Any

import jax

from dlkit import tree
from dlkit.optim.wrappers.masks import ParamsPlaceholder

__all__ = ["LabelTree", "labels_of_globs", "resolve_labels", "settle_labels"]


@dataclass(frozen=True)
class LabelTree:
    """A tree of labels in a hashable form."""

    structure: Any
    leaves: tuple[Any, ...]

    def tree(self) -> Any:
        return jax.tree.unflatten(self.structure, self.leaves)


def settle_labels(labels: Any) -> Any:
    """The labels in the form that a definition holds: None, a callable, or a `LabelTree`."""
    if labels is None or callable(labels) or isinstance(labels, LabelTree):
        return labels
    leaves, structure = jax.tree.flatten(labels)
    return LabelTree(structure, tuple(leaves))


def labels_of_globs(owner: str, globs: tuple[str, ...], params: Any) -> Any:
    """For every leaf the first of the globs that matches its path.

    Raises:
      ValueError: a glob matches nothing, or nothing that an earlier one has not taken; or a leaf matches none.
    """
    hits = {glob: tree.flatten(tree.match(params, glob)) for glob in globs}
    first = {path: next((g for g in globs if hits[g][path]), None) for path in tree.flatten(params)}
    for glob in globs:
        if glob not in first.values():
            raise ValueError(
                f"{owner}: every leaf that {glob!r} matches is taken by a glob before it: the first match counts, so "
                "put the special ones first"
            )
    without = [path for path, glob in first.items() if glob is None]
    if without:
        raise ValueError(
            f"{owner}: {len(without)} leaves match none of the globs {', '.join(map(repr, globs))}: "
            f"{', '.join(without[:5])}; add a last glob '**' for them"
        )
    return tree.map_with_path(lambda path, _: first[path], params)


def resolve_labels(owner: str, labels: Any, known: tuple[Any, ...], params: Any) -> Any:
    """The tree of labels, one for every leaf of `params`: by the globs `known` where `labels` is None.

    Raises:
      ValueError: the labels do not fit the parameters, or one is none of `known`; or as `labels_of_globs`.
    """
    if isinstance(params, ParamsPlaceholder):
        return params
    if labels is None:
        return labels_of_globs(owner, known, params)
    given = labels.tree() if isinstance(labels, LabelTree) else labels(params)
    try:
        full = jax.tree.map(lambda label, below: jax.tree.map(lambda _: label, below), given, params)
    except (ValueError, TypeError):
        raise ValueError(
            f"{owner}: the labels do not fit the parameters (nor are they a prefix of them):\n"
            f"{tree.diff(params, given)}"
        ) from None
    strange = {path: label for path, label in tree.flatten(full).items() if label not in known}
    if strange:
        path, label = next(iter(strange.items()))
        raise ValueError(
            f"{owner}: the label of {path!r} is {label!r}, wanted one of {', '.join(map(repr, known)) or 'none'}"
        )
    return full
