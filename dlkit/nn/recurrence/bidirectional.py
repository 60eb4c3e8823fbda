"""Recurrent layers in both directions, and one on top of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.nn.dropout import Dropout
from dlkit.nn.layer import Layer, child_state
from dlkit.nn.mode import Mode
from dlkit.nn.recurrence.recurrent import Lengths, Recurrent

__all__ = ["Bidirectional", "DeepRNN"]


def _check_recurrent(who: str, layer: Any, kinds: Any = Recurrent) -> None:
    if not isinstance(layer, kinds):
        raise TypeError(f"{who} wants a recurrent layer such as nn.LSTM(d_in, d), got {layer!r}")


@dataclass(frozen=True)
class Bidirectional(Layer[Any, Any]):
    """Two copies of a recurrent layer with weights of their own, one from the first time to the last, one backward.

    `y_t = [h_t, k_t]`, h forward and k backward, x `[..., T, d_in]`, y `[..., T, 2 d]`; with `merge="sum"`, their sum.
    Parameters and state: `forward` and `backward`, each those of `layer`. With `lengths`, the backward copy starts at
    each row's last valid time. torch: `bidirectional=True`; flax and Keras: `Bidirectional`.

    Given a state, both start from it and their final carries come back, an encoder's: forward's is that after the last
    time, backward's that after the first. Backward, a sequence cannot be continued piece by piece.

    >>> from dlkit import nn
    >>> layer = Bidirectional(nn.GRU(3, 4))
    >>> y, _ = layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((2, 5, 3)), nn.EVAL)
    >>> y.shape
    (2, 5, 8)

    Raises:
      TypeError: `layer` is not recurrent.
      ValueError: another `merge`.

    Reference: Schuster and Paliwal, Bidirectional recurrent neural networks, 1997.
    """

    layer: Layer
    merge: Literal["concat", "sum"] = "concat"

    def __post_init__(self) -> None:
        _check_recurrent("Bidirectional", self.layer, (Recurrent, DeepRNN))
        if self.merge not in ("concat", "sum"):
            raise ValueError(f"Bidirectional got merge={self.merge!r}; expected 'concat' or 'sum'")

    @property
    def d_out(self) -> int:
        """The size of the last axis of the output."""
        return self.layer.d_out * (2 if self.merge == "concat" else 1)  # pyright: ignore[reportAttributeAccessIssue]

    def parts(self) -> dict[str, Layer | tuple[Layer, ...]]:
        return {"forward": self.layer, "backward": self.layer}

    def apply(self, params: Any, state: Any, x: Array, mode: Mode, *, lengths: Lengths = None) -> tuple[Array, Any]:
        """The outputs of both directions, and their final carries where `state` gives some to start from."""
        layer: Any = self.layer
        ys, after = [], {}
        if state is not None and not (isinstance(state, Mapping) and {"forward", "backward"} <= state.keys()):
            got = sorted(state) if isinstance(state, Mapping) else f"a {type(state).__name__}"
            raise ValueError(
                f"Bidirectional got a state with {got}: expected 'forward' and 'backward', the carries of both "
                f"directions; start from init_cache(batch, length, x.dtype)"
            )
        for name in ("forward", "backward"):
            held = None if state is None else state[name]
            y, after[name] = layer.apply(
                params[name], held, x, mode.at(name), lengths=lengths, reverse=name == "backward"
            )
            ys.append(y)
        y = jnp.concatenate(ys, axis=-1) if self.merge == "concat" else ys[0] + ys[1]
        return y, None if state is None else after


@dataclass(frozen=True)
class DeepRNN(Layer[Any, Any]):
    """`depth` recurrent layers, each reading the outputs of the one below: torch's `num_layers`.

    `layer` is the first of them; the others have its fields but read the outputs, so `d_in` follows. With
    `bidirectional` each is run in both directions, and reads both of those below. `rate` is the probability of dropping
    an output on its way to the next layer, not after the last, as torch's `dropout`. torch's

        torch.nn.LSTM(10, 20, num_layers=2, bidirectional=True, dropout=0.3, batch_first=True)

    is `DeepRNN(LSTM(10, 20), 2, bidirectional=True, rate=0.3)`. To run two whole stacks, one in each direction, as flax
    and haiku examples do, write `Bidirectional(DeepRNN(layer, 2))`.

    Parameters and state: `layers`, a tuple, each those of `layer`, or `forward` and `backward` of them.

    >>> from dlkit import nn
    >>> model = DeepRNN(nn.LSTM(3, 4), 2, bidirectional=True)
    >>> params = model.init(jax.random.key(0))
    >>> y, carry = model.apply(params, model.init_cache(2, 5), jnp.ones((2, 5, 3)), nn.EVAL, lengths=jnp.array([5, 2]))
    >>> y.shape, carry["layers"][1]["backward"]["h"].shape
    ((2, 5, 8), (2, 4))

    Raises:
      TypeError: `layer` is not recurrent.
      ValueError: depth below 1, a rate outside [0, 1]; in training, a mode without a key where rate > 0.
    """

    layer: Layer
    depth: int
    bidirectional: bool = False
    rate: float = 0.0

    def __post_init__(self) -> None:
        _check_recurrent("DeepRNN", self.layer)
        if self.depth < 1:
            raise ValueError(f"DeepRNN wants a depth of at least 1, got {self.depth}")
        Dropout(self.rate)

    @property
    def d_out(self) -> int:
        """The size of the last axis of the output."""
        return self.layers()[-1].d_out

    def layers(self) -> tuple[Any, ...]:
        """The layers, the lowest first."""
        first: Any = self.layer
        found: list[Any] = []
        for _ in range(self.depth):
            layer = first.reading(found[-1].d_out) if found else first
            found.append(Bidirectional(layer) if self.bidirectional else layer)
        return tuple(found)

    def parts(self) -> dict[str, Layer | tuple[Layer, ...]]:
        return {"layers": self.layers()}

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        mode: Mode,
        *,
        lengths: Lengths = None,
        reverse: bool = False,
    ) -> tuple[Array, Any]:
        """The outputs of the last layer, and the final carries of all where `state` gives some to start from."""
        if reverse and self.bidirectional:
            raise ValueError("DeepRNN runs in both directions already: reverse is for one")
        further = {"reverse": True} if reverse else {}
        after = []
        if state is not None and len(child_state(state, "layers") or ()) != self.depth:
            raise ValueError(
                f"DeepRNN(depth={self.depth}) got a state of type {type(state).__name__} that is not "
                f"{{'layers': {self.depth} carries}}: start from init_cache(batch, length, x.dtype)"
            )
        for i, layer in enumerate(self.layers()):
            here, held = mode.at(f"layers/{i}"), None if state is None else state["layers"][i]
            if i:
                x, _ = Dropout(self.rate).apply({}, None, x, here)
            x, carry = layer.apply(params["layers"][i], held, x, here, lengths=lengths, **further)
            after.append(carry)
        return x, None if state is None else {"layers": tuple(after)}
