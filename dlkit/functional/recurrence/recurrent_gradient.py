"""Recurrences over a whole sequence whose weight gradient is one matrix product.

What autodiff makes of a scan adds `h_t^T dz_t` to the gradient of the recurrent weight at every step: T small products,
each reading and writing the whole gradient. Written out, the derivative of `h_t = f(h_{t-1}, a_t + h_{t-1} w + b)` is

    dh_t = J_h dh_{t-1} + J_z (da_t + dh_{t-1} w + h_{t-1} dw + db)

where every h is known once the forward scan has run. So `h_{t-1} dw` leaves the scan: one product `[T B, d] [d, G]`,
whose transpose, what reverse mode runs, is the one product `dw = h^T dz`, `[d, T B] [T B, G]`. The Jacobians of the
gates are elementwise; the forward scan keeps them, and the scan of the tangents is linear in them.

It is a rule for the tangent, in ordinary operations: forward mode, reverse mode and their compositions follow from it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from dlkit.functional.linear import add_bias, linear
from dlkit.functional.recurrence.recurrent import choose, gru_gates, seen, sigmoid

__all__ = ["GruCell", "LstmCell", "RnnCell", "recurrence"]

Carry = tuple[Array, ...]  # its first array is h, which is the output


class Cell(Protocol):
    """`a` and `s` are what input and carry contribute to the gates; some cells see only their sum."""

    sums: bool

    def step(self, carry: Carry, a: Array, s: Array) -> Carry: ...

    def linearize(self, carry: Carry, a: Array, s: Array) -> tuple[Carry, Any]: ...

    def tangent(self, slopes: Any, carry: Carry, a: Array | None, s: Array) -> Carry: ...


@dataclass(frozen=True)
class RnnCell:
    relu: bool = False
    sums: bool = True

    def step(self, carry: Carry, a: Array, s: Array) -> Carry:
        z = a + s
        return (jnp.maximum(z, 0) if self.relu else jnp.tanh(z),)

    def linearize(self, carry: Carry, a: Array, s: Array) -> tuple[Carry, Any]:
        (h,) = self.step(carry, a, s)
        return (h,), ((h > 0).astype(h.dtype) if self.relu else 1 - h * h)

    def tangent(self, slopes: Any, carry: Carry, a: Array | None, s: Array) -> Carry:
        return (slopes * s,)


@dataclass(frozen=True)
class GruCell:
    sums: bool = False

    def step(self, carry: Carry, a: Array, s: Array) -> Carry:
        _, z, n, _ = gru_gates(a, s)
        return (n + z * (carry[0] - n),)

    def linearize(self, carry: Carry, a: Array, s: Array) -> tuple[Carry, Any]:
        r, z, n, s_n = gru_gates(a, s)
        to_n = (1 - z) * (1 - n * n)
        slopes = (z, to_n * s_n * r * (1 - r), (carry[0] - n) * z * (1 - z), to_n, to_n * r)
        return (n + z * (carry[0] - n),), slopes

    def tangent(self, slopes: Any, carry: Carry, a: Array | None, s: Array) -> Carry:
        assert a is not None
        z, to_r, to_z, to_n, to_s = slopes
        (h,) = carry
        # The transpose of a split is one concatenation, that of slices a sum of padded arrays.
        (a_r, a_z, a_n), (s_r, s_z, s_n) = jnp.split(a, 3, axis=1), jnp.split(s, 3, axis=1)
        return (z * h + to_r * (a_r + s_r) + to_z * (a_z + s_z) + to_n * a_n + to_s * s_n,)


@dataclass(frozen=True)
class LstmCell:
    sums: bool = True

    def _gates(self, c: Array, a: Array, s: Array) -> tuple[Array, ...]:
        z = a + s
        d = c.shape[-1]
        i, f, g, o = (z[:, k * d : (k + 1) * d] for k in range(4))
        return sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)

    def step(self, carry: Carry, a: Array, s: Array) -> Carry:
        i, f, g, o = self._gates(carry[1], a, s)
        c = f * carry[1] + i * g
        return o * jnp.tanh(c), c

    def linearize(self, carry: Carry, a: Array, s: Array) -> tuple[Carry, Any]:
        i, f, g, o = self._gates(carry[1], a, s)
        c = f * carry[1] + i * g
        t = jnp.tanh(c)
        slopes = (g * i * (1 - i), carry[1] * f * (1 - f), i * (1 - g * g), t * o * (1 - o), o * (1 - t * t), f)
        return (o * t, c), slopes

    def tangent(self, slopes: Any, carry: Carry, a: Array | None, s: Array) -> Carry:
        i, f, g, o, out, keep = slopes
        s_i, s_f, s_g, s_o = jnp.split(s, 4, axis=1)
        c = keep * carry[1] + i * s_i + f * s_f + g * s_g
        return out * c + o * s_o, c


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def recurrence(
    cell: Any,
    reverse: bool,
    a: Array,
    w: Array,
    biases: tuple[Array | None, Array | None],
    carry: Carry,
    valid: Any,
    mask: Array | None = None,
) -> tuple[Array, Carry]:
    """All h `[T, B, d]` and the final carry of `carry = cell(carry, a_t + b_a, h w + b_s)`; a `[T, B, G]`, w `[d, G]`.

    Where `valid` `[T, B]` is False, the carry stays as it is (and so does h, which the caller sets to 0); it may also
    be a tuple, what is new of each array of the carry, `[T, B, d]` (zoneout: see `choose`). With `mask` `[B, d]` w sees
    `h mask`. Neither is differentiated.

    >>> h, _ = recurrence(RnnCell(), False, jnp.ones((3, 1, 2)), jnp.eye(2), (None, None), (jnp.zeros((1, 2)),), None)
    >>> h.shape
    (3, 1, 2)
    """

    def step(carry: Carry, given: Any) -> tuple[Carry, Array]:
        a, now = given
        after = choose(now, cell.step(carry, *_gates(carry, a, w, biases, mask)), carry)
        return after, after[0]

    carry, h = lax.scan(step, carry, (a, valid), reverse=reverse)
    return h, carry


def _gates(
    carry: Carry, a: Array, w: Array, biases: tuple[Array | None, Array | None], mask: Array | None
) -> tuple[Array, Array]:
    # Biases are added here, inside of the scan: added to the whole of `a`, they would write all of it once more.
    return add_bias("recurrence", a, biases[0]), add_bias("recurrence", seen(carry[0], mask) @ w, biases[1])


@partial(recurrence.defjvp, symbolic_zeros=True)
def _tangent(cell: Any, reverse: bool, primals: Any, tangents: Any) -> Any:
    a, w, biases, carry, valid, mask = primals
    da, dw, dbiases, dcarry, *_ = tangents
    db_a, db_s = (None if b is None else _full(db) for b, db in zip(biases, dbiases, strict=True))

    def forward(carry: Carry, given: Any) -> tuple[Carry, Any]:
        a, now = given
        after, slopes = cell.linearize(carry, *_gates(carry, a, w, biases, mask))
        after = choose(now, after, carry)
        return after, (after[0], slopes)

    final, (h, slopes) = lax.scan(forward, carry, (a, valid), reverse=reverse)

    before = jnp.concatenate([h[1:], carry[0][None]] if reverse else [carry[0][None], h[:-1]])[: h.shape[0]]
    da = add_bias("recurrence", _full(da), db_a)
    ds = linear(before if mask is None else before * mask[None], _full(dw), db_s)
    if cell.sums:
        da, ds = None, da + ds

    # Transposed beforehand, so that the transpose of the product, which reverse mode runs at every step, has its
    # operands in the order in which a CPU multiplies them fastest.
    w_t = w.T

    def backward(dcarry: Carry, given: Any) -> tuple[Carry, Array]:
        da, ds, slopes, now = given
        product = lax.dot_general(seen(dcarry[0], mask), w_t, (((1,), (1,)), ((), ())))
        after = choose(now, cell.tangent(slopes, dcarry, da, ds + product), dcarry)
        return after, after[0]

    dfinal, dh = lax.scan(backward, jax.tree.map(_full, dcarry), (da, ds, slopes, valid), reverse=reverse)
    return (h, final), (dh, dfinal)


def _full(tangent: Any) -> Any:
    if isinstance(tangent, SymbolicZero):
        return jnp.zeros(tangent.aval.shape, tangent.aval.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    return tangent
