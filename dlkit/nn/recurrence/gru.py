"""The gated recurrent unit."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp  # noqa: F401
from jaxtyping import Array

from dlkit.functional.linear import linear
from dlkit.functional.recurrence.recurrent import gru_step, scan_chosen
from dlkit.functional.recurrence.recurrent_gradient import GruCell, recurrence
from dlkit.nn.initializers import Initializer, Orthogonal, Zeros, lecun_normal
from dlkit.nn.recurrence.recurrent import Noise, Recurrent, init_gates

__all__ = ["GRU"]


@dataclass(frozen=True)
class GRU(Recurrent):
    """A gated recurrent unit, `h_t = (1 - z) n + z h_{t-1}`, with `u = h_{t-1}` and

        r = σ(x w_ir + b_ir + u w_hr + b_hr)        n = tanh(x w_in + b_in + r (u w_hn + b_hn))     reset_after
        z = σ(x w_iz + b_iz + u w_hz + b_hz)        n = tanh(x w_in + b_in + (r u) w_hn + b_hn)     else

    x `[..., T, d_in]`, y `[..., T, d]`, the h of all times. `reset_after` is torch's, flax's and Keras' form; the
    paper's and haiku's resets before the product. Keras with `reset_after=True` has both biases too; flax has the
    input's three and `b_hn`; Keras and haiku with reset before have one (`hidden_bias=False`).

    Parameters: `input` `{w [d_in, 3 d], b [3 d]}` and `hidden` `{w [d, 3 d], b [3 d]}`, gates side by side in torch's
    order r, z, n; Keras stores z, r, n, and haiku's z is the `1 - z` here. Input weights start with variance
    `1 / d_in`, each recurrent matrix orthogonal, biases at 0, as in flax; torch starts all of them as
    U(-1/sqrt(d), 1/sqrt(d)) (`init_preset`). With `reset_after` the gradients of all weights are matrix products after
    the scan. The state is the carry `{h [B, d]}`; see `apply` for `lengths` and `reverse`.

    >>> from dlkit.nn import EVAL
    >>> layer = GRU(3, 4)
    >>> params, x = layer.init(jax.random.key(0)), jnp.ones((2, 5, 3))
    >>> y, carry = layer.apply(params, layer.init_cache(2, 5), x, EVAL, lengths=jnp.array([5, 2]))
    >>> y.shape, bool((y[1, 2:] == 0).all()), bool(jnp.allclose(carry["h"][1], y[1, 1]))
    ((2, 5, 4), True, True)

    Raises:
      ValueError: x without a time axis or not of `d_in` features; lengths or a carry that do not fit x.
      TypeError: x is not floating point, or not of the dtype of the weights or of the carry.

    Reference: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.
    """

    d_in: int
    d: int
    reset_after: bool = True
    bias: bool = True
    hidden_bias: bool = True
    w_init: Initializer = lecun_normal()
    hidden_init: Initializer = Orthogonal()
    b_init: Initializer = Zeros()
    takes_noise = True

    def init(self, key: Any) -> Any:
        return init_gates(key, self, self.d_in, self.d, 3)

    def run(
        self, params: Any, carry: Any, x: Array, valid: Array | None, reverse: bool, noise: Noise = Noise()
    ) -> tuple[Array, Any]:
        into, hidden = params["input"], params["hidden"]
        now, mask = valid if noise.keep is None else noise.keep, noise.hidden
        if self.reset_after:
            biases = (into.get("b"), hidden.get("b"))
            return recurrence(GruCell(), reverse, linear(x, into["w"]), hidden["w"], biases, carry, now, mask)

        def step(carry: Any, a: Array) -> Any:
            return (gru_step(carry[0], a, hidden["w"], hidden.get("b"), reset_after=False, mask=mask),)

        carry, y = scan_chosen(step, carry, linear(x, into["w"], into.get("b")), now, reverse=reverse)
        return y, carry
