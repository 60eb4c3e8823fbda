"""SOAP: Adam in the eigenbasis of Shampoo's statistics."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dlkit.functional import decompositions
from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, bias_correction, safe_increment, settle
from dlkit.optim.leaves import widest, zeros_like
from dlkit.optim.preconditioners.axes import (
    HIGHEST,
    check_shapes,
    columns,
    everywhere,
    merge_small,
    outer,
    real_leaves,
    wide_dtype,
)
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["ScaleBySoap", "ScaleBySoapState", "scale_by_soap", "soap"]


class ScaleBySoapState(NamedTuple):
    """The averages as Adam's, nu in the rotated basis; and for every axis a matrix of statistics and a basis.

    Axes without a basis (of vectors, or longer than `max_precond_dim`) hold None.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any
    nu: Any
    statistics: Any
    bases: Any


@dataclass(frozen=True)
class ScaleBySoap(Transform[ScaleBySoapState]):
    """u = Q_L (mu' / (sqrt(nu) + eps)) Q_R^T in the basis of the gradients' statistics: see `soap`.

    >>> tx = scale_by_soap(b1=0.0)
    >>> grads = {"w": jnp.array([[3.0, 0.0], [0.0, 0.5]])}
    >>> _, state = tx.update(grads, tx.init(grads))
    >>> tx.update(grads, state)[0]["w"].round(3)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)

    Raises:
      ValueError: `b1`, `b2` or `shampoo_beta` outside of [0, 1), a negative `eps`, or a count below 1.
      TypeError: from `init`, a parameter is not real floating point.
    """

    b1: Scalar = 0.95
    b2: Scalar = 0.95
    eps: Scalar = 1e-8
    precondition_every: int = 10
    max_precond_dim: int = 10000
    _: KW_ONLY
    shampoo_beta: Scalar | None = None
    precondition_1d: bool = False
    merge_dims: bool = False
    mu_dtype: Any = None

    def __post_init__(self) -> None:
        owner = "scale_by_soap"
        own = () if self.shampoo_beta is None else ("shampoo_beta",)
        settle(owner, self, decays=("b1", "b2", *own), nonnegative=("eps",), dtypes=("mu_dtype",))
        for name in ("precondition_every", "max_precond_dim"):
            object.__setattr__(self, name, as_count(owner, name, getattr(self, name), 1))

    def init(self, params: Any) -> ScaleBySoapState:
        leaves, structure = real_leaves("scale_by_soap", params)
        statistics, bases, nu = [], [], []
        for p in leaves:
            shape, dtype = self._shape(p), wide_dtype(jnp.result_type(p))
            sizes = [d if keeps else None for d, keeps in zip(shape, self._rotates(shape), strict=True)]
            statistics.append(tuple(None if d is None else jnp.zeros((d, d), dtype) for d in sizes))
            bases.append(tuple(None if d is None else jnp.eye(d, dtype=dtype) for d in sizes))
            nu.append(jnp.zeros_like(p, dtype))
        nu, statistics, bases = (jax.tree.unflatten(structure, column) for column in (nu, statistics, bases))
        mu = zeros_like("scale_by_soap", params, self.mu_dtype)
        return ScaleBySoapState(jnp.zeros((), jnp.int32), mu, nu, statistics, bases)

    def update(self, grads: Any, state: ScaleBySoapState, params: Any = None) -> tuple[Any, ScaleBySoapState]:
        # The first gradient only sets the bases, so the number of Adam's steps is that of the updates before.
        first, steps = state.count == 0, jnp.maximum(state.count, 1)
        factor = jnp.sqrt(bias_correction(self.b2, steps)) / bias_correction(self.b1, steps)
        factor = jnp.where(first, jnp.zeros_like(factor), factor)
        which = jnp.where(first, 0, jnp.where(state.count % self.precondition_every == 0, 1, 2))
        leaves, held, tree_of = columns("scale_by_soap", grads, *state[1:])
        rows = [self._leaf(g, own, factor, first, which) for g, *own in zip(leaves, *held, strict=True)]
        updates, mu, nu, statistics, bases = (tree_of([row[i] for row in rows]) for i in range(5))
        return updates, ScaleBySoapState(safe_increment(state.count), mu, nu, statistics, bases)

    def _shape(self, p: Any) -> tuple[int, ...]:
        shape = jnp.shape(p)
        return merge_small(shape, self.max_precond_dim) if self.merge_dims and len(shape) > 1 else shape

    def _rotates(self, shape: tuple[int, ...]) -> tuple[bool, ...]:
        alone = len(shape) < 2 and not self.precondition_1d
        return tuple(0 < d <= self.max_precond_dim and not alone for d in shape)

    def _leaf(self, g: Any, held: list[Any], factor: Array, first: Array, which: Array) -> tuple[Any, ...]:
        mu, nu, statistics, bases = held
        shape = self._shape(g)
        wanted = [(d, d) for d, keeps in zip(shape, self._rotates(shape), strict=True) if keeps]
        check_shapes(
            "scale_by_soap", [jnp.shape(g), *wanted], [mu.shape, *(s.shape for s in statistics if s is not None)]
        )
        dtype, given = widest(nu.dtype, jnp.result_type(g)), jnp.shape(g)
        g, old_mu, old_nu = (jnp.asarray(x, dtype).reshape(shape) for x in (g, mu, nu))
        backward = [None if q is None else q.astype(dtype) for q in bases]
        forward = [None if q is None else q.T for q in backward]
        new_mu = self.b1 * old_mu + (1 - self.b1) * g
        new_nu = self.b2 * old_nu + (1 - self.b2) * jnp.square(everywhere(forward, g))
        u = factor.astype(dtype) * everywhere(forward, new_mu) / (jnp.sqrt(new_nu) + self.eps)
        u = jnp.where(first, jnp.zeros_like(u), u)  # with eps = 0, 0 / 0 in the first update
        new_mu, new_nu = jnp.where(first, old_mu, new_mu), jnp.where(first, old_nu, new_nu).astype(nu.dtype)
        decay: Any = self.b2 if self.shampoo_beta is None else self.shampoo_beta
        statistics = tuple(
            None if s is None else decay * s + (1 - decay) * outer(g, axis).astype(s.dtype)
            for axis, s in enumerate(statistics)
        )
        if wanted:
            choices = (_eigenbases, _power_iteration, _kept)
            bases, new_nu = jax.lax.switch(which, choices, statistics, bases, new_nu)
        u = everywhere(backward, u)
        return u.reshape(given), new_mu.astype(mu.dtype).reshape(given), new_nu.reshape(given), statistics, bases


