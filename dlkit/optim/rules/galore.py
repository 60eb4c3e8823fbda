"""GaLore: an optimizer that sees its gradients in a subspace of low rank."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.functional import decompositions
from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, safe_increment, settle
from dlkit.optim.leaves import widest, zeros_like
from dlkit.optim.matrices import (
    GaLoreDimensionNumbers,
    Layout,
    is_numbers,
    layout,
    resolve_numbers,
    settle_numbers,
    two_axes,
)
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain, check_link
from dlkit.optim.wrappers.masks import Mask, MaskedNode

__all__ = ["GaLoreDimensionNumbers", "GaLoreState", "ScaleByGaLore", "galore", "scale_by_galore"]


class GaLoreState(NamedTuple):
    """Updates so far (int32), the inner state, made for the small gradients, and the projections: [side, rank] for
    every matrix, and a `MaskedNode`, which holds nothing, for what is none."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    base_optimizer_state: Any
    projector: Any


@dataclass(frozen=True)
class ScaleByGaLore(Transform[GaLoreState]):
    """u = scale P rule(P^T g): the rule inside sees, and remembers, a gradient of `rank` rows.

    P holds the first `rank` left singular vectors of the gradient (of a matrix wider than tall the right ones:
    u = scale rule(g P) P^T). It is found anew every `update_proj_gap` updates, and what the rule remembers is kept
    across the change.

    Args:
      rank: of the subspace; at most the shorter side of each matrix.
      update_proj_gap: updates between two SVDs.
      scale: a factor of the update of matrices.
      base_optimizer: a rule that does not read the parameters; None for `scale_by_adam()`.
      weight_dimension_numbers: None makes every parameter with two axes a matrix. Otherwise `GaLoreDimensionNumbers`
        for every parameter with two or more axes, a tree of these with None for what is not projected, or a callable
        from the parameters to such a tree.

    Differences. optax (`contrib.scale_by_galore`): equal, the SVD in float32 included; it keeps an empty array where
    nothing is projected.

    Reference: Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank projection", 2024.

    >>> tx = scale_by_galore(rank=1)
    >>> state = tx.init({"w": jnp.ones((3, 2)), "b": jnp.ones(2)})
    >>> state.projector["w"].shape, state.base_optimizer_state.mu["w"].shape, state.base_optimizer_state.mu["b"].shape
    ((3, 1), (1, 2), (2,))

    Raises:
      TypeError: `base_optimizer` is no transform.
      ValueError: `rank` or `update_proj_gap` below 1; from `init`, an axis that is neither input nor output.
    """

    rank: int = 128
    update_proj_gap: int = 200
    scale: Scalar = 1.0
    base_optimizer: Any = None
    weight_dimension_numbers: Any = None

    def __post_init__(self) -> None:
        settle("scale_by_galore", self, numbers=("scale",))
        for name in ("rank", "update_proj_gap"):
            object.__setattr__(self, name, as_count("scale_by_galore", name, getattr(self, name), least=1))
        if self.base_optimizer is None:
            object.__setattr__(self, "base_optimizer", scale_by_adam())
        check_link("scale_by_galore", self.base_optimizer)
        numbers = settle_numbers("scale_by_galore", self.weight_dimension_numbers)
        object.__setattr__(self, "weight_dimension_numbers", numbers)

    def init(self, params: Any) -> GaLoreState:
        zeros = zeros_like("scale_by_galore", params)
        numbers = self._numbers(zeros)

        def projector(p: Array, of: Any) -> Any:
            return MaskedNode() if of is None else jnp.zeros(self._shapes(p, _layout(p, of))[0], p.dtype)

        def small(p: Array, of: Any) -> Array:
            return p if of is None else jnp.zeros(self._shapes(p, _layout(p, of))[1], p.dtype)

        inner = self.base_optimizer.init(jax.tree.map(small, zeros, numbers))
        return GaLoreState(jnp.zeros((), jnp.int32), inner, jax.tree.map(projector, zeros, numbers))

    def update(self, grads: Any, state: GaLoreState, params: Any = None) -> tuple[Any, GaLoreState]:
        renew = state.count % self.update_proj_gap == 0
        numbers = self._numbers(grads)

        def renewed(g: Array, of: Any, old: Any) -> Any:
            if of is None:
                return old
            matrix = _matrix(g, _layout(g, of))
            return jax.lax.cond(renew, lambda: self._projector(matrix).astype(old.dtype), lambda: old)

        def down(g: Array, of: Any, projector: Any) -> Array:
            if of is None:
                return g
            matrix = _matrix(g, _layout(g, of))
            matrix, projector = _same(matrix, projector)
            return projector.T @ matrix if _is_tall(matrix) else matrix @ projector

        def up(u: Array, g: Array, of: Any, projector: Any) -> Array:
            if of is None:
                return u
            u, projector = _same(u, projector)
            by = _layout(g, of)
            full = projector @ u if _is_tall(_matrix(g, by)) else u @ projector.T
            return self.scale * by.back(full, g.shape)

        projectors = jax.tree.map(renewed, grads, numbers, state.projector)
        small = jax.tree.map(down, grads, numbers, projectors)
        updates, inner = self.base_optimizer.update(small, state.base_optimizer_state, None)
        updates = jax.tree.map(up, updates, grads, numbers, projectors)
        return updates, GaLoreState(safe_increment(state.count), inner, projectors)

    def _numbers(self, params: Any) -> Any:
        if is_numbers(self.weight_dimension_numbers):
            return jax.tree.map(lambda p: self.weight_dimension_numbers if jnp.ndim(p) >= 2 else None, params)
        return resolve_numbers(self.weight_dimension_numbers, params, two_axes)

    def _shapes(self, p: Array, by: Layout) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of the projection, and of the small gradient."""
        rows, columns = by.fans(p.shape)
        rank = min(self.rank, rows, columns)
        return ((rows, rank), (rank, columns)) if rows >= columns else ((columns, rank), (rows, rank))

    def _projector(self, matrix: Array) -> Array:
        # In float32 at every precision, as optax: signs and order of singular vectors hang on the last digits.
        narrow = jnp.complex64 if jnp.iscomplexobj(matrix) else jnp.float32
        u, _, vh = decompositions.svd(matrix.astype(narrow))
        return u[:, : self.rank] if _is_tall(matrix) else vh[: self.rank].T


def _layout(p: Array, numbers: Any) -> Layout:
    by = layout("scale_by_galore", p.shape, numbers)
    if by.batch:
        raise ValueError(f"scale_by_galore: by {numbers}, an axis of the shape {p.shape} is neither input nor output")
    return by


def _matrix(x: Array, by: Layout) -> Array:
    return by.to_matrices(x)[0]


def _is_tall(matrix: Array) -> bool:
    return matrix.shape[0] >= matrix.shape[1]


def _same(*arrays: Array) -> list[Array]:
    wide = widest(*(x.dtype for x in arrays))
    return [x.astype(wide) for x in arrays]


scale_by_galore = ScaleByGaLore


def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: Any = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    weight_dimension_numbers: Any = None,
) -> Chain:
    """GaLore: Adam, or another rule, in a subspace of low rank of every matrix.

        R = P^T g                          P: the first `rank` singular vectors of g, found anew now and then
        p = p - eta (scale P rule(R) + weight_decay p)

    A rule that remembers two numbers a parameter remembers two for every element of R instead: of a matrix [m, n],
    2 rank n + m rank with P, where Adam has 2 m n. All of p still moves, in one subspace after the other.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers: see `ScaleByGaLore`.
      weight_decay: a number or a schedule: decoupled, of the full parameters.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.

    Differences. optax (`contrib.galore`): equal. torch and Keras have none. The authors' code has scale = 0.25.

    Reference: Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank projection", 2024.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] - 1.0) ** 2)
    >>> params = {"w": jnp.zeros((3, 2))}
    >>> tx = galore(0.1, rank=1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.2f}")
    5.33
    4.70
    4.11

    Raises:
      TypeError: `base_optimizer` is no transform.
      ValueError: an argument out of range; from `init`, an axis that is neither input nor output.
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
