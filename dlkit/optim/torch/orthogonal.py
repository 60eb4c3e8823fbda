"""torch's Muon: the momentum of a matrix with all its singular values near 1."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.optim.gradients.decay import decay_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, as_float, settle
from dlkit.optim.leaves import leafwise, widest
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale, scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, EmptyState, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["NewtonSchulz", "muon"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True)
class NewtonSchulz(Transform[EmptyState]):
    """Replaces every matrix by one with the same singular vectors and singular values of about 1: see `muon`.

    Args:
      ns_coefficients: a, b, c of X = a X + (b X X' + c (X X')^2) X.
      ns_steps: how often that is done.
      eps: the least length to divide by.
      factor: what the result is multiplied by: None for nothing, "original" for sqrt(max(1, rows / columns)),
        "rms" for rms_rate sqrt(max(rows, columns)), which gives every element a size of about `rms_rate`.
      rms_rate: see `factor`.
      eps_added: whether eps is added to the length (Keras), or a lower limit of it (torch).
      dtype: of the iteration; None for that of the gradient.

    Raises:
      ValueError: three coefficients, 0 ... 99 steps and a nonnegative eps are wanted; from `update`, when a gradient
        is no matrix.
    """

    ns_coefficients: tuple[Scalar, Scalar, Scalar] = COEFFICIENTS
    ns_steps: int = 5
    eps: Scalar = 1e-7
    factor: Literal["original", "rms"] | None = None
    rms_rate: Scalar = 0.2
    _: KW_ONLY
    eps_added: bool = False
    dtype: Any = None

    def __post_init__(self) -> None:
        settle("muon", self, nonnegative=("eps", "rms_rate"), dtypes=("dtype",))
        if as_count("muon", "ns_steps", self.ns_steps) >= 100:
            raise ValueError(f"muon: ns_steps is {self.ns_steps}, wanted less than 100")
        if len(self.ns_coefficients) != 3:
            raise ValueError(f"muon: ns_coefficients is {self.ns_coefficients}, wanted three numbers")
        values = tuple(as_float("muon", "ns_coefficients", value) for value in self.ns_coefficients)
        object.__setattr__(self, "ns_coefficients", values)

    def init(self, params: Any) -> EmptyState:
        return EmptyState()

    def update(self, grads: Any, state: EmptyState, params: Any = None) -> tuple[Any, EmptyState]:
        (updates,) = leafwise("muon", self._orthogonal, grads)
        return updates, state

    def _orthogonal(self, g: Array) -> Array:
        if g.ndim != 2:
            raise ValueError(f"muon: a gradient has the shape {g.shape}, wanted matrices: leave out the rest, `masked`")
        rows, columns = g.shape
        a, b, c = self.ns_coefficients
        x = g.T if rows > columns else g
        x = x.astype(g.dtype if self.dtype is None else self.dtype)
        eps, length = as_dtype(self.eps, x.dtype), _length(x)
        x = x / (length + eps if self.eps_added else jnp.maximum(length, eps))
        for _ in range(self.ns_steps):
            square = x @ x.T
            x = a * x + (b * square + c * (square @ square)) @ x
        x = (x.T if rows > columns else x).astype(g.dtype)
        if self.factor == "original":
            return math.sqrt(max(1.0, rows / columns)) * x
        return self.rms_rate * math.sqrt(max(rows, columns)) * x if self.factor == "rms" else x


def _length(x: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """Summed in float32 at least, and rounded once."""
    wide = x.astype(widest(x.dtype, jnp.dtype(jnp.float32)))
    return jnp.sqrt(jnp.sum(wide * wide)).astype(x.dtype)


def muon(
    lr: ScalarOrSchedule = 1e-3,
    weight_decay: Scalar = 0.1,
    momentum: Scalar = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[Scalar, Scalar, Scalar] = COEFFICIENTS,
    eps: Scalar = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None,
    *,
    mask: Mask = None,
    dtype: Any = "bfloat16",
) -> Chain:
    """torch.optim.Muon, for matrices only: every direction of the momentum counts the same.

        v = momentum v + (1 - momentum) g            with nesterov, momentum v + (1 - momentum) g stands for v below
        X = v / max(|v|, eps)                        then ns_steps times:  X = a X + (b X X' + c (X X')^2) X
        p = p - lr (weight_decay p + f X)            f = sqrt(max(1, rows / columns))
                                                     match_rms_adamw:  f = 0.2 sqrt(max(rows, columns))

    Other parameters are left to another optimizer:
    `chain(masked(muon(...), matrices), masked(adamw(...), others))`.

    Args:
      lr: the learning rate, or a schedule.
      weight_decay: decoupled.
      momentum: the weight of the old average.
      nesterov: whether the average looks ahead.
      ns_coefficients: a, b, c.
      eps: the least length to divide by.
      ns_steps: steps of the iteration.
      adjust_lr_fn: f: None or "original", or "match_rms_adamw".
      mask: which parameters decay; None for all.
      dtype: of the iteration: torch's is bfloat16, in which two libraries round differently.

    Differences. rows / columns are those of the array. torch's own layers keep weights as (out, in), those here as
    (in, out): the factor of "original" is the other way round for them.

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([[1.0, 2.0], [-3.0, 0.5]])}
    >>> tx = muon(0.5)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.1f}")
    8.6
    4.7
    2.0

    Raises:
      ValueError: as `NewtonSchulz`, an unknown `adjust_lr_fn`, or another negative argument.
    """
    kinds: dict[Any, Any] = {None: "original", "original": "original", "match_rms_adamw": "rms"}
    if adjust_lr_fn not in kinds:
        raise ValueError(f"muon: adjust_lr_fn is {adjust_lr_fn!r}, wanted None, 'original' or 'match_rms_adamw'")
    weight = as_float("muon", "momentum", momentum)
    return chain(
        scale(1 - weight),
        trace(weight, nesterov),
        NewtonSchulz(ns_coefficients, ns_steps, eps, kinds[adjust_lr_fn], dtype=dtype),
        *decay_links(weight_decay, mask),
        scale_by_learning_rate(lr),
    )
