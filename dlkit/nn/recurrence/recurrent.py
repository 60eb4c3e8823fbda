"""What recurrent layers share, and the plain recurrent network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dlkit.functional.linear import linear
from dlkit.functional.recurrence.recurrent import clear_padding, valid_steps, where_valid
from dlkit.functional.recurrence.recurrent_gradient import RnnCell, recurrence
from dlkit.nn.checks import check_axis, check_float, check_rank, describe
from dlkit.nn.initializers import Initializer, Orthogonal, Zeros, lecun_normal
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode, fold_name

__all__ = ["RNN", "Lengths", "Noise", "Recurrent", "init_gates"]

Lengths: TypeAlias = Array | np.ndarray | None


class Noise(NamedTuple):
    """What a recurrent layer is run with in training (`nn.VariationalDropout`, `nn.Zoneout`); None is nothing."""

    input: Array | None = None
    """`[B, d_in]`, times x at all times."""

    hidden: Array | None = None
    """`[B, d_out]`, times h where it meets the weights, at all times."""

    keep: tuple[Array, ...] | None = None
    """For each array of the carry, what is new of it: booleans or weights `[T, B, size]`, any axis 1."""


class Recurrent(Layer[Any, Any]):
    """Base of the recurrent layers: x `[..., T, d_in]` to y `[..., T, d_out]`, with `lengths` and a carry as state.

    A subclass has the fields `d_in` and `d`, its carry in `carry_sizes`, and computes in `run`; one whose `run` takes a
    `Noise` says `takes_noise = True`.
    """

    takes_noise = False
    d_in: int
    d: int

    def __post_init__(self) -> None:
        sizes = {"d_in": self.d_in, "d_out": self.d_out, **self.carry_sizes()}
        if min(sizes.values()) < 1:
            shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(f"{describe(self)}: expected sizes of at least 1, got {shown}")

    @property
    def d_out(self) -> int:
        """The size of the last axis of the output."""
        return self.d

    def carry_sizes(self) -> dict[str, int]:
        """The size of the last axis of every array of the carry, that of the output first."""
        return {"h": self.d}

    def run(
        self, params: Any, carry: Any, x: Array, valid: Array | None, reverse: bool, noise: Noise = Noise()
    ) -> tuple[Array, Any]:
        """All outputs and the final carry, both tuples of arrays `[B, size]`, for x `[T, B, d_in]`."""
        raise TypeError(f"{type(self).__name__} does not say what it computes: give it a `run`")

    def draw(self, mode: Mode, x: Array) -> Noise | None:
        """What `run` is given beside, for x `[T, B, d_in]`."""
        return None

    def reading(self, d_in: int) -> "Recurrent":
        """The same layer for inputs of `d_in` features."""
        return self if d_in == self.d_in else replace(self, d_in=d_in)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """The carry that a sequence starts from, zeros `[batch, d]`; `length` does not matter."""
        return {name: jnp.zeros((batch, size), dtype) for name, size in self.carry_sizes().items()}

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
        """The outputs at all times, and the final carry where one is given.

        Args:
          state: the carry to start from, as `init_cache` makes it, one row for each sequence. The carry after the last
            valid time is returned. None starts from zeros and returns None.
          x: `[..., T, d_in]`, the leading axes free.
          lengths: how many times of each sequence count, integers shaped as the leading axes of x. What x holds after
            them, NaN too, changes no output, no carry and no gradient; the outputs there are 0.
          reverse: run from each row's last valid time to its first.
        """
        check_rank(self, x, f"[..., T, {self.d_in}]", 2, f"d_in={self.d_in} and a sequence has T steps")
        check_axis(self, x, -1, self.d_in, f"d_in={self.d_in}")
        check_float(self, x, params["input"]["w"])
        *lead, size, _ = x.shape
        rows = math.prod(lead)
        given = jnp.swapaxes(x.reshape(rows, size, self.d_in), 0, 1)
        valid = None
        if lengths is not None:
            valid = valid_steps(checked_lengths(self, lengths, tuple(lead)).reshape(rows), size)
            given = clear_padding(given, valid)
        sizes = self.carry_sizes()
        fresh = self.init_cache(rows, size, x.dtype)
        held = fresh if state is None else state
        if not isinstance(held, Mapping):
            raise TypeError(
                f"{describe(self)} got a carry of type {type(held).__name__}: expected a dict of "
                f"{' and '.join(map(repr, sizes))}; start from init_cache({rows}, length, x.dtype)"
            )
        for name in sizes:
            check_carry(self, held.get(name), name, fresh[name], x)
        noise = self.draw(mode, given)
        beside = () if noise is None else (noise,)
        y, carry = self.run(params, tuple(held[name] for name in sizes), given, valid, reverse, *beside)
        if valid is not None:
            y = where_valid(valid, y, jnp.zeros_like(y))
        y = jnp.swapaxes(y, 0, 1).reshape(*lead, size, self.d_out)
        return y, None if state is None else dict(zip(sizes, carry, strict=True))


def checked_lengths(layer: Any, lengths: Any, lead: tuple[int, ...]) -> Array:
    lengths = jnp.asarray(lengths)
    if lengths.shape != lead or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"{describe(layer)} got lengths of shape {lengths.shape} and dtype {lengths.dtype}: expected integers of "
            f"shape {lead} because each sequence has a length"
        )
    return lengths


def check_carry(layer: Any, held: Any, name: str, like: Array, x: Array) -> None:
    if held is None or held.shape != like.shape:
        raise ValueError(
            f"{describe(layer)} got x of shape {x.shape} and a carry whose {name!r} is "
            f"{'missing' if held is None else f'of shape {held.shape}'}: expected shape {like.shape}; start from "
            f"init_cache({like.shape[0]}, length, x.dtype)"
        )
    if held.dtype != like.dtype:
        raise TypeError(
            f"{describe(layer)} got x of dtype {x.dtype} and a carry whose {name!r} is {held.dtype}: expected "
            f"{like.dtype}; start from init_cache({like.shape[0]}, length, x.dtype)"
        )


def init_gates(
    key: Any, layer: Any, d_in: int, d_out: int, gates: int, *, hidden: int | None = None
) -> dict[str, dict[str, Array]]:
    """`input` `{w [d_in, G], b [G]}` and `hidden` `{w [hidden, G], b [G]}`, G = gates d_out, each gate drawn by itself.

    Initializers are given the fans of one gate. A layer without `bias` has neither b, one without `hidden_bias` only
    the first.
    """
    rows = d_out if hidden is None else hidden
    fans = {"input": (d_in, d_out), "hidden": (rows, d_out)}
    tree: dict[str, dict[str, Array]] = {}
    for part, draw, with_bias in (
        ("input", layer.w_init, layer.bias),
        ("hidden", layer.hidden_init, layer.bias and layer.hidden_bias),
    ):
        start, (n, _) = fold_name(key, part), fans[part]
        keys = [jax.random.fold_in(fold_name(start, "w"), k) for k in range(gates)]
        tree[part] = {"w": jnp.concatenate([draw(k, (n, d_out), fans=fans[part]) for k in keys], axis=1)}
        if with_bias:
            # torch draws both biases as wide as the recurrent weight
            tree[part]["b"] = layer.b_init(fold_name(start, "b"), (gates * d_out,), fans=(d_out, d_out))
    return tree


@dataclass(frozen=True)
class RNN(Recurrent):
    """The plain recurrent network `h_t = act(x_t w_in + b_in + h_{t-1} w_hid + b_hid)`, y the h of all times.

    x `[..., T, d_in]`, y `[..., T, d]`; `activation` is "tanh" or "relu". Parameters: `input` `{w [d_in, d], b [d]}`
    and `hidden` `{w [d, d], b [d]}`, torch's `weight_ih` and `weight_hh` transposed, with both of its biases; flax and
    Keras have one (`hidden_bias=False`). Input weights start with variance `1 / d_in`, the recurrent one orthogonal,
    biases at 0, as in flax; torch starts all of them as U(-1/sqrt(d), 1/sqrt(d)) (`init_preset`). The state is the
    carry `{h [B, d]}`; see `apply` for `lengths` and `reverse`. The gradients of all weights are matrix products after
    the scan.

    >>> layer = RNN(3, 4)
    >>> params = layer.init(jax.random.key(0))
    >>> y, _ = layer.apply(params, None, jnp.ones((2, 5, 3)), Mode(None, False))
    >>> first, carry = layer.apply(params, layer.init_cache(2, 5), jnp.ones((2, 3, 3)), Mode(None, False))
    >>> rest, carry = layer.apply(params, carry, jnp.ones((2, 2, 3)), Mode(None, False))
    >>> y.shape, bool(jnp.allclose(carry["h"], y[:, -1]))
    ((2, 5, 4), True)

    Raises:
      ValueError: another activation; x without a time axis or not of `d_in` features; lengths or a carry that do not
        fit x.
      TypeError: x is not floating point, or not of the dtype of the weights or of the carry.

    Reference: Elman, Finding structure in time, 1990.
    """

    d_in: int
    d: int
    activation: Literal["tanh", "relu"] = "tanh"
    bias: bool = True
    hidden_bias: bool = True
    w_init: Initializer = lecun_normal()
    hidden_init: Initializer = Orthogonal()
    b_init: Initializer = Zeros()
    takes_noise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("tanh", "relu"):
            raise ValueError(f"RNN got activation={self.activation!r}; expected 'tanh' or 'relu'")

    def init(self, key: Any) -> Any:
        return init_gates(key, self, self.d_in, self.d, 1)

    def run(
        self, params: Any, carry: Any, x: Array, valid: Array | None, reverse: bool, noise: Noise = Noise()
    ) -> tuple[Array, Any]:
        into, hidden = params["input"], params["hidden"]
        biases = (into.get("b"), hidden.get("b"))
        cell, now = RnnCell(self.activation == "relu"), valid if noise.keep is None else noise.keep
        return recurrence(cell, reverse, linear(x, into["w"]), hidden["w"], biases, carry, now, noise.hidden)
