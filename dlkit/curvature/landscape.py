"""The loss along a line or over a plane of parameters, many points at once."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.curvature.objective import Counted, Term, as_objective, check_real, mass
from dlkit.optim.second_order import vectors

__all__ = ["Barrier", "Landscape", "barrier", "landscape_1d", "landscape_2d"]

Span = tuple[float | int, float | int]


@functools.lru_cache(maxsize=64)
def _program(term: Term) -> Counted:
    def add(total: Any, weight: Any, where: Any, params: Any, directions: Any, state: Any, batch: Any) -> Any:
        def value(at: Any) -> Any:
            moved = params
            for alpha, direction in zip(at, directions, strict=True):
                moved = vectors.move(moved, direction, alpha)
            return term.value(moved, state, batch)

        much = mass(batch)
        return total + much.astype(total.dtype) * jax.vmap(value)(where).astype(total.dtype), weight + much

    return Counted(add)


def losses_at(loss: Any, params: Any, directions: tuple[Any, ...], points: np.ndarray, chunk: int) -> np.ndarray:
    """The loss at `params + sum_k points[i, k] directions[k]`, `[P]` for points `[P, k]`, `chunk` of them at a time."""
    objective = as_objective(loss)
    check_real("landscape", params)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    program, dtype = _program(objective.term), vectors.scalar_dtype(params)
    size, found = min(chunk, len(points)), []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        where = jnp.asarray(np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge"), dtype)
        total, weight = jnp.zeros(size, dtype), jnp.zeros(())
        for batch in objective.batches(params):
            total, weight = program(total, weight, where, params, directions, objective.state, batch)
        found.append(np.asarray(total, np.float64)[: len(part)] / float(weight))
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss over a grid: `values[i]` at `x[i]`, or `values[j, i]` at `(x[i], y[j])`, `y` being None on a line."""

    x: np.ndarray
    y: np.ndarray | None
    values: np.ndarray


def landscape_1d(
    loss: Any,
    params: Any,
    direction: Any,
    *,
    span: Span = (-1.0, 1.0),
    points: int = 51,
    chunk: int = 16,
) -> Landscape:
    """The loss along `params + x direction`, x evenly spaced over `span`.

    Args:
      loss: an `Objective`, or a scalar function of the parameters.
      params: the middle.
      direction: a tree like it: `random_direction`, an eigenvector, the gradient, another model minus this one.
      points: of the grid. chunk: how many models are in memory at a time; they share each pass over the data.

    >>> landscape_1d(lambda x: jnp.sum(x**2), jnp.array([1.0]), jnp.array([1.0]), points=3).values.tolist()
    [0.0, 1.0, 4.0]

    Raises:
      ValueError: `points` below 2, or a direction that is no tree like the parameters.
    """
    x = _axis(span, points)
    return Landscape(x, None, losses_at(loss, params, (_like(direction, params),), x[:, None], chunk))


def landscape_2d(
    loss: Any,
    params: Any,
    directions: tuple[Any, Any],
    *,
    span: Span | tuple[Span, Span] = (-1.0, 1.0),
    points: int = 21,
    chunk: int = 16,
) -> Landscape:
    """The loss over `params + x directions[0] + y directions[1]`.

    Args:
      loss, params, chunk: as for `landscape_1d`.
      directions: two trees: filter-normalized random ones, or those of a `path_plane`.
      span: of both axes, or one interval for each, such as `plane.span()`.
      points: along each axis.

    >>> axes = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> landscape_2d(lambda p: p[0] - p[1], jnp.zeros(2), axes, points=3).values
    array([[ 0.,  1.,  2.],
           [-1.,  0.,  1.],
           [-2., -1.,  0.]])

    Raises:
      ValueError: `points` below 2, or a direction that is no tree like the parameters.
    """
    spans: Any = span if isinstance(span[0], tuple) else (span, span)
    x, y = (_axis(interval, points) for interval in spans)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    both = tuple(_like(direction, params) for direction in directions)
    return Landscape(x, y, losses_at(loss, params, both, grid, chunk).reshape(points, points))


def _axis(span: Any, points: int) -> np.ndarray:
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}")
    return np.linspace(float(span[0]), float(span[1]), points)


def _like(direction: Any, params: Any) -> Any:
    if jax.tree.structure(direction) != jax.tree.structure(params):
        raise ValueError(
            f"a direction must be a tree like the parameters: got {jax.tree.structure(direction)}, "
            f"wanted {jax.tree.structure(params)}"
        )
    return direction


@dataclass(frozen=True, eq=False)
class Barrier:
    """The loss along a path between two models.

    Attributes:
      positions: from 0 (the first model) to 1.
      losses: at the positions.
      height: the most by which the loss is above the straight line between the losses at both ends, 0 where it is not.
      highest: where.
    """

    positions: np.ndarray
    losses: np.ndarray
    height: float
    highest: float


def barrier_of(positions: np.ndarray, losses: np.ndarray) -> Barrier:
    above = losses - ((1 - positions) * losses[0] + positions * losses[-1])
    top = int(np.argmax(above))
    return Barrier(positions, losses, max(float(above[top]), 0.0), float(positions[top]))


def barrier(loss: Any, a: Any, b: Any, *, points: int = 25, chunk: int = 16) -> Barrier:
    """The loss on the straight line from parameters `a` to `b`, and its height above that of the ends.

    Networks that learned the same from different initial weights usually have a barrier, which mostly goes away when
    their units are brought into the same order; late parts of one training run have none.

    Args:
      loss: an `Objective`, or a scalar function of the parameters.
      a, b: two models of one architecture. Behind a `BatchNorm` the statistics of the state fit neither model between.
      points, chunk: as for `landscape_1d`.

    >>> round(barrier(lambda x: (x**2 - 1) ** 2, jnp.array(-1.0), jnp.array(1.0)).height, 6)
    1.0

    Raises:
      ValueError: trees that differ, or `points` below 2.

    Reference: Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020; Entezari et al. 2022.
    """
    positions = _axis((0.0, 1.0), points)
    direction = vectors.subtract(vectors.wide(_like(b, a)), vectors.wide(a))
    return barrier_of(positions, losses_at(loss, a, (direction,), positions[:, None], chunk))
