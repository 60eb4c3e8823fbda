"""Shampoo: one matrix of statistics an axis."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit.functional import decompositions
from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, bias_correction, safe_increment, settle
from dlkit.optim.preconditioners.axes import (
    HIGHEST,
    check_shapes,
    columns,
    everywhere,
    outer,
    real_leaves,
    wide_dtype,
)
from dlkit.optim.preconditioners.blocks import Blocks, cut_in_blocks
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import Traced, as_dtype
from dlkit.optim.transform import Chain, Transform, call_update, chain, check_link
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleByShampoo", "ScaleByShampooState", "inverse_root", "scale_by_shampoo", "shampoo"]


def inverse_root(matrix: Float[Array, "... d d"], power: Any, eps: Any) -> Float[Array, "... d d"]:
    """(M + eps I)^(-power) of symmetric positive semi-definite matrices, by their eigenvalues.

    eps is at least 10 machine epsilons times the largest eigenvalue: below that an eigenvalue is nothing but rounding.
    Of a matrix of zeros with eps = 0 it is 0.

    >>> inverse_root(jnp.diag(jnp.array([16.0, 1.0])), 0.25, 0.0).round(3)
    Array([[0.5, 0. ],
           [0. , 1. ]], dtype=float32)
    """
    values, vectors = decompositions.eigh(matrix)
    values = jnp.maximum(values, 0)
    least = 10 * jnp.finfo(matrix.dtype).eps * values[..., -1:]
    values = values + jnp.maximum(as_dtype(eps, matrix.dtype), least)
    positive = values > 0
    roots = jnp.where(positive, values, jnp.ones_like(values)) ** -as_dtype(power, matrix.dtype)
    roots = jnp.where(positive, roots, jnp.zeros_like(roots))
    return jnp.matmul(vectors * roots[..., None, :], jnp.swapaxes(vectors, -1, -2), precision=HIGHEST)


class ScaleByShampooState(NamedTuple):
    """For every parameter and every axis of it, `[blocks, d, d]` in float32 or wider; and the graft's own state."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    statistics: Any  # the sums, or the averages, of G G^T
    roots: Any  # their inverse roots, as they were last computed
    graft: Any = None


