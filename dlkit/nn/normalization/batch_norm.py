"""Batch normalization, the layer that remembers."""

import math
from dataclasses import dataclass
from typing import Any, TypedDict

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional.normalization.norms import batch_norm
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, Ones, Zeros
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode
from dlkit.nn.normalization.norms import REAL, NormParams, init_norm

__all__ = ["BatchNorm", "BatchNormState"]


class BatchNormState(TypedDict):
    mean: Float[Array, "d"]
    var: Float[Array, "d"]


@dataclass(frozen=True)
class BatchNorm(Layer[NormParams, BatchNormState]):
    """`y = (x - mean) / sqrt(var + eps) * scale + shift`, statistics over all axes but the last: x `[B, ..., d]`.

    In training, mean and (biased) variance are those of the batch, and what is remembered moves toward them:

        state = decay * state + (1 - decay) * statistic of the batch

    In evaluation they are the remembered ones, so an output does not depend on the rest of the batch, and the state is
    returned as it came. It starts from mean 0 and variance 1: an untrained layer evaluates to `x / sqrt(1 + eps)`.

    `decay` weighs the *old* value, as in flax and Keras (0.99 there); torch's `momentum` weighs the new one, so its
    default 0.1 is 0.9 here. The remembered variance is `n / (n - 1)` times that of the batch, n values a channel, as in
    torch, because evaluation wants an estimate of the population's; flax and Keras keep the batch's own:
    `unbiased_running_var=False`. eps is 1e-5 as in torch and flax; Keras has 1e-3.

    Parameters: `scale` `[d]` from 1 and `shift` `[d]` from 0, unless `affine=False`. State: `mean` and `var` `[d]`,
    float32 whatever the dtype of x; statistics are computed in float32 or wider. Under `jit` with a batch sharded over
    devices they are those of the whole batch (torch: SyncBatchNorm); under `vmap`, of each mapped slice.

    >>> from dlkit.nn import EVAL, training
    >>> layer = BatchNorm(3)
    >>> params, state = layer.init(jax.random.key(0)), layer.init_state()
    >>> x = jax.random.normal(jax.random.key(1), (64, 3)) + 5
    >>> y, state = layer.apply(params, state, x, training(None))
    >>> bool(abs(y.mean(0)).max() < 1e-5), state["mean"].round(1)
    (True, Array([0.5, 0.5, 0.5], dtype=float32))
    >>> y, state = layer.apply(params, state, x, EVAL)

    Raises:
      ValueError: the last axis of x is not `d`; training on one value a channel, which has no variance; `decay` outside
        [0, 1].
      TypeError: x is not floating point.

    Reference: Ioffe and Szegedy, Batch normalization, 2015, arXiv:1502.03167.
    """

    d: int
    decay: float = 0.9
    eps: float = 1e-5
    unbiased_running_var: bool = True
    affine: bool = True
    scale_init: Initializer = Ones()
    shift_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(f"BatchNorm wants a decay in [0, 1], the weight of the old value, got {self.decay}")

    def init(self, key: Any) -> NormParams:
        return init_norm(key, self)

    def init_state(self) -> BatchNormState:
        return {"mean": jnp.zeros(self.d, jnp.float32), "var": jnp.ones(self.d, jnp.float32)}

    def apply(
        self, params: NormParams, state: BatchNormState, x: Array, mode: Mode
    ) -> tuple[Float[Array, "*lead {self.d}"], BatchNormState]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because=REAL)
        scale, shift = params.get("scale"), params.get("shift")
        if not mode.train:
            return functional.normalize(x, state["mean"], state["var"], scale, shift, eps=self.eps), state
        n = math.prod(x.shape[:-1])
        if n < 2:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape} in training: expected at least 2 values a channel because "
                f"the variance of {n} is not defined, got {n}; use a larger batch, or LayerNorm or GroupNorm, or EVAL"
            )
        y, mean, var = batch_norm(x, scale, shift, self.eps)
        if self.unbiased_running_var:
            var = var * (n / (n - 1))
        return y, {"mean": self._remember(state["mean"], mean), "var": self._remember(state["var"], var)}

    def _remember(self, old: Array, new: Array) -> Array:
        return self.decay * old + (1 - self.decay) * new.astype(old.dtype)
