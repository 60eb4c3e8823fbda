"""The linear recurrent unit: a recurrence without a nonlinearity inside, computed in parallel over time."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from dlkit.functional.linear import linear
from dlkit.functional.precision import wide_dtype
from dlkit.functional.recurrence.linear_recurrence import linear_recurrence
from dlkit.functional.recurrence.recurrent import where_valid
from dlkit.nn.checks import describe
from dlkit.nn.mode import fold_name
from dlkit.nn.recurrence.recurrent import Recurrent

__all__ = ["LRU"]


@dataclass(frozen=True)
class LRU(Recurrent):
    """The linear recurrent unit, with a diagonal complex recurrence of `d_state` modes:

        s_t = λ s_{t-1} + γ (x_t B)        y_t = Re(s_t C) + D x_t        λ = exp(-exp(ν) + i exp(θ))

    x and y `[..., T, d]`. All times are computed at once by an associative scan; step by step, with the state, the
    numbers are the same. `|λ| < 1` whatever ν is, so the recurrence is stable. Modes start uniformly on the ring
    `r_min <= |λ| <= r_max`, with phases up to `max_phase` (a small one, π/50 in the paper, for long sequences), and
    `γ = sqrt(1 - |λ|^2)`, which gives every mode the same variance. The recurrence runs in complex64 (complex128 for
    float64) whatever the dtype of x. Between such layers stand a nonlinearity, a norm and a shortcut.

    Parameters: `nu`, `theta`, `gamma` (the logarithm of γ) `[d_state]`; `input/w` `[d, 2 d_state]`, the real part of B
    and the imaginary one; `output/w` `[2 d_state, d]`, the real part of C and minus the imaginary one; `skip` `[d]`, D.
    The state is the carry `{re, im}`, both `[B, d_state]`; see `apply` for `lengths` and `reverse`. None of torch,
    flax, haiku, equinox and Keras has it.

    >>> from dlkit.nn import EVAL
    >>> layer = LRU(3, 8, r_min=0.9, r_max=0.999)
    >>> params, x = layer.init(jax.random.key(0)), jnp.ones((2, 5, 3))
    >>> y, _ = layer.apply(params, None, x, EVAL)
    >>> first, carry = layer.apply(params, layer.init_cache(2, 5), x[:, :4], EVAL)
    >>> last, carry = layer.apply(params, carry, x[:, 4:], EVAL)
    >>> bool(jnp.allclose(last, y[:, 4:], atol=1e-5))
    True

    Raises:
      ValueError: not 0 <= r_min < r_max <= 1; x without a time axis or not of `d` features; lengths or a carry that do
        not fit x.
      TypeError: x is not floating point, or not of the dtype of the weights.

    Reference: Orvieto et al., Resurrecting recurrent neural networks for long sequences, 2023, arXiv:2303.06349.
    """

    d: int
    d_state: int
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(f"{describe(self)}: expected 0 <= r_min < r_max <= 1")

    @property
    def d_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.d

    def carry_sizes(self) -> dict[str, int]:
        return {"re": self.d_state, "im": self.d_state}

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """The carry that a sequence starts from, zeros `[batch, d_state]`; `length` does not matter."""
        return super().init_cache(batch, length, wide_dtype(jnp.dtype(dtype)))

    def init(self, key: Any) -> Any:
        n, d = self.d_state, self.d
        place = jax.random.uniform(fold_name(key, "nu"), (n,))
        # Of uniform density on the ring: |λ|^2 is uniform. The clip keeps the logarithm of 1 - |λ|^2 finite.
        squared = jnp.clip(self.r_min**2 + place * (self.r_max**2 - self.r_min**2), 1e-6, 1 - 1e-6)
        phase = self.max_phase * jax.random.uniform(fold_name(key, "theta"), (n,), minval=1e-6)
        return {
            "nu": jnp.log(-0.5 * jnp.log(squared)),
            "theta": jnp.log(phase),
            "gamma": 0.5 * jnp.log1p(-squared),
            "input": {"w": jax.random.normal(fold_name(key, "input"), (d, 2 * n)) / math.sqrt(2 * d)},
            "output": {"w": jax.random.normal(fold_name(key, "output"), (2 * n, d)) / math.sqrt(n)},
            "skip": jax.random.normal(fold_name(key, "skip"), (d,)),
        }

    def run(  # pyright: ignore[reportIncompatibleMethodOverride]  (its `takes_noise` is False)
        self, params: Any, carry: Any, x: Array, valid: Array | None, reverse: bool
    ) -> tuple[Array, Any]:
        wide, n = wide_dtype(x.dtype), self.d_state
        nu, theta, gamma = (params[name].astype(wide) for name in ("nu", "theta", "gamma"))
        size = -jnp.exp(nu)
        modes = lax.complex(jnp.exp(size) * jnp.cos(jnp.exp(theta)), jnp.exp(size) * jnp.sin(jnp.exp(theta)))
        # Real matrix products: on a CPU they are several times faster than complex ones.
        given = linear(x, params["input"]["w"]).astype(wide)
        scale = jnp.exp(gamma)[None, None]
        b = lax.complex(scale * given[..., :n], scale * given[..., n:])
        a = jnp.broadcast_to(modes[None, None], b.shape)
        if valid is not None:  # what is not there leaves the state as it is
            a, b = where_valid(valid, a, jnp.ones_like(a)), where_valid(valid, b, jnp.zeros_like(b))
        held = lax.complex(carry[0].astype(wide), carry[1].astype(wide))
        s = linear_recurrence(a, b, held, reverse=reverse)
        final = (s[0] if reverse else s[-1]) if s.shape[0] else held
        both = jnp.concatenate([s.real, s.imag], axis=-1).astype(x.dtype)
        y = linear(both, params["output"]["w"]) + params["skip"][None, None] * x
        return y, (final.real, final.imag)