@dataclass(frozen=True)
class ScaleByShampoo(Transform[ScaleByShampooState]):
    """u = L^(-1/4) g R^(-1/4) for a matrix: see `shampoo`.

    >>> tx = scale_by_shampoo(eps=0.0)
    >>> grads = {"w": jnp.array([[2.0, 0.0], [0.0, 0.5]])}
    >>> tx.update(grads, tx.init(grads))[0]["w"].round(4)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)

    Raises:
      ValueError: `b2` outside of [0, 1], a negative `eps` or `exponent`, `block_size` or `precondition_every` below 1.
      TypeError: `graft` is no transform; from `init`, a parameter is not real floating point.
    """

    b2: Scalar = 1.0
    eps: Scalar = 1e-6
    block_size: int = 1024
    precondition_every: int = 1
    _: KW_ONLY
    exponent: Scalar | None = None
    merge_dims: bool = False
    graft: Any = None

    def __post_init__(self) -> None:
        owner = "scale_by_shampoo"
        settle(owner, self, nonnegative=("b2", "eps", *(() if self.exponent is None else ("exponent",))))
        if not isinstance(self.b2, Traced) and self.b2 > 1:
            raise ValueError(f"{owner}: b2 is {self.b2}, wanted 0 <= b2 <= 1")
        for name in ("block_size", "precondition_every"):
            object.__setattr__(self, name, as_count(owner, name, getattr(self, name), 1))
        if self.graft is not None:
            check_link(owner, self.graft)

    def init(self, params: Any) -> ScaleByShampooState:
        leaves, structure = real_leaves("scale_by_shampoo", params)
        statistics, roots = [], []
        for p in leaves:
            cut, dtype = self._cut(p), wide_dtype(jnp.result_type(p))
            shapes = [(_many(cut), b, b) for b in cut.sizes]
            statistics.append(tuple(jnp.zeros(shape, dtype) for shape in shapes))
            roots.append(tuple(jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype), shape) for shape in shapes))
        statistics, roots = (jax.tree.unflatten(structure, column) for column in (statistics, roots))
        graft = None if self.graft is None else self.graft.init(params)
        return ScaleByShampooState(jnp.zeros((), jnp.int32), statistics, roots, graft)

    def update(
        self, grads: Any, state: ScaleByShampooState, params: Any = None, **extra: Any
    ) -> tuple[Any, ScaleByShampooState]:
        count = safe_increment(state.count)
        leaves, (all_statistics, all_roots), tree_of = columns("scale_by_shampoo", grads, state.statistics, state.roots)
        lengths, graft = [None] * len(leaves), state.graft
        if self.graft is not None:
            grafted, graft = call_update(self.graft, grads, state.graft, params, extra)
            lengths = [_length(u) for u in jax.tree.leaves(grafted)]
        refresh = state.count % self.precondition_every == 0
        rows = [
            self._leaf(g, s, r, length, count, refresh)
            for g, s, r, length in zip(leaves, all_statistics, all_roots, lengths, strict=True)
        ]
        updates, statistics, roots = (tree_of([row[i] for row in rows]) for i in range(3))
        return updates, ScaleByShampooState(count, statistics, roots, graft)

    def _cut(self, p: Any) -> Blocks:
        return cut_in_blocks(jnp.shape(p), self.block_size, self.merge_dims)

    def _leaf(
        self, g: Any, statistics: tuple[Array, ...], roots: tuple[Array, ...], length: Any, count: Any, refresh: Any
    ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
        cut = self._cut(g)
        check_shapes("scale_by_shampoo", [(_many(cut), b, b) for b in cut.sizes], [s.shape for s in statistics])
        if g.size == 0:
            return g, statistics, roots
        dtype = statistics[0].dtype
        blocks = cut.split(jnp.asarray(g, dtype))
        summed = not isinstance(self.b2, Traced) and self.b2 == 1
        new = tuple(jax.vmap(lambda block, axis=axis: outer(block, axis))(blocks) for axis in range(blocks.ndim - 1))
        if summed:
            statistics, whole = tuple(s + n for s, n in zip(statistics, new, strict=True)), jnp.ones((), dtype)
        else:
            statistics = tuple(self.b2 * s + (1 - self.b2) * n for s, n in zip(statistics, new, strict=True))
            whole = bias_correction(self.b2, count).astype(dtype)
        power = 1 / (2 * len(cut.sizes)) if self.exponent is None else self.exponent
        numbers = (whole, as_dtype(power, dtype), as_dtype(self.eps, dtype))
        roots = jax.lax.cond(refresh, _renewed, _kept, statistics, roots, *numbers)
        u = cut.join(jax.vmap(lambda block, *matrices: everywhere(matrices, block))(blocks, *roots))
        if length is not None:
            own = _length(u)
            u = u * jnp.where(own > 0, length.astype(dtype) / jnp.where(own > 0, own, jnp.ones_like(own)), 0)
        return u, statistics, roots


scale_by_shampoo = ScaleByShampoo


def _renewed(statistics: Any, roots: Any, whole: Array, power: Array, eps: Array) -> tuple[Array, ...]:
    return tuple(inverse_root(s / whole, power, eps) for s in statistics)


def _kept(statistics: Any, roots: Any, whole: Array, power: Array, eps: Array) -> tuple[Array, ...]:
    return roots


def _many(cut: Blocks) -> int:
    many = 1
    for n in cut.counts:
        many *= n
    return many


def _length(u: Any) -> Float[Array, ""]:
    """sqrt(sum u^2), of the largest element times that of u / largest: no square overflows or vanishes."""
    u = jnp.asarray(u, wide_dtype(jnp.result_type(u)))
    largest = jnp.max(jnp.abs(u), initial=0)
    safe = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return largest * jnp.sqrt(jnp.sum(jnp.square(u / safe)))


def shampoo(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    b2: Scalar = 1.0,
    eps: Scalar = 1e-6,
    block_size: int = 1024,
    precondition_every: int = 1,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    exponent: Scalar | None = None,
    merge_dims: bool = False,
    graft: Any = None,
    nesterov: bool = False,
) -> Chain:
    """Shampoo: full-matrix Adagrad along each axis of a parameter.

        L = L + g g^T,  R = R + g^T g                        of a matrix; b2 < 1:  L = b2 L + (1 - b2) g g^T, ...
        u = (L + eps I)^(-1/4) g (R + eps I)^(-1/4)
        v = momentum v + u,  p = p - eta (v + weight_decay p)

    An array of k axes has k such matrices, each to the power -1 / (2 k): vectors get full-matrix Adagrad, scalars
    Adagrad. With b2 < 1 the averages are divided by 1 - b2^t. Inverse roots are taken by `eigh`, in float32 or wider.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      momentum: the weight of the old velocity; 0 for none.
      b2: 1 sums the statistics, as the paper does; below 1 they are a moving average.
      eps: added to the eigenvalues; at least 10 machine epsilons times the largest of them. A direction that no
        gradient has gone in when the roots were computed has a large one, eps^(-1/4): with `precondition_every`
        above 1 take a larger eps, or a `graft`.
      block_size: longer axes are cut into equal blocks of at most this size, each preconditioned on its own.
      precondition_every: inverse roots are computed in every n-th update, beginning with the first. Statistics are
        gathered in all of them.
      weight_decay: decoupled: a number or a schedule.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.
      exponent: the power, if not 1 / (2 k): 1/2 with `b2` below 1 is what later work found better for matrices.
      merge_dims: small neighbouring axes are merged while their product is at most `block_size`, so that a 3 x 3
        convolution has fewer and larger matrices.
      graft: a transform whose updates give each parameter's step its length, such as `optim.scale_by_rms()`: the
        learning rate is then that transform's. None takes Shampoo's own length.
      nesterov: whether the momentum looks ahead.

    Differences. optax, torch and Keras have no Shampoo. `pytorch_optimizer.Shampoo` is equal at momentum 0; its
    momentum averages the gradient with the last update. Google's and Meta's distributed Shampoo graft by default, leave
    large or one-dimensional parameters diagonal, and cut blocks of exactly `block_size` with a smaller last one; here
    all blocks of an axis are equal, so that they are one batch of matrices.

    References: Gupta, Koren, Singer, "Shampoo: preconditioned stochastic tensor optimization", 2018. Anil, Gupta,
    Koren, Regan, Singer, "Scalable second order optimization for deep learning", 2020 (blocks, grafting). Agarwal,
    Anil, Hazan, Koren, Zhang, "Disentangling adaptive gradient methods from learning rates", 2020 (grafting).

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] - jnp.eye(2)) ** 2)
    >>> params = {"w": jnp.zeros((2, 2))}
    >>> tx = shampoo(0.2)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    1.280
    0.490
    0.044

    Raises:
      ValueError: a negative argument, `b2` above 1, `block_size` or `precondition_every` below 1.
      TypeError: `graft` is no transform; from `init`, a parameter is not real floating point.
    """
    velocity = trace(momentum, nesterov)
    return chain(
        scale_by_shampoo(
            b2, eps, block_size, precondition_every, exponent=exponent, merge_dims=merge_dims, graft=graft
        ),
        *((velocity,) if velocity.decay else ()),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
