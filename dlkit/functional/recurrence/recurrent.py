"""Recurrent networks: one driver that scans a step over time, and the steps of the plain RNN, the GRU and the LSTM.

Time is the first axis here, `[T, B, ...]`, as in `lax.scan`; the layers of `dlkit.nn` take `[B, T, ...]`.

Of the input, a step takes what it contributes to the gates: `a = x w_in + b_in`, one matrix product for all times
before the scan. Gates lie side by side on the last axis, in torch's order: `r, z, n` (GRU) and `i, f, g, o` (LSTM).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from dlkit.functional.dropout import PRNGKey, check_rate, keep_mask
from dlkit.functional.linear import add_bias

__all__ = ["gru_step", "lstm_step", "rnn_step", "scan_cell", "valid_steps", "zoneout"]

Step = Callable[[Any, Any], tuple[Any, Any]]


def valid_steps(lengths: Integer[Array, "*batch"], size: int) -> Bool[Array, "T *batch"]:
    """Whether time t lies inside each sequence, `t < length`: lengths `[B]` to booleans `[T, B]`.

    >>> valid_steps(jnp.array([1, 3]), 3).T
    Array([[ True, False, False],
           [ True,  True,  True]], dtype=bool)
    """
    times = jnp.arange(size, dtype=lengths.dtype).reshape((size,) + (1,) * lengths.ndim)
    return times < lengths[None]


def where_valid(valid: Array, x: Array, other: Array | float) -> Array:
    """`x` where `valid`, which has the leading axes of x, else `other`."""
    return jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - valid.ndim)), x, other)


def scan_cell(
    step: Step,
    carry: Any,
    xs: Any,
    lengths: Integer[Array, "*batch"] | None = None,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """`carry, y_t = step(carry, x_t)` for t = 0 .. T-1, or T-1 .. 0 with `reverse`: the final carry and all y.

    Leaves of `carry` are `[B, ...]`, of `xs` `[T, B, ...]`, of the ys `[T, B, ...]`, in the order of the xs in both
    directions. With `lengths` `[B]`, each row ends at its own length: the times after it leave its carry as it is,
    so the final carry is that at the length, and their outputs are 0. With `reverse` a row starts at its last valid
    time, since its carry waits until then. Floating-point inputs after the end are replaced by 0 before the step
    sees them: they may hold anything, NaN too, and get no gradient. torch: `PackedSequence`; flax: `seq_lengths`;
    Keras: `mask`, where the outputs after the end repeat the last one.

    >>> total, sums = scan_cell(lambda c, x: (c + x, c + x), jnp.zeros(2), jnp.ones((3, 2)), jnp.array([1, 3]))
    >>> total, sums.T
    (Array([1., 3.], dtype=float32), Array([[1., 0., 0.],
           [1., 2., 3.]], dtype=float32))

    Raises:
      ValueError: xs without arrays.
    """
    leaves = jax.tree.leaves(xs)
    if not leaves:
        raise ValueError("scan_cell: xs holds no array; want arrays [T, B, ...]")
    if lengths is None:
        return lax.scan(step, carry, xs, reverse=reverse, unroll=unroll)
    valid = valid_steps(lengths, leaves[0].shape[0])
    return scan_valid(step, carry, clear_padding(xs, valid), valid, reverse=reverse, unroll=unroll)


def scan_valid(
    step: Step, carry: Any, xs: Any, valid: Array | None, *, reverse: bool = False, unroll: int = 1
) -> tuple[Any, Any]:
    """`lax.scan` in which the times that are not `valid` `[T, B]` leave the carry and give 0."""
    if valid is None:
        return lax.scan(step, carry, xs, reverse=reverse, unroll=unroll)

    def masked(carry: Any, given: tuple[Any, Array]) -> tuple[Any, Any]:
        x, now = given
        after, y = step(carry, x)
        after = jax.tree.map(lambda new, old: where_valid(now, new, old), after, carry)
        return after, jax.tree.map(lambda leaf: where_valid(now, leaf, jnp.zeros_like(leaf)), y)

    return lax.scan(masked, carry, (xs, valid), reverse=reverse, unroll=unroll)


def zoneout(
    key: PRNGKey | None, new: Float[Array, "*shape"], old: Float[Array, "*shape"], rate: float
) -> Float[Array, "*shape"]:
    """Each element of the carry is the old one with probability `rate`, else the new one (Krueger et al. 2016).

    Without a key (`key=None`, evaluation) it is the expectation, `rate old + (1 - rate) new`. Inside of a step, so that
    a unit sometimes remembers through a time instead of being set to 0: gradients pass it unchanged.

    >>> zoneout(None, jnp.ones(2), jnp.zeros(2), 0.25)
    Array([0.75, 0.75], dtype=float32)

    Raises:
      ValueError: `rate` is not in [0, 1].

    Reference: Krueger et al., Zoneout: regularizing RNNs by randomly preserving hidden activations, 2016,
    arXiv:1606.01305.
    """
    check_rate("zoneout", rate)
    if key is None:
        return old + (1 - rate) * (new - old)
    return jnp.where(keep_mask(key, new.shape, rate), new, old)


def choose(now: Any, new: tuple[Array, ...], old: tuple[Array, ...]) -> tuple[Array, ...]:
    """The carry after a step: `new` where `now`, else `old`.

    `now` is None (all new), booleans `[B]`, or booleans or weights of what is new, `[B, d]` for each array.
    """
    if now is None:
        return new
    each = now if isinstance(now, tuple) else (now,) * len(new)
    mix = lambda w, n, o: where_valid(w, n, o) if w.dtype == jnp.bool_ else o + w * (n - o)  # noqa: E731
    return tuple(mix(w, n, o) for w, n, o in zip(each, new, old, strict=True))


def scan_chosen(step: Step, carry: tuple[Array, ...], a: Array, now: Any, *, reverse: bool) -> tuple[Any, Array]:
    """`carry = choose(now_t, step(carry, a_t), carry)` over time: the final carry and its first array at all times."""

    def chosen(carry: tuple[Array, ...], given: Any) -> tuple[tuple[Array, ...], Array]:
        after = choose(given[1], step(carry, given[0]), carry)
        return after, after[0]

    return lax.scan(chosen, carry, (a, now), reverse=reverse)


def clear_padding(xs: Any, valid: Array) -> Any:
    """`xs` with 0 after the end of each row. Before any arithmetic: the gradient of `0 * nan` is NaN."""
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)  # noqa: E731
    return jax.tree.map(lambda x: where_valid(valid, x, jnp.zeros_like(x)) if floating(x) else x, xs)


def rnn_step(
    h: Float[Array, "B d"],
    a: Float[Array, "B d"],
    w: Float[Array, "d d"],
    b: Float[Array, "d"] | None = None,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    mask: Float[Array, "B d"] | None = None,
) -> Float[Array, "B d"]:
    """`h' = act(a + h w + b)`, with `a = x w_in + b_in` (Elman 1990); with a `mask`, `(h mask) w`.

    >>> rnn_step(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.eye(2))
    Array([[0.7615942, 0.7615942]], dtype=float32)
    """
    return activation(a + add_bias("rnn_step", seen(h, mask) @ w, b))


def gru_step(
    h: Float[Array, "B d"],
    a: Float[Array, "B 3*d"],
    w: Float[Array, "d 3*d"],
    b: Float[Array, "3*d"] | None = None,
    *,
    reset_after: bool = True,
    mask: Float[Array, "B d"] | None = None,
) -> Float[Array, "B d"]:
    """A gated recurrent unit, `h' = (1 - z) n + z h`:

        r = σ(a_r + h w_r + b_r)        z = σ(a_z + h w_z + b_z)
        n = tanh(a_n + r (h w_n + b_n))         reset_after, as in torch, flax and Keras
        n = tanh(a_n + (r h) w_n + b_n)         reset before, as in the paper and haiku

    With a `mask` the matrices see `h mask` (variational dropout, the same mask at all times); what z keeps is h itself.

    Gates in the order r, z, n (torch, flax); Keras stores z, r, n. In the paper and haiku `z` and `1 - z` are swapped.

    >>> gru_step(jnp.ones((1, 2)), jnp.zeros((1, 6)), jnp.zeros((2, 6)))
    Array([[0.5, 0.5]], dtype=float32)

    Reference: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.
    """
    d = h.shape[-1]
    if reset_after:
        r, z, n = gru_gates(a, add_bias("gru_step", seen(h, mask) @ w, b))[:3]
        return n + z * (h - n)
    held = seen(h, mask)
    gates = a[:, : 2 * d] + add_bias("gru_step", held @ w[:, : 2 * d], None if b is None else b[: 2 * d])
    r, z = sigmoid(gates[:, :d]), sigmoid(gates[:, d:])
    n = jnp.tanh(a[:, 2 * d :] + add_bias("gru_step", (r * held) @ w[:, 2 * d :], None if b is None else b[2 * d :]))
    return n + z * (h - n)


def gru_gates(a: Array, s: Array) -> tuple[Array, Array, Array, Array]:
    """r, z, n and the recurrent part of n, of what input and carry contribute to the gates."""
    d = s.shape[-1] // 3
    r = sigmoid(a[:, :d] + s[:, :d])
    z = sigmoid(a[:, d : 2 * d] + s[:, d : 2 * d])
    return r, z, jnp.tanh(a[:, 2 * d :] + r * s[:, 2 * d :]), s[:, 2 * d :]


def lstm_step(
    h: Float[Array, "B p"],
    c: Float[Array, "B d"],
    a: Float[Array, "B 4*d"],
    w: Float[Array, "p 4*d"],
    b: Float[Array, "4*d"] | None = None,
    *,
    peephole: Float[Array, "3 d"] | None = None,
    projection: Float[Array, "d p"] | None = None,
    mask: Float[Array, "B p"] | None = None,
) -> tuple[Float[Array, "B p"], Float[Array, "B d"]]:
    """A long short-term memory cell; gates in the order i, f, g, o of torch, flax and Keras:

        i = σ(a_i + h w_i + b_i + p_i c)        c' = f c + i g
        f = σ(a_f + h w_f + b_f + p_f c)        o  = σ(a_o + h w_o + b_o + p_o c')
        g = tanh(a_g + h w_g + b_g)             h' = o tanh(c') w_proj

    Without `peephole` the rows `p_i, p_f, p_o` are 0; without `projection` `w_proj` is the identity. With a
    `mask` the matrices see `h mask` (variational dropout, the same mask at all times). Returns h', c'.

    >>> h, c = lstm_step(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.zeros((1, 8)), jnp.zeros((2, 8)))
    >>> c
    Array([[0.5, 0.5]], dtype=float32)

    References: Hochreiter and Schmidhuber, Long short-term memory, 1997; Gers and Schmidhuber, Recurrent nets that time
    and count, 2000 (peepholes); Sak, Senior and Beaufays, 2014, arXiv:1402.1128 (projection).
    """
    z = a + add_bias("lstm_step", seen(h, mask) @ w, b)
    d = c.shape[-1]
    zi, zf, zg, zo = (z[:, k * d : (k + 1) * d] for k in range(4))
    if peephole is not None:
        zi, zf = zi + peephole[:1] * c, zf + peephole[1:2] * c
    c = sigmoid(zf) * c + sigmoid(zi) * jnp.tanh(zg)
    if peephole is not None:
        zo = zo + peephole[2:] * c
    h = sigmoid(zo) * jnp.tanh(c)
    return (h if projection is None else h @ projection), c


def seen(h: Array, mask: Array | None) -> Array:
    return h if mask is None else h * mask


def sigmoid(x: Array) -> Array:
    # By tanh, which is one vectorized function where exp and a division are two.
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
