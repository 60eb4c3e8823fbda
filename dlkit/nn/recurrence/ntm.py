"""The Neural Turing Machine: a network that reads and writes a memory by soft addresses."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.functional.recurrence.recurrent import clear_padding, lstm_step, scan_valid, valid_steps
from dlkit.nn.checks import check_axis, check_float, check_rank, describe
from dlkit.nn.layer import Layer
from dlkit.nn.linear import Linear
from dlkit.nn.mode import Mode, fold_name
from dlkit.nn.recurrence.lstm import LSTM
from dlkit.nn.recurrence.recurrent import checked_lengths

__all__ = ["NTM"]


@dataclass(frozen=True)
class NTM(Layer[Any, Any]):
    """A Neural Turing Machine: x `[..., T, d_in]`, y `[..., T, d_out]`, with a memory of `slots` x `width` numbers.

        h_t = controller([x_t, r_{t-1}])                     an LSTM, or tanh of a linear map; `hidden` features
        key, strength, gate, power, shift, erase, add = h_t w + b         for each head
        write heads:  address from M_{t-1},  M_t = M_{t-1} (1 - address erase) + address add
        read heads:   address from M_t,      r_t = sum of address_i M_t[i]
        y_t = [h_t, r_t] w_out + b_out

    An address is made in four steps, each a function of `dlkit.functional`: by content, interpolated with the head's
    address before, shifted by up to `shifts` slots either way, sharpened. strength is a softplus, gate and erase a σ,
    shift a softmax, power 1 + softplus; keys and what is added go through tanh, which the paper leaves open. The memory
    starts at 1e-6 (Collier and Beel), every head at slot 0, so that shifts have a place to start from, and what was
    read at 0.

    Parameters: `controller` (those of `LSTM`, or of `Linear`), `heads` and `output` `{w, b}`, drawn as by those layers.
    The state is the carry: `memory` `[B, slots, width]`, `read` and `write`, the addresses `[B, heads, slots]`, `reads`
    `[B, reads, width]`, and that of the LSTM. `addresses` shows where the heads were.

    >>> from dlkit.nn import EVAL
    >>> layer = NTM(3, 2, hidden=8, slots=6, width=4)
    >>> params = layer.init(jax.random.key(0))
    >>> y, carry = layer.apply(params, layer.init_cache(5, 7), jnp.ones((5, 7, 3)), EVAL)
    >>> y.shape, carry["memory"].shape, layer.addresses(params, jnp.ones((5, 7, 3)))["write"].shape
    ((5, 7, 2), (5, 6, 4), (5, 7, 1, 6))

    Raises:
      ValueError: sizes below 1; shifts further than around; x without a time axis or not of `d_in` features; lengths or
        a carry that do not fit x.
      TypeError: x is not floating point, or not of the dtype of the weights.

    References: Graves, Wayne and Danihelka, Neural Turing machines, 2014, arXiv:1410.5401; Collier and Beel,
    Implementing neural Turing machines, 2018, arXiv:1807.08518.
    """

    d_in: int
    d_out: int
    hidden: int = 100
    slots: int = 128
    width: int = 20
    reads: int = 1
    writes: int = 1
    shifts: int = 1
    controller: Literal["lstm", "feedforward"] = "lstm"

    def __post_init__(self) -> None:
        if min(self.d_in, self.d_out, self.hidden, self.slots, self.width, self.reads, self.writes) < 1:
            raise ValueError(f"{describe(self)}: expected sizes and numbers of heads of at least 1")
        if not 0 <= 2 * self.shifts + 1 <= self.slots:
            raise ValueError(
                f"{describe(self)}: expected shifts of 0 .. {(self.slots - 1) // 2} for {self.slots} slots"
            )
        if self.controller not in ("lstm", "feedforward"):
            raise ValueError(f"{describe(self)}: expected the controller 'lstm' or 'feedforward'")

    def _layers(self) -> dict[str, Layer]:
        d_read = self.reads * self.width
        d_in = self.d_in + d_read
        lstm = self.controller == "lstm"
        address, content = self.width + 3 + 2 * self.shifts + 1, 2 * self.width
        return {
            "controller": LSTM(d_in, self.hidden, hidden_bias=False) if lstm else Linear(d_in, self.hidden),
            "heads": Linear(self.hidden, (self.reads + self.writes) * address + self.writes * content),
            "output": Linear(self.hidden + d_read, self.d_out),
        }

    def init(self, key: Any) -> Any:
        return {name: layer.init(fold_name(key, name)) for name, layer in self._layers().items()}

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """The carry that a sequence starts from; `length` does not matter."""
        first = jnp.zeros((self.slots,), dtype).at[0].set(1)
        cache: dict[str, Any] = {
            "memory": jnp.full((batch, self.slots, self.width), 1e-6, dtype),
            "read": jnp.broadcast_to(first[None, None], (batch, self.reads, self.slots)),
            "write": jnp.broadcast_to(first[None, None], (batch, self.writes, self.slots)),
            "reads": jnp.zeros((batch, self.reads, self.width), dtype),
        }
        if self.controller == "lstm":
            cache |= {"h": jnp.zeros((batch, self.hidden), dtype), "c": jnp.zeros((batch, self.hidden), dtype)}
        return cache

    def apply(
        self, params: Any, state: Any, x: Array, mode: Mode, *, lengths: Array | None = None
    ) -> tuple[Array, Any]:
        """The outputs at all times, and the carry after them where one is given.

        Args:
          state: the carry to go on from, as `init_cache` makes it. None starts afresh and returns None.
          lengths: how many times of each sequence count, integers shaped as the leading axes of x. What comes after
            changes nothing, and the outputs there are 0.
        """
        y, carry, _ = self._run(params, state, x, lengths, addresses=False)
        return y, None if state is None else carry

    def addresses(self, params: Any, x: Array, state: Any = None) -> dict[str, Array]:
        """Where the heads were at all times: `read` `[..., T, reads, slots]` and `write` `[..., T, writes, slots]`."""
        return self._run(params, state, x, None, addresses=True)[2]

    def _run(
        self, params: Any, state: Any, x: Array, lengths: Array | None, *, addresses: bool
    ) -> tuple[Array, Any, dict[str, Array]]:
        check_rank(self, x, f"[..., T, {self.d_in}]", 2, f"d_in={self.d_in} and a sequence has T steps")
        check_axis(self, x, -1, self.d_in, f"d_in={self.d_in}")
        check_float(self, x, params["output"]["w"])
        *lead, size, _ = x.shape
        rows = math.prod(lead)
        carry = self.init_cache(rows, size, x.dtype)
        if state is not None:
            _check_carry(self, state, carry, x)
            carry = {name: state[name] for name in carry}
        xs = jnp.swapaxes(x.reshape(rows, size, self.d_in), 0, 1)
        valid = None
        if lengths is not None:
            valid = valid_steps(checked_lengths(self, lengths, tuple(lead)).reshape(rows), size)
            xs = clear_padding(xs, valid)
        into = params["controller"]["input"] if self.controller == "lstm" else params["controller"]
        # What x gives to the controller is one product for all times; what was read is added inside the loop.
        a = functional.linear(xs, into["w"][: self.d_in], into["b"])

        def step(carry: Any, a: Array) -> tuple[Any, Any]:
            carry, h = self._step(params, into["w"][self.d_in :], carry, a)
            where = {name: carry[name] for name in ("read", "write")} if addresses else {}
            return carry, (jnp.concatenate([h, carry["reads"].reshape(rows, -1)], axis=-1), where)

        carry, (features, where) = scan_valid(step, carry, a, valid)
        y = functional.linear(features, params["output"]["w"], params["output"]["b"])
        if valid is not None:
            y = jnp.where(valid[..., None], y, jnp.zeros_like(y))

        def batch_first(out: Array) -> Array:
            return jnp.swapaxes(out, 0, 1).reshape(*lead, size, *out.shape[2:])

        return batch_first(y), carry, jax.tree.map(batch_first, where)

    def _step(self, params: Any, w_read: Array, carry: Any, a: Array) -> tuple[Any, Array]:
        rows, heads = a.shape[0], self.reads + self.writes
        a = a + carry["reads"].reshape(rows, -1) @ w_read
        kept = {}
        if self.controller == "lstm":
            h, c = lstm_step(carry["h"], carry["c"], a, params["controller"]["hidden"]["w"])
            kept = {"h": h, "c": c}
        else:
            h = jnp.tanh(a)
        raw = functional.linear(h, params["heads"]["w"], params["heads"]["b"])
        split = raw.shape[-1] - self.writes * 2 * self.width
        places = raw[:, :split].reshape(rows, heads, -1)
        contents = raw[:, split:].reshape(rows, self.writes, 2, self.width)
        erase, add = functional.sigmoid(contents[:, :, 0]), jnp.tanh(contents[:, :, 1])
        write = self._address(carry["memory"], places[:, self.reads :], carry["write"])
        memory = functional.write_memory(carry["memory"], write, erase, add)
        read = self._address(memory, places[:, : self.reads], carry["read"])
        reads = functional.read_memory(memory, read)
        return {"memory": memory, "read": read, "write": write, "reads": reads, **kept}, h

    def _address(self, memory: Array, raw: Array, before: Array) -> Array:
        m = self.width
        strength, power = functional.softplus(raw[..., m]), 1 + functional.softplus(raw[..., m + 2])
        content = functional.content_address(memory, jnp.tanh(raw[..., :m]), strength)
        address = functional.interpolate_address(content, before, functional.sigmoid(raw[..., m + 1]))
        address = functional.shift_address(address, functional.softmax(raw[..., m + 3 :]))
        return functional.sharpen_address(address, power)


def _check_carry(layer: NTM, state: Any, fresh: Any, x: Array) -> None:
    for name, want in fresh.items():
        held = state.get(name)
        if held is None or held.shape != want.shape or held.dtype != want.dtype:
            got = "missing" if held is None else f"{held.dtype} of shape {held.shape}"
            raise ValueError(
                f"{describe(layer)} got x of shape {x.shape} and a carry whose {name!r} is {got}: expected "
                f"{want.dtype} of shape {want.shape}; start from init_cache({want.shape[0]}, length, x.dtype)"
            )
