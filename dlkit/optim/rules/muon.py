"""Muon: momentum whose singular values are all made equal."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, as_float, bias_correction, safe_increment, settle
from dlkit.optim.leaves import leafwise, zeros_like
from dlkit.optim.matrices import (
    PRECONDITIONINGS,
    MuonDimensionNumbers,
    Preconditioning,
    layout,
    newton_schulz,
    resolve_numbers,
    settle_numbers,
    two_axes,
)
from dlkit.optim.rules.adam import adamw
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, EmptyState, Transform, chain
from dlkit.optim.wrappers.masks import Mask, masked

__all__ = [
    "MuonDimensionNumbers",
    "MuonState",
    "ScaleByMuon",
    "ScaleByShape",
    "muon",
    "scale_by_muon",
    "scale_by_shape",
]

QUINTIC = (3.4445, -4.7750, 2.0315)
COEFFICIENTS: dict[str, Any] = {
    "standard": QUINTIC,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}


def settle_coefficients(owner: str, coeffs: Any) -> tuple[Any, ...]:
    """Three numbers, or a tuple of such triples, as floats; a string names one of `COEFFICIENTS`."""
    if isinstance(coeffs, str):
        if coeffs not in COEFFICIENTS:
            raise ValueError(f"{owner}: ns_coeffs is {coeffs!r}, wanted numbers or one of {', '.join(COEFFICIENTS)}")
        coeffs = COEFFICIENTS[coeffs]
    several = len(coeffs) > 0 and np.ndim(coeffs[0]) > 0
    rows = tuple(tuple(as_float(owner, "ns_coeffs", c) for c in row) for row in (coeffs if several else (coeffs,)))
    if not all(len(row) == 3 for row in rows):
        raise ValueError(f"{owner}: ns_coeffs has rows of {[len(row) for row in rows]} numbers, wanted 3 in each")
    return rows if several else rows[0]


class MuonState(NamedTuple):
    """Updates so far (int32), and the average of the gradients, not bias-corrected."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any


