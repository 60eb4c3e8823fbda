"""The convolutional LSTM."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit.functional.convolution.conv import conv
from dlkit.functional.recurrence.recurrent import clear_padding, scan_valid, sigmoid, valid_steps, where_valid
from dlkit.nn.checks import check_axis, check_float, check_rank, describe
from dlkit.nn.initializers import Initializer, Orthogonal, Zeros, lecun_normal
from dlkit.nn.layer import Layer
from dlkit.nn.mode import Mode, fold_name
from dlkit.nn.recurrence.recurrent import Lengths, check_carry, checked_lengths

__all__ = ["ConvLSTM"]


@dataclass(frozen=True)
class ConvLSTM(Layer[Any, Any]):
    """An LSTM over images, whose products are convolutions (`*`) that keep the size:

        i = σ(x * w_ii + h_{t-1} * w_hi + b_i)        c_t = f c_{t-1} + i g
        f = σ(x * w_if + h_{t-1} * w_hf + b_f)        o   = σ(x * w_io + h_{t-1} * w_ho + b_o)
        g = tanh(x * w_ig + h_{t-1} * w_hg + b_g)     h_t = o tanh(c_t)

    x `[..., T, *spatial, c_in]`, y `[..., T, *spatial, c_out]`, the h of all times; `dims` spatial axes (an int kernel)
    or as many as the kernel has sizes, 1 to 3. Parameters: `input` `{w [*kernel, c_in, 4 c_out], b [4 c_out]}` and
    `hidden` `{w [*kernel, c_out, 4 c_out]}`, gates side by side in the order i, f, g, o (haiku: i, g, f, o). The
    paper's peepholes, of the size of the image, are left out, as in flax, haiku and Keras. Weights start as the
    `LSTM`'s, with the `forget_bias` of Keras and haiku; flax adds none. torch has no such layer.

    The state is the carry `{h, c}`, both `[B, *spatial, c_out]`; for `init_cache` say the spatial `size`. `lengths` and
    `reverse` are those of the other recurrent layers.

    >>> from dlkit.nn import EVAL
    >>> layer = ConvLSTM(1, 4, 3, size=(8, 8))
    >>> y, carry = layer.apply(layer.init(jax.random.key(0)), layer.init_cache(2, 5), jnp.ones((2, 5, 8, 8, 1)), EVAL)
    >>> y.shape, carry["c"].shape
    ((2, 5, 8, 8, 4), (2, 8, 8, 4))

    Raises:
      ValueError: a kernel of another number of axes than `size`; x without a time axis or not of `c_in` channels;
        lengths or a carry that do not fit x; `init_cache` without a `size`.
      TypeError: x is not floating point, or not of the dtype of the weights or of the carry.

    Reference: Shi et al., Convolutional LSTM network, 2015, arXiv:1506.04214.
    """

    c_in: int
    c_out: int
    kernel: int | tuple[int, ...]
    dims: int = 2
    size: tuple[int, ...] | None = None
    forget_bias: float = 1.0
    bias: bool = True
    w_init: Initializer = lecun_normal()
    hidden_init: Initializer = Orthogonal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        if len(self.kernel_shape) not in (1, 2, 3):
            raise ValueError(f"{describe(self)}: expected 1 to 3 spatial axes, got {len(self.kernel_shape)}")
        if self.size is not None and len(self.size) != len(self.kernel_shape):
            raise ValueError(f"{describe(self)}: size has {len(self.size)} axes, the kernel {len(self.kernel_shape)}")

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The kernel's spatial shape."""
        return (self.kernel,) * self.dims if isinstance(self.kernel, int) else self.kernel

    def init(self, key: Any) -> Any:
        taps, params = math.prod(self.kernel_shape), {}
        for part, c_in, draw in (("input", self.c_in, self.w_init), ("hidden", self.c_out, self.hidden_init)):
            start, fans = fold_name(key, part), (taps * c_in, taps * self.c_out)
            keys = [jax.random.fold_in(fold_name(start, "w"), k) for k in range(4)]
            gates = [draw(k, (*self.kernel_shape, c_in, self.c_out), fans=fans) for k in keys]
            params[part] = {"w": jnp.concatenate(gates, axis=-1)}
            if part == "input" and self.bias:
                b = self.b_init(fold_name(start, "b"), (4 * self.c_out,), fans=fans)
                params[part]["b"] = b.at[self.c_out : 2 * self.c_out].add(self.forget_bias)
        return params

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Any:
        """The carry that a sequence starts from, zeros `[batch, *size, c_out]`; `length` does not matter."""
        if self.size is None:
            raise ValueError(f"{describe(self)} needs the size of the images for a cache: write size=(height, width)")
        return self._zeros(batch, self.size, dtype)

    def _zeros(self, batch: int, size: tuple[int, ...], dtype: Any) -> dict[str, Array]:
        return {name: jnp.zeros((batch, *size, self.c_out), dtype) for name in ("h", "c")}

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
        """The outputs at all times, and the final carry where `state` gives one to start from."""
        dims = len(self.kernel_shape)
        axes = f"[..., T, {'*, ' * dims}{self.c_in}]"
        check_rank(self, x, axes, dims + 2, f"c_in={self.c_in} and a sequence has T steps")
        check_axis(self, x, -1, self.c_in, f"c_in={self.c_in}")
        check_float(self, x, params["input"]["w"])
        lead, time, size = x.shape[: -dims - 2], x.shape[-dims - 2], x.shape[-dims - 1 : -1]
        rows = math.prod(lead)
        given = jnp.swapaxes(x.reshape(rows, *x.shape[-dims - 2 :]), 0, 1)
        valid = None
        if lengths is not None:
            valid = valid_steps(checked_lengths(self, lengths, lead).reshape(rows), time)
            given = clear_padding(given, valid)
        fresh = self._zeros(rows, size, x.dtype)
        held = fresh if state is None else state
        for name in ("h", "c"):
            check_carry(self, held.get(name), name, fresh[name], x)
        a = conv(given.reshape(time * rows, *size, self.c_in), params["input"]["w"], padding="SAME")
        b = params["input"].get("b")

        def step(carry: tuple[Array, Array], a: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            z = a + conv(h, params["hidden"]["w"], padding="SAME")
            z = z if b is None else z + b.reshape((1,) * (dims + 1) + b.shape)
            i, f, g, o = jnp.split(z, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            h = sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        a = a.reshape(time, rows, *size, 4 * self.c_out)
        (h, c), y = scan_valid(step, (held["h"], held["c"]), a, valid, reverse=reverse)
        if valid is not None:
            y = where_valid(valid, y, jnp.zeros_like(y))
        y = jnp.swapaxes(y, 0, 1).reshape(*lead, time, *size, self.c_out)
        return y, None if state is None else {"h": h, "c": c}
