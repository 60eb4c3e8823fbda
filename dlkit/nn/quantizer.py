"""Vector quantizers: the discrete middle of a VQ-VAE."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from dlkit import functional
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, VarianceScaling
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.mode import Mode, fold_name

__all__ = ["Quantized", "VectorQuantizer", "VectorQuantizerEMA"]


class Quantized(NamedTuple):
    """What a quantizer gives: the nearest code of each vector, its loss, and its index in the table."""

    y: Float[Array, "*lead d"]
    loss: Float[Array, "*lead"]
    ids: Integer[Array, "*lead"]


class TableParams(TypedDict):
    table: Float[Array, "size d"]


def _check(layer: Any) -> None:
    if layer.size < 1 or layer.d < 1:
        raise ValueError(f"{describe(layer)}: expected a size and a d of at least 1")
    if layer.commitment < 0:
        raise ValueError(f"{describe(layer)}: expected a commitment of at least 0")


@dataclass(frozen=True)
class VectorQuantizer(Pure[TableParams]):
    """Each vector replaced by the nearest of `size` learned codes: x `[..., d]` to `Quantized(y, loss, ids)`.

        y = x + sg(e - x)        loss = mean (sg(x) - e)^2 + commitment mean (x - sg(e))^2

    `y` `[..., d]` is the code, its gradient passed straight to x; `loss` `[...]`, one number a vector, is to be added
    to the training loss, its mean with weight 1 in the paper; `ids` `[...]` are the codes' indices. Parameter: `table`
    `[size, d]`. How many codes are in use: `functional.perplexity(ids, size)`. haiku: `nets.VectorQuantizer`, whose
    table is `[d, size]` and whose `commitment_cost` has no default.

    >>> layer = VectorQuantizer(8, 2)
    >>> out = layer(layer.init(jax.random.key(0)), jnp.ones((4, 5, 2)))
    >>> out.y.shape, out.loss.shape, out.ids.shape
    ((4, 5, 2), (4, 5), (4, 5))

    Raises:
      ValueError: the last axis of x is not `d`; a size below 1 or a negative commitment.
      TypeError: x is not floating point, or not of the table's dtype.

    Reference: van den Oord, Vinyals and Kavukcuoglu, Neural discrete representation learning, 2017, arXiv:1711.00937.
    """

    size: int
    d: int
    commitment: float = 0.25
    table_init: Initializer = VarianceScaling(1.0, "fan_in", "uniform")

    def __post_init__(self) -> None:
        _check(self)

    def init(self, key: Any) -> TableParams:
        return {"table": self.table_init(fold_name(key, "table"), (self.size, self.d), fans=(self.d, self.size))}

    def __call__(self, params: TableParams, x: Array) -> Quantized:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["table"])
        return Quantized(*functional.quantize(x, params["table"], commitment=self.commitment))


class EMAState(TypedDict):
    table: Float[Array, "size d"]
    counts: Float[Array, "size"]
    sums: Float[Array, "size d"]
    steps: Float[Array, ""]


@dataclass(frozen=True)
class VectorQuantizerEMA(Layer[Any, EMAState]):
    """A `VectorQuantizer` whose codes are moving averages of the vectors that were nearest to them; no gradient.

    In each training step, after the codes have been looked up, with n_k the number of vectors nearest to code k and
    s_k their sum, and 1 - decay^t taking out that the averages start at 0:

        counts = decay counts + (1 - decay) n        sums = decay sums + (1 - decay) s
        N = counts / (1 - decay^t)                   S = sums / (1 - decay^t)
        table = S / ((N + eps) / (sum N + size eps) sum N)

    `decay` weighs the old value. The loss is the commitment alone, `commitment mean (x - sg(e))^2`. In evaluation
    nothing changes. A code that no vector was ever nearest to goes to 0, as in haiku.

    No parameters. State, float32: `table`, `counts`, `sums`, `steps`. States are made without a key, so the first table
    is drawn by `table_init` from `seed`: give quantizers of one model different ones. Under `jit` with a batch sharded
    over devices the averages are those of the whole batch. haiku: `nets.VectorQuantizerEMA` (its table is `[d, size]`).

    >>> from dlkit.nn import training
    >>> layer = VectorQuantizerEMA(8, 2)
    >>> out, state = layer.apply({}, layer.init_state(), jnp.ones((4, 2)), training(None))
    >>> bool(jnp.allclose(state["table"][out.ids[0]], 1.0, atol=1e-3))
    True

    Raises:
      ValueError: the last axis of x is not `d`; a size below 1, a negative commitment, a decay outside [0, 1).
      TypeError: x is not floating point.

    Reference: van den Oord, Vinyals and Kavukcuoglu, Neural discrete representation learning, 2017, appendix A.1.
    """

    size: int
    d: int
    commitment: float = 0.25
    decay: float = 0.99
    eps: float = 1e-5
    seed: int = 0
    table_init: Initializer = VarianceScaling(1.0, "fan_in", "uniform")

    def __post_init__(self) -> None:
        _check(self)
        if not 0 <= self.decay < 1:
            raise ValueError(f"{describe(self)}: expected a decay in [0, 1), the weight of the old value")

    def init_state(self) -> EMAState:
        table = self.table_init(jax.random.key(self.seed), (self.size, self.d), fans=(self.d, self.size))
        zeros = jnp.zeros((self.size, self.d), jnp.float32)
        return {"table": table, "counts": zeros[:, 0], "sums": zeros, "steps": jnp.zeros((), jnp.float32)}

    def apply(self, params: Any, state: EMAState, x: Array, mode: Mode) -> tuple[Quantized, EMAState]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, because="it is averaged")
        table = jax.lax.stop_gradient(state["table"])
        y, loss, ids = functional.quantize(x, table.astype(x.dtype), commitment=self.commitment)
        # Nothing learns the table by its gradient, so its part of the loss, equal in value, is left out.
        out = Quantized(y, loss * (self.commitment / (1 + self.commitment)), ids)
        return (out, self._averaged(state, x, ids)) if mode.train else (out, state)

    def _averaged(self, state: EMAState, x: Array, ids: Array) -> EMAState:
        flat = jax.lax.stop_gradient(x).astype(state["sums"].dtype).reshape(-1, self.d)
        chosen = functional.one_hot(ids.reshape(-1), self.size, flat.dtype)
        steps = state["steps"] + 1
        counts = self.decay * state["counts"] + (1 - self.decay) * chosen.sum(0)
        sums = self.decay * state["sums"] + (1 - self.decay) * (chosen.T @ flat)
        unbias = 1 - self.decay**steps
        n = counts / unbias
        total = n.sum()
        smoothed = (n + self.eps) / (total + self.size * self.eps) * total
        table = (sums / unbias / smoothed[:, None]).astype(state["table"].dtype)
        return {"table": table, "counts": counts, "sums": sums, "steps": steps}
