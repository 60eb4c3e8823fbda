"""Directions in which a landscape is looked at: random ones of the scale of the weights, and the plane of a path."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.nn import Layer, Stack, map_layers
from dlkit.optim.second_order import vectors

__all__ = ["Plane", "filter_normalize", "path_plane", "random_direction", "stacked_axes"]

Normalize = Literal["filter", "layer", "none"]


def stacked_axes(model: Layer[Any, Any], params: Any) -> dict[str, int]:
    """How many leading axes of each leaf count the blocks of a `Stack`, by path.

    >>> from dlkit import nn
    >>> model = nn.Chain(blocks=nn.Stack(nn.Linear(2, 2), 3), head=nn.Linear(2, 1))
    >>> stacked_axes(model, model.init(jax.random.key(0)))
    {'blocks/b': 1, 'blocks/w': 1, 'head/b': 0, 'head/w': 0}
    """
    stacks: list[str] = []

    def note(path: str, layer: Layer) -> Layer:
        if isinstance(layer, Stack):
            stacks.append(path)
        return layer

    map_layers(note, model)
    return {path: sum(not stack or path.startswith(f"{stack}/") for stack in stacks) for path in tree.flatten(params)}


def random_direction(key: Any, params: Any, *, normalize: Normalize = "filter", stacked: Any = None) -> Any:
    """Normal numbers in the shape of `params`, scaled as `filter_normalize` does; zero for biases and norms.

    Raises:
      ValueError: an unknown `normalize`.
    """
    structure = jax.tree.structure(params)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, structure.num_leaves)))
    drawn = jax.tree.map(lambda k, x: jax.random.normal(k, jnp.shape(x), vectors.scalar_dtype(x)), keys, params)
    return filter_normalize(drawn, params, normalize=normalize, stacked=stacked)


def filter_normalize(direction: Any, params: Any, *, normalize: Normalize = "filter", stacked: Any = None) -> Any:
    """The direction with each filter as long as the filter of `params` that it would move.

    A filter is what makes one output: all weights with one index on the last axis. Without this, a network whose
    weights are large looks flat, though it is the same function. Leaves of less than two axes (biases, the scales and
    shifts of norms) are set to zero, as the paper's code does, except with "none".

    Args:
      direction, params: trees of one form.
      normalize: "filter"; "layer" for one length a leaf; "none" for the direction as it is.
      stacked: leading axes that count blocks, by path, as `stacked_axes(model, params)` gives them; None for no such.

    >>> filter_normalize({"w": jnp.ones((2, 2))}, {"w": jnp.array([[3.0, 0.0], [4.0, 0.0]])})["w"]
    Array([[3.535534, 0.      ],
           [3.535534, 0.      ]], dtype=float32)

    Raises:
      ValueError: an unknown `normalize`, or trees that differ.

    Reference: Li et al., "Visualizing the loss landscape of neural nets", 2018, section 4.
    """
    if normalize not in ("filter", "layer", "none"):
        raise ValueError(f"normalize must be 'filter', 'layer' or 'none', got {normalize!r}")
    shapes = [jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.float32), t) for t in (params, direction)]
    if different := tree.diff(*shapes):
        raise ValueError(f"the direction must be a tree like the parameters:\n{different}")
    if normalize == "none":
        return direction

    def scaled(path: str, d: Any, x: Any) -> Any:
        lead = (stacked or {}).get(path, 0)
        d, x = jnp.asarray(d), jnp.asarray(x)
        if d.ndim - lead < 2:
            return jnp.zeros_like(d)
        axes = tuple(range(lead, d.ndim - (normalize == "filter")))
        wide = vectors.scalar_dtype(d, x)
        lengths = [jnp.sqrt(jnp.sum(a.astype(wide) ** 2, axis=axes, keepdims=True)) for a in (x, d)]
        return (d.astype(wide) * lengths[0] / jnp.maximum(lengths[1], jnp.asarray(1e-30, wide))).astype(d.dtype)

    return tree.map_with_path(scaled, direction, params)


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through parameters: `origin + a * directions[0] + b * directions[1]`, directions of length 1.

    Attributes:
      coordinates: `[T, 2]`, (a, b) of each point of the path, projected.
      explained: the share of the path's variance about its end along each direction.
    """

    origin: Any
    directions: tuple[Any, Any]
    coordinates: np.ndarray
    explained: tuple[float, float]

    def span(self, margin: float = 0.25) -> tuple[tuple[float, float], tuple[float, float]]:
        """Intervals of a and b that show the whole path, each widened by `margin` of its width on both sides."""
        spans = []
        for values in self.coordinates.T:
            low, high = float(values.min()), float(values.max())
            more = margin * max(high - low, 1e-3 * float(np.ptp(self.coordinates)), 1e-12)
            spans.append((low - more, high + more))
        return spans[0], spans[1]


def path_plane(path: Sequence[Any]) -> Plane:
    """The plane through the last point of a training path that holds most of it: its two principal components.

    The components are those of the differences to the last point, as in the paper. A path explained to 90 % by two
    directions is no sign of structure by itself: random walks in many dimensions are, too (Antognini and
    Sohl-Dickstein 2018).

    Args:
      path: parameters over time, at least 3 points; the Gram matrix is used, so T points take T^2 scalar products.

    Raises:
      ValueError: fewer than 3 points, or all equal.

    Reference: Li et al. 2018, section 7.2.
    """
    if len(path) < 3:
        raise ValueError(f"a plane needs a path of at least 3 points, got {len(path)}")
    flat = [np.asarray(vectors.flat(point)[0], np.float64) for point in path]
    moves = np.stack([point - flat[-1] for point in flat[:-1]])
    values, left = np.linalg.eigh(moves @ moves.T)
    if not values[-1] > 0:
        raise ValueError("the points of the path are all equal: nothing moved")
    keep = np.maximum(values[::-1][:2], 0.0)
    axes = left[:, ::-1][:, :2].T @ moves
    axes[0] /= np.linalg.norm(axes[0])
    axes[1] -= (axes[1] @ axes[0]) * axes[0]
    length = np.linalg.norm(axes[1])
    # A straight path has no second direction: then a random one completes the plane.
    if length < 1e-6 * np.sqrt(values[-1]):
        axes[1] = np.random.default_rng(0).standard_normal(axes.shape[1])
        axes[1] -= (axes[1] @ axes[0]) * axes[0]
        length = np.linalg.norm(axes[1])
    axes[1] /= length
    back = vectors.flat(path[-1])[1]
    directions = tuple(back(jnp.asarray(axis, vectors.scalar_dtype(path[-1]))) for axis in axes)
    coordinates = np.concatenate([moves @ axes.T, np.zeros((1, 2))])
    shares = keep / values.clip(0).sum()
    return Plane(path[-1], (directions[0], directions[1]), coordinates, (float(shares[0]), float(shares[1])))
