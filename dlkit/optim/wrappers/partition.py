"""Another transform for each group of parameters."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax

from dlkit.optim.leaves import check_like
from dlkit.optim.transform import Transform, call_update, check_link
from dlkit.optim.wrappers.labels import resolve_labels, settle_labels
from dlkit.optim.wrappers.masks import MaskedNode, MaskedState, choose, choose_extra
from dlkit.optim.wrappers.shown import Shown

__all__ = ["Partition", "PartitionState", "multi_transform", "partition"]


class PartitionState(NamedTuple):
    """The states of the groups' transforms, by label; each was made for the leaves of its group alone."""

    inner_states: dict[Any, MaskedState]


@dataclass(frozen=True, repr=False)
class Partition(Shown, Transform[PartitionState]):
    """Each group of parameters has a transform of its own, with a state for its own leaves alone.

    Args:
      transforms: by label; optax's transformations too.
      param_labels: which label each parameter has: a tree of labels (or a prefix of one), or a callable from the
        parameters to such a tree. None (the default): the labels are path globs, and the first one that matches a
        leaf's path, in the order of the mapping, is its group.
      mask_compatible_extra_args: whether an extra argument of `update` with the structure of the gradients (`grad=`) is
        cut down to the group, too.

    Differences. optax: path globs are new; there, a label that no transform has is an error as well, but of the update.
    `multi_transform` is the same function under its old name. torch: parameter groups.

    >>> import jax.numpy as jnp
    >>> from dlkit import optim
    >>> tx = partition({"head/**": optim.sgd(1.0), "**": optim.sgd(0.1)})
    >>> grads = {"body": {"w": jnp.ones(1)}, "head": {"w": jnp.ones(1)}}
    >>> updates, state = tx.update(grads, tx.init(grads), grads)
    >>> updates["body"]["w"], updates["head"]["w"]
    (Array([-0.1], dtype=float32), Array([-1.], dtype=float32))

    Raises:
      TypeError: `transforms` is no mapping to transforms.
      ValueError: from `init` and `update`, when labels and parameters do not fit: a glob that matches nothing, a leaf
        without a group, an unknown label.
    """

    transforms: Any
    param_labels: Any = None
    _: KW_ONLY
    mask_compatible_extra_args: bool = False

    def __post_init__(self) -> None:
        pairs = tuple(self.transforms.items()) if isinstance(self.transforms, Mapping) else self.transforms
        if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise TypeError(f"partition: transforms is {self.transforms!r}, wanted a mapping from labels to transforms")
        for _, link in pairs:
            check_link("partition", link)
        if self.param_labels is None and not all(isinstance(label, str) for label, _ in pairs):
            raise TypeError("partition: without param_labels the keys of transforms are path globs: strings")
        object.__setattr__(self, "transforms", pairs)
        object.__setattr__(self, "param_labels", settle_labels(self.param_labels))

    def init(self, params: Any) -> PartitionState:
        labels = self._labels(params)
        return PartitionState(
            {
                label: MaskedState(link.init(choose(self._chosen(labels, label), params)))
                for label, link in self.transforms
            }
        )

    def update(self, grads: Any, state: PartitionState, params: Any = None, **extra: Any) -> tuple[Any, PartitionState]:
        if params is not None:
            check_like("partition", "the gradients do not match the parameters", params, grads)
        labels, updates, states = self._labels(grads if params is None else params), [], {}
        for label, link in self.transforms:
            mask = self._chosen(labels, label)
            some = None if params is None else choose(mask, params)
            given = choose_extra(mask, grads, params, extra, every=self.mask_compatible_extra_args)
            held = state.inner_states[label].inner_state
            new, held = call_update(link, choose(mask, grads), held, some, given)
            updates.append(new)
            states[label] = MaskedState(held)
        order = {label: i for i, (label, _) in enumerate(self.transforms)}
        merged = jax.tree.map(
            lambda label, *news: news[order[label]], labels, *updates, is_leaf=lambda x: isinstance(x, MaskedNode)
        )
        return merged, PartitionState(states)

    def _labels(self, params: Any) -> Any:
        return resolve_labels("partition", self.param_labels, tuple(label for label, _ in self.transforms), params)

    def _chosen(self, labels: Any, wanted: Any) -> Any:
        return jax.tree.map(lambda label: label == wanted, labels)


partition = multi_transform = Partition