scale_by_soap = ScaleBySoap


def _eigenbases(statistics: Any, bases: Any, nu: Array) -> tuple[Any, Array]:
    """The eigenvectors, those of the largest eigenvalues first."""
    return tuple(None if s is None else decompositions.eigh(s)[1][:, ::-1] for s in statistics), nu


def _kept(statistics: Any, bases: Any, nu: Array) -> tuple[Any, Array]:
    return bases, nu


def _power_iteration(statistics: Any, bases: Any, nu: Array) -> tuple[Any, Array]:
    """Q = QR(S Q): one step towards the eigenvectors, sorted by the eigenvalues that the old basis sees."""
    new = []
    for axis, (s, q) in enumerate(zip(statistics, bases, strict=True)):
        if s is None:
            new.append(None)
            continue
        product = jnp.matmul(s, q, precision=HIGHEST)
        order = jnp.argsort(-jnp.sum(q * product, axis=0), stable=True)
        nu = jnp.take(nu, order, axis=axis)
        new.append(decompositions.qr(jnp.take(product, order, axis=1))[0])
    return tuple(new), nu


def soap(
    learning_rate: ScalarOrSchedule = 3e-3,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-2,
    precondition_every: int = 10,
    max_precond_dim: int = 10000,
    mask: Mask = None,
    *,
    shampoo_beta: Scalar | None = None,
    precondition_1d: bool = False,
    merge_dims: bool = False,
    mu_dtype: Any = None,
) -> Chain:
    """SOAP: Adam in the eigenbasis of Shampoo's statistics, which turns slowly.

        g' = Q_L^T g Q_R                                        of a matrix; one Q for every axis
        mu = b1 mu + (1 - b1) g,  mu' = Q_L^T mu Q_R            nu = b2 nu + (1 - b2) g'^2
        u  = sqrt(1 - b2^t) / (1 - b1^t) Q_L (mu' / (sqrt(nu) + eps)) Q_R^T
        L  = beta L + (1 - beta) g g^T,  R = beta R + (1 - beta) g^T g
        every n-th update:  Q_L = QR(L Q_L),  Q_R = QR(R Q_R)   one step of power iteration, sorted by eigenvalue
        p  = p - eta (u + weight_decay p)

    The first gradient only sets the bases, to the eigenvectors of its own statistics: its update is that of the weight
    decay alone. So t is the number of the update, the first being 0. Vectors and scalars get Adam. Bases are computed
    in float32 or wider.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      b1: the weight of the old average of gradients, which is kept unrotated.
      b2: the weight of the old average of squared gradients, in the rotated basis.
      eps: stands outside the root, which is not bias-corrected (Adam's `tf_style`).
      weight_decay: decoupled: a number or a schedule.
      precondition_every: how many updates a basis is kept.
      max_precond_dim: longer axes are not rotated.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.
      shampoo_beta: the weight of the old statistics; None means `b2`.
      precondition_1d: whether vectors are rotated too.
      merge_dims: neighbouring axes of an array of two or more are merged while their product is at most
        `max_precond_dim`. Set that to about 1,000: at 10,000 a small matrix becomes one long vector.
      mu_dtype: the dtype of mu; None means that of the parameters.

    Differences. optax, torch and Keras have no SOAP. The authors' code, and `pytorch_optimizer.SOAP` after it, take the
    same steps; they multiply the decay onto parameters that have already moved. The paper's listing has no first step
    that is left out.

    Reference: Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson, Kakade, "SOAP: improving and stabilizing
    Shampoo using Adam", 2024.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] - jnp.eye(2)) ** 2)
    >>> params = {"w": jnp.zeros((2, 2))}
    >>> tx = soap(0.2, weight_decay=0.0)
    >>> state = tx.init(params)
    >>> for _ in range(4):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    2.000
    1.280
    0.723
    0.329

    Raises:
      ValueError: `b1`, `b2` or `shampoo_beta` outside of [0, 1), a negative argument, or a count below 1.
      TypeError: from `init`, a parameter is not real floating point.
    """
    return chain(
        scale_by_soap(
            b1,
            b2,
            eps,
            precondition_every,
            max_precond_dim,
            shampoo_beta=shampoo_beta,
            precondition_1d=precondition_1d,
            merge_dims=merge_dims,
            mu_dtype=mu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
