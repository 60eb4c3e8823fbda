"""Dropout for recurrent layers: one mask for all times, and units that now and then keep what they hold."""

from dataclasses import dataclass, replace
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.nn.checks import check_rate, describe
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode
from dlkit.nn.recurrence.recurrent import Noise, Recurrent

__all__ = ["VariationalDropout", "Zoneout"]


class _Noisy(Recurrent):
    """A recurrent layer around another one, whose parameters and carry are its own."""

    takes_noise = True
    layer: Any

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Recurrent) or not self.layer.takes_noise:
            raise TypeError(
                f"{type(self).__name__} wants an nn.RNN, nn.GRU or nn.LSTM, or another one of its kind, got "
                f"{self.layer!r}; in a DeepRNN or Bidirectional it stands inside, around the layer"
            )

    @property
    def d_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layer.d_in

    @property
    def d(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layer.d

    @property
    def d_out(self) -> int:
        """The size of the last axis of the output."""
        return self.layer.d_out

    def children(self) -> dict[str, Layer]:
        return {"": self.layer}

    def carry_sizes(self) -> dict[str, int]:
        return self.layer.carry_sizes()

    def reading(self, d_in: int) -> Recurrent:
        return replace(self, layer=self.layer.reading(d_in))  # pyright: ignore[reportArgumentType, reportCallIssue]

    def init(self, key: Any) -> Any:
        return self.layer.init(key)

    def run(
        self, params: Any, carry: Any, x: Array, valid: Array | None, reverse: bool, noise: Noise = Noise()
    ) -> tuple[Array, Any]:
        layer = self.layer
        while isinstance(layer, _Noisy):  # `noise` holds what they draw too
            layer = layer.layer
        if noise.input is not None:
            x = x * noise.input[None]
        if noise.keep is not None and valid is not None:
            there = valid[..., None]
            keep = tuple(k & there if k.dtype == jnp.bool_ else k * there.astype(k.dtype) for k in noise.keep)
            noise = noise._replace(keep=keep)
        return layer.run(params, carry, x, valid, reverse, noise)


@dataclass(frozen=True)
class VariationalDropout(_Noisy):
    """Dropout whose mask is one for all times of a sequence, on what a recurrent layer reads and on its own h.

    In training x is `x m_x` with probability of dropping `input_rate`, and the recurrent matrices see `h m_h` with
    `hidden_rate`; the masks differ between sequences and are divided by `1 - rate`. What gates keep of h and c is not
    dropped, so nothing is forgotten by it. x, y, lengths, carry and parameters are those of `layer`, an `RNN`, `GRU` or
    `LSTM`; a `DeepRNN` or `Bidirectional` of this layer draws for each.

    Keras: `dropout=input_rate`, `recurrent_dropout=hidden_rate`, whose default implementation draws a mask for each
    gate; here all gates share one, as in the paper's "tied weights". torch, flax, haiku and equinox have none. Drawn
    from `mode.rng("input_dropout")` and `mode.rng("hidden_dropout")`: pieces of one sequence share masks where they are
    given the same key.

    >>> from dlkit import nn
    >>> layer = VariationalDropout(nn.LSTM(3, 4), input_rate=0.2, hidden_rate=0.2)
    >>> params = layer.init(jax.random.key(0))
    >>> y, _ = layer.apply(params, None, jnp.ones((2, 5, 3)), nn.training(jax.random.key(1)))
    >>> y.shape
    (2, 5, 4)

    Raises:
      TypeError: `layer` is none of these.
      ValueError: a rate outside [0, 1]; training without a key, unless both are 0.

    Reference: Gal and Ghahramani, A theoretically grounded application of dropout in recurrent neural networks, 2015,
    arXiv:1512.05287.
    """

    layer: Layer
    input_rate: float = 0.0
    hidden_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input_rate", "hidden_rate"):
            _check_rate(self, name, getattr(self, name))

    def draw(self, mode: Mode, x: Array) -> Noise | None:
        held = self.layer.draw(mode, x)  # pyright: ignore[reportAttributeAccessIssue]
        if not mode.train or self.input_rate == self.hidden_rate == 0:
            return held
        masks = {"input": (self.input_rate, self.d_in), "hidden": (self.hidden_rate, self.d_out)}
        drawn = {
            name: functional.dropout(mode.rng(f"{name}_dropout"), jnp.ones((x.shape[1], size), x.dtype), rate)
            for name, (rate, size) in masks.items()
            if rate > 0
        }
        return (held or Noise())._replace(**drawn)


@dataclass(frozen=True)
class Zoneout(_Noisy):
    """In training each unit of the carry keeps its old value with probability `rate`, at every time anew.

        h_t = m h_{t-1} + (1 - m) h'_t,    h' what `layer` computes, m 1 with probability rate, else 0

    In evaluation m is `rate`, its mean. An LSTM's c has the rate `cell_rate`, that of h unless given (the paper: 0.5
    and 0.05); h' is made of the c' before it is mixed. x, y, lengths, carry and parameters are those of `layer`, an
    `RNN`, `GRU` or `LSTM`; it may stand around a `VariationalDropout`. Drawn from `mode.rng("zoneout_h")` and
    `mode.rng("zoneout_c")`.

    None of torch, flax, haiku, equinox and Keras has it; see `functional.zoneout` for cells of your own.

    >>> from dlkit import nn
    >>> layer = Zoneout(nn.LSTM(3, 4), rate=0.05, cell_rate=0.5)
    >>> params = layer.init(jax.random.key(0))
    >>> y, carry = layer.apply(params, layer.init_cache(2, 5), jnp.ones((2, 5, 3)), nn.training(jax.random.key(1)))
    >>> y.shape, carry["c"].shape
    ((2, 5, 4), (2, 4))

    Raises:
      TypeError: `layer` is none of these.
      ValueError: a rate outside [0, 1]; training without a key, unless both are 0.

    Reference: Krueger et al., Zoneout: regularizing RNNs by randomly preserving hidden activations, 2016,
    arXiv:1606.01305.
    """

    layer: Layer
    rate: float
    cell_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self)
        if self.cell_rate is not None:
            _check_rate(self, "cell_rate", self.cell_rate)

    def draw(self, mode: Mode, x: Array) -> Noise | None:
        held = self.layer.draw(mode, x)  # pyright: ignore[reportAttributeAccessIssue]
        rates = {name: self.rate if name == "h" or self.cell_rate is None else self.cell_rate for name in ("h", "c")}
        if not any(rates[name] for name in self.carry_sizes()):
            return held
        size, rows, _ = x.shape

        def new(name: str, d: int) -> Array:
            if not mode.train:
                return jnp.full((size, 1, 1), 1 - rates[name], x.dtype)
            if rates[name] in (0, 1):
                return jnp.full((size, 1, 1), rates[name] == 0)
            return functional.keep_mask(mode.rng(f"zoneout_{name}"), (size, rows, d), rates[name])

        return (held or Noise())._replace(keep=tuple(new(name, d) for name, d in self.carry_sizes().items()))


def _check_rate(layer: Layer, name: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{describe(layer)}: expected {name} in [0, 1], a probability, got {rate}")
