"""Smaller steps for the layers near the input: layer-wise learning-rate decay."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import tree
from dlkit.optim.hyper import Scalar, settle
from dlkit.optim.leaves import leafwise
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import EmptyState, Transform
from dlkit.optim.wrappers.labels import labels_of_globs
from dlkit.optim.wrappers.masks import ParamsPlaceholder

__all__ = ["ScaleByDepth", "scale_by_depth"]


@dataclass(frozen=True)
class ScaleByDepth(Transform[EmptyState]):
    """u = decay^(n - 1 - i) g for the parameters of layer i of n: the last layer has the whole rate.

    Put it behind the optimizer's rule, before or after the learning rate: with Adam, before the rule it would change
    nothing. It scales what stands before it, a decoupled weight decay too, as a parameter group's rate does.

    Args:
      decay: the factor from one layer to the one below, in (0, 1]: 0.65 to 0.75 to fine-tune a ViT.
      layers: globs, one a layer, from the input to the output: the first that matches a leaf's path is its layer.
      stacked: those of `layers` whose leaves have a leading axis of layers (`nn.Stack`): such a glob stands for as many
        layers as the axis is long.

    This is the rule of BEiT and timm (`layer_decay`): embedding, blocks, head, with n = blocks + 2:
    `scale_by_depth(0.75, ("embed/**", "blocks/**", "**"), stacked=("blocks/**",))`.

    Reference: Bao et al., "BEiT: BERT pre-training of image transformers", 2022; Clark et al., "ELECTRA", 2020.

    >>> from dlkit import optim
    >>> tx = optim.chain(optim.sgd(1.0), scale_by_depth(0.5, ("body/**", "head/**")))
    >>> grads = {"body": {"w": jnp.ones(1)}, "head": {"w": jnp.ones(1)}}
    >>> tx.update(grads, tx.init(grads), grads)[0]
    {'body': {'w': Array([-0.5], dtype=float32)}, 'head': {'w': Array([-1.], dtype=float32)}}

    Raises:
      ValueError: `decay` out of range; a glob of `stacked` that is none of `layers`; from `init` and `update`, a glob
        that matches nothing, a leaf without a layer, or stacked leaves of different lengths.
    """

    decay: Scalar
    layers: str | tuple[str, ...] | list[str]
    _: KW_ONLY
    stacked: str | tuple[str, ...] | list[str] = ()

    def __post_init__(self) -> None:
        settle("scale_by_depth", self, nonnegative=("decay",))
        if isinstance(self.decay, float) and not 0 < self.decay <= 1:
            raise ValueError(f"scale_by_depth: decay is {self.decay}, wanted 0 < decay <= 1")
        for name in ("layers", "stacked"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if strange := set(self.stacked) - set(self.layers):
            raise ValueError(f"scale_by_depth: stacked names {min(strange)!r}, which is none of layers: {self.layers}")

    def init(self, params: Any) -> EmptyState:
        if not isinstance(params, ParamsPlaceholder):
            self._depths(params)  # a misspelt glob is an error now
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        own, depths, n = self._depths(grads)
        decay = as_dtype(self.decay, jnp.result_type(float))

        def step(g: Array, glob: str) -> Array:
            first, length = depths[glob]
            above = n - 1 - first - jnp.arange(length, dtype=decay.dtype)
            factor = jnp.power(decay, above).astype(g.real.dtype)
            return g * factor.reshape(-1, *(1,) * (g.ndim - 1)) if glob in self.stacked else g * factor[0]

        labels = iter(jax.tree.leaves(own))
        (updates,) = leafwise("scale_by_depth", lambda g: step(g, next(labels)), grads)
        return updates, state

    def _depths(self, params: Any) -> tuple[Any, dict[str, tuple[int, int]], int]:
        """The glob of every leaf, the first layer and the number of layers of every glob, and all layers."""
        own = labels_of_globs("scale_by_depth", tuple(self.layers), params)
        lengths: dict[str, set[Any]] = {glob: set() for glob in self.layers}
        for (path, glob), leaf in zip(tree.flatten(own).items(), jax.tree.leaves(params), strict=True):
            if glob in self.stacked and jnp.ndim(leaf) == 0:
                raise ValueError(f"scale_by_depth: {path} has no axis, but its glob {glob!r} is one of stacked layers")
            lengths[glob].add(jnp.shape(leaf)[0] if glob in self.stacked else 1)
        depths, first = {}, 0
        for glob in self.layers:
            if len(lengths[glob]) != 1:
                raise ValueError(
                    f"scale_by_depth: the leaves of {glob!r} are stacks of {sorted(lengths[glob])} layers, wanted one "
                    "number"
                )
            depths[glob] = (first, lengths[glob].pop())
            first += depths[glob][1]
        return own, depths, first


scale_by_depth = ScaleByDepth
