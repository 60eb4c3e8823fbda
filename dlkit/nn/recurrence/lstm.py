"""Long short-term memory."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.functional.linear import linear
from dlkit.functional.recurrence.recurrent import lstm_step, scan_chosen
from dlkit.functional.recurrence.recurrent_gradient import LstmCell, recurrence
from dlkit.nn.initializers import Initializer, Orthogonal, Zeros, lecun_normal
from dlkit.nn.mode import fold_name
from dlkit.nn.recurrence.recurrent import Noise, Recurrent, init_gates

__all__ = ["LSTM"]


@dataclass(frozen=True)
class LSTM(Recurrent):
    """Long short-term memory: with `u = h_{t-1}` and `c = c_{t-1}`,

        i = σ(x w_ii + b_ii + u w_hi + b_hi + p_i c)        c_t = f c + i g
        f = σ(x w_if + b_if + u w_hf + b_hf + p_f c)        o   = σ(x w_io + b_io + u w_ho + b_ho + p_o c_t)
        g = tanh(x w_ig + b_ig + u w_hg + b_hg)             h_t = o tanh(c_t) w_proj

    x `[..., T, d_in]`, y `[..., T, d]`, the h of all times. `peephole` adds the terms `p c` (Gers and Schmidhuber);
    `projection=p` maps h to p features, y `[..., T, p]` (torch's `proj_size`).

    Parameters: `input` `{w [d_in, 4 d], b [4 d]}` and `hidden` `{w [d or p, 4 d], b [4 d]}`, gates side by side in the
    order i, f, g, o of torch, flax and Keras; haiku's is i, g, f, o. Both of torch's biases are there; flax, Keras and
    haiku have one (`hidden_bias=False`). Besides, `peephole` `{w [3, d]}`, the rows p_i, p_f, p_o, and `projection`
    `{w [d, p]}`.

    Input weights start with variance `1 / d_in`, each recurrent matrix orthogonal, peepholes at 0, biases at 0 but that
    of the forget gate, which starts larger by `forget_bias` (in `input/b`; without a bias there is none). It is 1 as in
    Keras and haiku (Jozefowicz et al.: what is remembered fades slowly at first); torch and flax add none. torch starts
    everything as U(-1/sqrt(d), 1/sqrt(d)) (`init_preset`, which sets `forget_bias` too).

    The state is the carry `{h [B, d or p], c [B, d]}`; see `apply` for `lengths` and `reverse`. Without peepholes and
    projection the gradients of all weights are matrix products after the scan; with them they are summed inside of it.

    >>> from dlkit.nn import EVAL
    >>> layer = LSTM(3, 4, projection=2)
    >>> params = layer.init(jax.random.key(0))
    >>> y, carry = layer.apply(params, layer.init_cache(2, 5), jnp.ones((2, 5, 3)), EVAL)
    >>> y.shape, carry["h"].shape, carry["c"].shape
    ((2, 5, 2), (2, 2), (2, 4))

    Raises:
      ValueError: x without a time axis or not of `d_in` features; lengths or a carry that do not fit x.
      TypeError: x is not floating point, or not of the dtype of the weights or of the carry.

    References: Hochreiter and Schmidhuber, Long short-term memory, 1997; Gers and Schmidhuber, Recurrent nets that time
    and count, 2000; Sak, Senior and Beaufays, 2014, arXiv:1402.1128; Jozefowicz, Zaremba and Sutskever, An empirical
    exploration of recurrent network architectures, 2015.
    """

    d_in: int
    d: int
    forget_bias: float = 1.0
    peephole: bool = False
    projection: int | None = None
    bias: bool = True
    hidden_bias: bool = True
    w_init: Initializer = lecun_normal()
    hidden_init: Initializer = Orthogonal()
    b_init: Initializer = Zeros()
    takes_noise = True

    @property
    def d_out(self) -> int:
        return self.d if self.projection is None else self.projection

    def carry_sizes(self) -> dict[str, int]:
        return {"h": self.d_out, "c": self.d}

    def init(self, key: Any) -> Any:
        params: dict[str, Any] = init_gates(key, self, self.d_in, self.d, 4, hidden=self.d_out)
        if self.bias:
            params["input"]["b"] = params["input"]["b"].at[self.d : 2 * self.d].add(self.forget_bias)
        if self.peephole:
            params["peephole"] = {"w": jnp.zeros((3, self.d), params["input"]["w"].dtype)}
        if self.projection is not None:
            start, fans = fold_name(fold_name(key, "projection"), "w"), (self.projection, self.d)
            params["projection"] = {"w": self.hidden_init(start, (self.d, self.projection), fans=fans)}
        return params

    def run(
        self, params: Any, carry: Any, x: Array, valid: Array | None, reverse: bool, noise: Noise = Noise()
    ) -> tuple[Array, Any]:
        into, hidden = params["input"], params["hidden"]
        a, now, mask = linear(x, into["w"]), valid if noise.keep is None else noise.keep, noise.hidden
        if not self.peephole and self.projection is None:
            biases = (into.get("b"), hidden.get("b"))
            return recurrence(LstmCell(), reverse, a, hidden["w"], biases, carry, now, mask)
        others = {name: params[name]["w"] for name in ("peephole", "projection") if name in params}
        b = into["b"] + hidden["b"] if "b" in hidden else into.get("b")

        def step(carry: Any, a: Array) -> Any:
            return lstm_step(carry[0], carry[1], a, hidden["w"], b, mask=mask, **others)

        carry, y = scan_chosen(step, carry, a, now, reverse=reverse)
        return y, carry