@dataclass(frozen=True)
class ScaleByMuon(Transform[MuonState]):
    """u = orthogonalized momentum: see `muon`. Every leaf has to be a matrix; `muon` gives the others to Adam.

    Args:
      ns_coeffs: (a, b, c) for all steps of Newton-Schulz, or a tuple of such triples, one a step.
      ns_steps: how many steps; with a tuple of triples, at least as many as there are of them (all are taken).
      beta: the weight of the old average.
      eps: is added to the norm that a matrix is divided by.
      mu_dtype: the dtype of mu; None means that of the parameters.
      nesterov: whether to look ahead.
      adaptive: whether to multiply by <momentum, u>, about the nuclear norm of the momentum: u then grows with it.
      preconditioning: what a matrix is first divided by: see `muon`.
      weight_dimension_numbers: which axes are inputs and outputs: see `muon`. None: of leaves with two axes, the first
        and the second.

    Differences. optax: equal; there, None does not work outside of `muon`, and the state holds the coefficients too.

    >>> tx = scale_by_muon()
    >>> u, _ = tx.update({"w": jnp.array([[3.0, 0.0], [0.0, 0.2]])}, tx.init({"w": jnp.ones((2, 2))}))
    >>> bool(jnp.all(jnp.abs(jnp.diag(u["w"]) - 1) < 0.35))  # 3 and 0.2 have become about 1
    True

    Raises:
      ValueError: an argument out of range; from `update`, a leaf that is no matrix by its dimension numbers.
    """

    ns_coeffs: Any = QUINTIC
    ns_steps: int = 5
    beta: Scalar = 0.95
    eps: Scalar = 1e-8
    mu_dtype: Any = None
    _: KW_ONLY
    nesterov: bool = True
    adaptive: bool = False
    preconditioning: Preconditioning = "frobenius"
    weight_dimension_numbers: Any = None

    def __post_init__(self) -> None:
        settle("scale_by_muon", self, decays=("beta",), nonnegative=("eps",), dtypes=("mu_dtype",))
        object.__setattr__(self, "ns_steps", as_count("scale_by_muon", "ns_steps", self.ns_steps, least=1))
        object.__setattr__(self, "ns_coeffs", settle_coefficients("scale_by_muon", self.ns_coeffs))
        numbers = settle_numbers("scale_by_muon", self.weight_dimension_numbers)
        object.__setattr__(self, "weight_dimension_numbers", numbers)
        if self.preconditioning not in PRECONDITIONINGS:
            wanted = ", ".join(PRECONDITIONINGS)
            raise ValueError(f"scale_by_muon: preconditioning is {self.preconditioning!r}, wanted one of {wanted}")
        if isinstance(self.ns_coeffs[0], tuple) and len(self.ns_coeffs) > self.ns_steps:
            raise ValueError(f"scale_by_muon: ns_steps is {self.ns_steps}, wanted {len(self.ns_coeffs)}: one a triple")

    def init(self, params: Any) -> MuonState:
        return MuonState(jnp.zeros((), jnp.int32), zeros_like("scale_by_muon", params, self.mu_dtype))

    def update(self, grads: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        count = safe_increment(state.count)
        of_mu, of_g = 1 / bias_correction(self.beta, count), None
        if self.nesterov:
            of_g = (1 - self.beta) * of_mu
            of_mu = self.beta / bias_correction(self.beta, safe_increment(count))

        def step(g: Array, mu: Array) -> tuple[Array, Array]:
            mu = self.beta * mu + (1 - self.beta) * g
            ahead = of_mu.astype(g.real.dtype) * mu
            return ahead if of_g is None else ahead + of_g.astype(g.real.dtype) * g, mu

        ahead, mu = leafwise("scale_by_muon", step, grads, state.mu)
        numbers = resolve_numbers(self.weight_dimension_numbers, grads, two_axes)
        return jax.tree.map(self._orthogonal, ahead, numbers), MuonState(count, mu)

    def _orthogonal(self, x: Array, numbers: Any) -> Array:
        if numbers is None:
            raise ValueError(
                f"scale_by_muon: a leaf of shape {x.shape} is no matrix: leave it out with `masked` (as `muon` does), "
                "or give weight_dimension_numbers"
            )
        several = isinstance(self.ns_coeffs[0], tuple)
        steps = self.ns_coeffs if several else (self.ns_coeffs,) * self.ns_steps
        by = layout("scale_by_muon", x.shape, numbers)
        u = by.back(newton_schulz(by.to_matrices(x), steps, self.preconditioning, self.eps), x.shape)
        return jnp.sum(jnp.conj(x) * u) * u if self.adaptive else u


scale_by_muon = ScaleByMuon


@dataclass(frozen=True)
class ScaleByShape(Transform[EmptyState]):
    """u = g sqrt(max(1, outputs / inputs)), or with a number r, u = g r sqrt(max(inputs, outputs)).

    The first makes learning rates carry over from narrow to wide models; the second gives an orthogonal matrix the root
    mean square r, whatever its shape: 0.2 is about that of Adam's steps.

    Args:
      weight_dimension_numbers: see `muon`.
      consistent_rms: r, or None for the first.

    Reference: Liu et al., "Muon is scalable for LLM training", 2025.

    >>> scale_by_shape().update({"w": jnp.ones((1, 4))}, EmptyState())[0]
    {'w': Array([[2., 2., 2., 2.]], dtype=float32)}

    Raises:
      ValueError: `consistent_rms` is negative; from `update`, a leaf that is no matrix by its dimension numbers.
    """

    weight_dimension_numbers: Any = None
    consistent_rms: Scalar | None = None

    def __post_init__(self) -> None:
        settle("scale_by_shape", self, nonnegative=("consistent_rms",) if self.consistent_rms is not None else ())
        numbers = settle_numbers("scale_by_shape", self.weight_dimension_numbers)
        object.__setattr__(self, "weight_dimension_numbers", numbers)

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        def scaled(g: Array, numbers: Any) -> Array:
            if numbers is None:
                raise ValueError(f"scale_by_shape: a leaf of shape {g.shape} is no matrix: leave it out with `masked`")
            inputs, outputs = layout("scale_by_shape", g.shape, numbers).fans(g.shape)
            if self.consistent_rms is None:
                return max(1.0, outputs / inputs) ** 0.5 * g
            return self.consistent_rms * max(inputs, outputs) ** 0.5 * g

        return jax.tree.map(scaled, grads, resolve_numbers(self.weight_dimension_numbers, grads, two_axes)), state


scale_by_shape = ScaleByShape


@dataclass(frozen=True)
class Matrices:
    """The mask of the leaves that are matrices by `numbers`; with `others`, of those that are not."""

    numbers: Any
    others: bool = False

    def __call__(self, params: Any) -> Any:
        found = resolve_numbers(self.numbers, params, two_axes)
        return jax.tree.map(lambda _, numbers: (numbers is None) == self.others, params, found)


def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Any = QUINTIC,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: Scalar | None = None,
) -> Chain:
    """Muon for matrices, AdamW for everything else.

        mu = beta mu + (1 - beta) g             bias-corrected and with Nesterov's look-ahead as in `adam`: mu_hat
        o  = NewtonSchulz(mu_hat)               about U V^T of mu_hat = U S V^T
        p  = p - eta (o sqrt(max(1, outputs / inputs)) + weight_decay p)

    It is steepest descent in the spectral norm (`steepest_descent`): every singular direction of the momentum moves by
    the same amount. Five steps of the quintic leave singular values between about 0.7 and 1.2, on purpose.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      ns_coeffs: (a, b, c) of the polynomial a s + b s^3 + c s^5, a tuple of such triples, one a step, or the name of a
        published choice: `"standard"` or `"dion"`.
      ns_steps: how many steps; see `ScaleByMuon`.
      beta, mu_dtype, nesterov, adaptive: see `ScaleByMuon`.
      eps: is added to the norm that a matrix is divided by; Adam's eps too.
      weight_decay: a number or a schedule, for matrices.
      weight_decay_mask: which of the matrices decay: None for all, path globs, a tree of booleans, or a callable.
      preconditioning: what a matrix is divided by before the first step: its `"frobenius"` norm, its `"spectral"` norm
        (from an SVD: costly), or by `"aol"` or `"schatten"`, tighter bounds from products that are computed anyway.
      adam_b1, adam_b2, adam_eps_root, adam_weight_decay: of AdamW, for what is no matrix.
      adam_learning_rate: None means the learning rate above.
      muon_weight_dimension_numbers: None makes every parameter with two axes a matrix `[in, out]`. Otherwise
        `MuonDimensionNumbers` for all of them, a tree of these (or a prefix of one) with None for what AdamW takes, or
        a callable from the parameters to such a tree. Embedding tables and output layers are better left to AdamW.
      consistent_rms: see `ScaleByShape`.

    Differences. optax (`contrib.muon`): equal; it keeps the two parts in a dict of states. torch `Muon`: takes matrices
    only, in torch's layout `[out, in]`; its look-ahead is g + beta v without bias correction, Newton-Schulz runs in
    bfloat16, and weight_decay is 0.1. Keras `Muon`: momentum without bias correction, `rms_rate` = 0.2 (here
    `consistent_rms`), decay 0.004, an eps of 1e-7.

    References: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. Bernstein, Newhouse,
    "Old optimizer, new norm: an anthology", 2024 (adaptive). Boissin et al., "Turbo-Muon", 2025 (aol). Grishina,
    Smirnov, Rakhuba, "Accelerating Newton-Schulz iteration for orthogonalization via Chebyshev-type polynomials", 2025
    (schatten). Ahn et al., "Dion: distributed orthonormalized updates", 2025.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum((p["w"] @ p["w"].T - jnp.eye(2)) ** 2) + jnp.sum(p["b"] ** 2)
    >>> params = {"w": jnp.array([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.ones(2)}
    >>> tx = muon(0.1)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.1f}")
    19.1
    16.2
    13.7

    Raises:
      ValueError: an argument out of range.
    """
    numbers = settle_numbers("muon", muon_weight_dimension_numbers)
    rule = chain(
        scale_by_muon(
            settle_coefficients("muon", ns_coeffs),
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=numbers,
        ),
        scale_by_shape(numbers, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    rest = adamw(
        rate, adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, weight_decay=adam_weight_decay, nesterov=nesterov
    )
    return chain(masked(rule, Matrices(numbers)), masked(rest, Matrices(numbers, others=True)))
