"""PSGD: a preconditioner on a matrix Lie group that whitens the gradient, a Kronecker product of triangular factors."""

import zlib
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from dlkit import tree
from dlkit.functional import decompositions
from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import (
    Scalar,
    ScalarOrSchedule,
    as_count,
    bias_correction,
    safe_increment,
    schedule_value,
    settle,
)
from dlkit.optim.leaves import zeros_like
from dlkit.optim.preconditioners.axes import (
    HIGHEST,
    check_shapes,
    columns,
    everywhere,
    most_square,
    outer,
    real_leaves,
    unfold,
    wide_dtype,
)
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.schedules.curves import ExponentialDecay
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["PSGD_UPDATES", "ScaleByPsgdKron", "ScaleByPsgdKronState", "psgd_kron", "scale_by_psgd_kron"]

PSGD_UPDATES = ExponentialDecay(1.0, 1, 0.999, transition_begin=500, end_value=0.03)
"""How often the preconditioner learns: in each of the first 500 updates, in 3 of 100 after about 4,000."""


class ScaleByPsgdKronState(NamedTuple):
    """The key that all draws come from, the averaged gradients, and for every axis a triangular or diagonal factor."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    since: Int[Array, ""]  # updates since the preconditioner last learned
    key: UInt32[Array, "2"]
    mu: Any
    factors: Any


@dataclass(frozen=True)
class ScaleByPsgdKron(Transform[ScaleByPsgdKronState]):
    """u = Q^T Q mu_hat, with Q learned so that u is white: see `psgd_kron`.

    >>> tx, grads = scale_by_psgd_kron(max_rms=None), {"b": jnp.array([3.0, 0.1])}
    >>> _, updates = jax.lax.scan(lambda s, _: tx.update(grads, s)[::-1], tx.init(grads), None, length=400)
    >>> bool(jnp.all(jnp.abs(updates["b"][-1] - 1) < 0.5))  # each of about length 1, whatever the gradient's
    True

    Raises:
      ValueError: `b1` outside of [0, 1), a negative number, a factor that starts at 0, or a count below 0.
      TypeError: from `init`, a parameter is not real floating point.
    """

    b1: Scalar = 0.9
    precond_lr: Scalar = 0.1
    update_probability: ScalarOrSchedule = PSGD_UPDATES
    max_size_triangular: int = 8192
    min_ndim_triangular: int = 2
    _: KW_ONLY
    init_scale: Scalar = 1.0
    momentum_into_precond_update: bool = True
    max_rms: Scalar | None = 1.1
    damping: Scalar = 1e-9
    merge_dims: bool = True
    seed: int = 0
    mu_dtype: Any = None

    def __post_init__(self) -> None:
        owner = "scale_by_psgd_kron"
        clips = () if self.max_rms is None else ("max_rms",)
        settle(
            owner,
            self,
            decays=("b1",),
            nonnegative=("precond_lr", "init_scale", "damping", *clips),
            schedules=("update_probability",),
            dtypes=("mu_dtype",),
        )
        if not self.init_scale:
            raise ValueError(f"{owner}: init_scale is 0, wanted more: a factor of 0 stays 0")
        for name in ("max_size_triangular", "min_ndim_triangular", "seed"):
            object.__setattr__(self, name, as_count(owner, name, getattr(self, name)))

    def init(self, params: Any) -> ScaleByPsgdKronState:
        leaves, structure = real_leaves("scale_by_psgd_kron", params)
        factors = []
        for p in leaves:
            shape, dtype = self._shape(p), wide_dtype(jnp.result_type(p))
            scale = as_dtype(self.init_scale, dtype) ** (1 / len(shape))
            made = [jnp.eye(d, dtype=dtype) if full else jnp.ones(d, dtype) for d, full in self._axes(shape)]
            factors.append(tuple(scale * one for one in made))
        count, since = (jnp.zeros((), jnp.int32) for _ in range(2))
        key = jax.random.key_data(jax.random.key(self.seed, impl="threefry2x32"))
        mu = zeros_like("scale_by_psgd_kron", params, self.mu_dtype)
        return ScaleByPsgdKronState(count, since, key, mu, jax.tree.unflatten(structure, factors))

    def update(self, grads: Any, state: ScaleByPsgdKronState, params: Any = None) -> tuple[Any, ScaleByPsgdKronState]:
        owner, count = "scale_by_psgd_kron", safe_increment(state.count)
        since = safe_increment(state.since)
        probability = schedule_value(owner, self.update_probability, state.count)
        learns = (
            since.astype(probability.dtype) * probability >= 1
        )  # the first one n updates after the last, n >= 1 / p
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.count)
        names = [zlib.crc32(path.encode()) for path in tree.flatten(grads)]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.array(names, np.uint32))
        correction = bias_correction(self.b1, count)
        leaves, (means, factors), tree_of = columns(owner, grads, state.mu, state.factors)
        rows = [
            self._leaf(g, mu, held, keys[i], correction, learns)
            for i, (g, mu, held) in enumerate(zip(leaves, means, factors, strict=True))
        ]
        updates, mu, factors = (tree_of([row[i] for row in rows]) for i in range(3))
        since = jnp.where(learns, jnp.zeros_like(since), since)
        return updates, ScaleByPsgdKronState(count, since, state.key, mu, factors)

    def _shape(self, p: Any) -> tuple[int, ...]:
        shape = jnp.shape(p)
        return most_square(shape) if self.merge_dims else shape or (1,)

    def _axes(self, shape: tuple[int, ...]) -> list[tuple[int, bool]]:
        """The size of each axis, and whether its factor is triangular rather than diagonal."""
        enough = len(shape) >= self.min_ndim_triangular
        return [(d, enough and 1 < d <= self.max_size_triangular) for d in shape]

    def _leaf(
        self, g: Any, mu: Array, factors: tuple[Array, ...], key: Any, correction: Array, learns: Array
    ) -> tuple[Any, Any, Any]:
        shape = self._shape(g)
        wanted = [(d, d) if full else (d,) for d, full in self._axes(shape)]
        check_shapes("scale_by_psgd_kron", [jnp.shape(g), *wanted], [mu.shape, *(q.shape for q in factors)])
        if jnp.size(g) == 0:
            return g, mu, factors
        dtype, given = factors[0].dtype, jnp.shape(g)
        g = jnp.asarray(g, dtype)
        new_mu = (self.b1 * mu.astype(dtype) + (1 - self.b1) * g).astype(mu.dtype)
        mean = (new_mu.astype(dtype) / correction.astype(dtype)).reshape(shape)
        numbers = (as_dtype(self.damping, dtype), as_dtype(self.precond_lr, dtype))
        seen = mean if self.momentum_into_precond_update else g.reshape(shape)
        factors = jax.lax.cond(learns, _learned, _kept, factors, seen, key, *numbers)
        u = everywhere([q.T for q in factors], everywhere(factors, mean))
        if self.max_rms is not None:
            rms = jnp.sqrt(jnp.mean(jnp.square(u)))
            limit = as_dtype(self.max_rms, dtype)
            u = u * jnp.where(rms > limit, limit / jnp.where(rms > 0, rms, jnp.ones_like(rms)), jnp.ones_like(rms))
        return u.reshape(given), new_mu, factors


scale_by_psgd_kron = ScaleByPsgdKron


def _learned(factors: tuple[Array, ...], g: Array, key: Any, damping: Array, rate: Array) -> tuple[Array, ...]:
    """One step down the gradient of E[g^T P g + v^T P^(-1) v] on the group of the factors, v ~ N(0, I)."""
    v = jax.random.normal(key, g.shape, g.dtype)
    rounding = jnp.sqrt(jnp.asarray(jnp.finfo(jnp.float32).eps, g.dtype))
    g = g + (damping + rounding * jnp.mean(jnp.abs(g))) * v
    a, b = everywhere(factors, g), v
    for axis, q in enumerate(factors):
        b = everywhere([1 / q if i == axis else None for i in range(b.ndim)], b) if q.ndim == 1 else _solved(q, b, axis)
    tiny, new = jnp.finfo(g.dtype).tiny, []
    for axis, q in enumerate(factors):
        if q.ndim == 1:
            of_a, of_b = (jnp.sum(jnp.square(unfold(x, axis)), axis=1) for x in (a, b))
            step, norm = (of_a - of_b) * q, jnp.max(of_a + of_b)
        else:
            of_a, of_b = outer(a, axis), outer(b, axis)
            step = jnp.matmul(jnp.triu(of_a - of_b), q, precision=HIGHEST)
            norm = _norm_bound(of_a + of_b)
        new.append(q - rate / jnp.maximum(norm, tiny) * step)
    # P stays as it is when one factor takes over the scale of another: none of them overflows.
    largest = [jnp.max(jnp.abs(q)) for q in new]
    middle = jnp.exp(sum(map(jnp.log, largest)) / len(largest))
    return tuple(q * (middle / size) for q, size in zip(new, largest, strict=True))


def _kept(factors: tuple[Array, ...], g: Array, key: Any, damping: Array, rate: Array) -> tuple[Array, ...]:
    return factors


def _solved(q: Array, x: Array, axis: int) -> Array:
    """Q^(-T) applied along `axis`."""
    rows = decompositions.solve_triangular(q, unfold(x, axis), trans=1)
    return jnp.moveaxis(rows.reshape(x.shape[axis], *(d for i, d in enumerate(x.shape) if i != axis)), 0, axis)


def _norm_bound(matrix: Float[Array, "d d"]) -> Float[Array, ""]:
    """A bound from below, mostly tight, of the largest eigenvalue of a positive semi-definite matrix.

    Two steps of power iteration from the longest column.
    """
    largest = jnp.max(jnp.abs(matrix))
    scaled = matrix / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    x = scaled[:, jnp.argmax(jnp.sum(jnp.square(scaled), axis=0))]
    x = jnp.matmul(scaled, x, precision=HIGHEST)
    length = jnp.sqrt(jnp.sum(jnp.square(x)))
    x = jnp.matmul(scaled, x / jnp.where(length > 0, length, jnp.ones_like(length)), precision=HIGHEST)
    return largest * jnp.sqrt(jnp.sum(jnp.square(x)))


def psgd_kron(
    learning_rate: ScalarOrSchedule = 3e-4,
    b1: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    update_probability: ScalarOrSchedule = PSGD_UPDATES,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    precond_lr: Scalar = 0.1,
    mask: Mask = None,
    *,
    init_scale: Scalar = 1.0,
    momentum_into_precond_update: bool = True,
    max_rms: Scalar | None = 1.1,
    damping: Scalar = 1e-9,
    merge_dims: bool = True,
    seed: int = 0,
    mu_dtype: Any = None,
) -> Chain:
    """PSGD with Kronecker factors: a preconditioner P = Q^T Q that is itself learned, so that P g is white.

        mu = b1 mu + (1 - b1) g,   h = mu / (1 - b1^t)                         t = 1 in the first update
        A  = Q_1 h Q_2^T,   B = Q_1^(-T) v Q_2^(-1),   v ~ N(0, I)
        Q_1 = Q_1 - rho triu(A A^T - B B^T) / |A A^T + B B^T| Q_1
        Q_2 = Q_2 - rho triu(A^T A - B^T B) / |A^T A + B^T B| Q_2
        u  = Q_1^T Q_1 h Q_2^T Q_2,   u = u min(1, max_rms / rms(u))
        p  = p - eta (u + weight_decay p)

    A - B is the relative gradient of E[h^T P h + v^T P^(-1) v], which is smallest where P E[h h^T] P = I. The factors
    are upper triangular, so they are inverted by substitution: no eigenvalues, no inverse roots. Axes of size 1, those
    longer than `max_size_triangular`, and all of an array of fewer than `min_ndim_triangular` axes are diagonal.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate. About a third of Adam's.
      b1: the weight of the old average of gradients.
      weight_decay: decoupled: a number or a schedule.
      update_probability: p: the factors learn as soon as 1 / p updates have passed since they last did. A number or a
        schedule; `PSGD_UPDATES` falls from 1 to 0.03. Nothing is random in it.
      max_size_triangular: longer axes have a diagonal factor.
      min_ndim_triangular: arrays of fewer axes have diagonal factors.
      precond_lr: rho.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.
      init_scale: the first P is init_scale^2 I.
      momentum_into_precond_update: whether P whitens h, or the gradient.
      max_rms: bounds the root of the mean square of a parameter's update; None for no bound.
      damping: how much noise is added to h in A: P stays bounded where gradients vanish.
      merge_dims: arrays of three or more axes are seen as the most nearly square matrix, neighbouring axes merged.
      seed: of the key that v is drawn from. It is part of the state; the draws depend on it, on the number of the
        update and on the path of the parameter.
      mu_dtype: the dtype of mu; None means that of the parameters.

    Differences. optax, torch and Keras have no PSGD. `kron_torch.Kron` takes the same steps given the same v and
    `damping=0`; it decays only parameters of two or more axes (`mask=`), merges all axes but the first or all but the
    last, balances the scales of the factors at random, which changes no update,
    and in updates in which they learn it preconditions h with the noise of size 3e-4 added, here without.

    References: Li, "Preconditioned stochastic gradient descent", 2015. Li, "Preconditioner on matrix Lie group for
    SGD", 2018. Pooladzandi, Li, "Curvature-informed SGD via general purpose Lie-group preconditioners", 2024.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] - jnp.eye(2)) ** 2)
    >>> params = {"w": jnp.zeros((2, 2))}
    >>> tx = psgd_kron(0.1)
    >>> state = tx.init(params)
    >>> step = jax.jit(lambda p, s: tx.update(jax.grad(loss)(p), s, p))
    >>> for _ in range(9):
    ...     updates, state = step(params, state)
    ...     params = optim.apply_updates(params, updates)
    >>> print(f"{loss(params):.2f}")
    0.01

    Raises:
      ValueError: `b1` outside of [0, 1), a negative argument, or `init_scale` 0.
      TypeError: from `init`, a parameter is not real floating point.
    """
    return chain(
        scale_by_psgd_kron(
            b1,
            precond_lr,
            update_probability,
            max_size_triangular,
            min_ndim_triangular,
            init_scale=init_scale,
            momentum_into_precond_update=momentum_into_precond_update,
            max_rms=max_rms,
            damping=damping,
            merge_dims=merge_dims,
            seed=seed,
            mu_dtype=mu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
