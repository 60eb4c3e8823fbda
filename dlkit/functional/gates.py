"""Activations that combine channels: gated linear units, maxout, concatenated ReLU.

The gated ones halve an axis: the first half is the value, the second half is the gate, as in torch's `glu`. Some
implementations of SwiGLU put the gate first: swap the halves of such weights.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.activations import gelu
from dlkit.functional.convolution.pooling import first_max

__all__ = ["crelu", "geglu", "glu", "maxout", "reglu", "swiglu"]

_X = Float[Array, "*in"]
_Y = Float[Array, "*out"]


def _halves(who: str, x: Array, axis: int) -> tuple[Array, Array]:
    if not -x.ndim <= axis < x.ndim or x.shape[axis] % 2:
        raise ValueError(f"{who}: x is {list(x.shape)} and axis {axis}; want an axis of even size")
    first, second = jnp.split(x, 2, axis)
    return first, second


def glu(x: _X, axis: int = -1) -> _Y:
    """`a σ(g)` with `[a, g] = x` along `axis`, whose size is halved. Derivatives: `σ(g)` and `a σ(g) (1 - σ(g))`.

    >>> glu(jnp.array([2.0, 4.0, 0.0, 0.0]))
    Array([1., 2.], dtype=float32)

    Raises:
      ValueError: an axis of odd size.

    Reference: Dauphin et al., Language modeling with gated convolutional networks, ICML 2017.
    """
    a, gate = _halves("glu", x, axis)
    return a * jax.nn.sigmoid(gate)


def reglu(x: _X, axis: int = -1) -> _Y:
    """`a max(g, 0)` with `[a, g] = x` along `axis`, whose size is halved. Derivatives: `max(g, 0)` and `a` where g >
    0.

    >>> reglu(jnp.array([2.0, 4.0, 3.0, -1.0]))
    Array([6., 0.], dtype=float32)

    Raises:
      ValueError: an axis of odd size.

    Reference: Shazeer, GLU variants improve transformer, 2020.
    """
    a, gate = _halves("reglu", x, axis)
    return a * jax.nn.relu(gate)


def geglu(x: _X, axis: int = -1, approximate: bool = False) -> _Y:
    """`a gelu(g)` with `[a, g] = x` along `axis`, whose size is halved. Derivatives: `gelu(g)` and `a gelu'(g)`.

    >>> round(geglu(jnp.array([2.0, 1.0])).item(), 4)
    1.6827

    Raises:
      ValueError: an axis of odd size.

    Reference: Shazeer, GLU variants improve transformer, 2020.
    """
    a, gate = _halves("geglu", x, axis)
    return a * gelu(gate, approximate)


def swiglu(x: _X, axis: int = -1) -> _Y:
    """`a g σ(g)` with `[a, g] = x` along `axis`, whose size is halved. Derivatives: `silu(g)` and `a silu'(g)`.

    >>> round(swiglu(jnp.array([2.0, 1.0])).item(), 4)
    1.4621

    Raises:
      ValueError: an axis of odd size.

    Reference: Shazeer, GLU variants improve transformer, 2020.
    """
    a, gate = _halves("swiglu", x, axis)
    return a * jax.nn.silu(gate)


def maxout(x: _X, pieces: int) -> _Y:
    """`y_c = max over k of x[c * pieces + k]`: `[..., C * pieces]` to `[..., C]`, the maximum of neighbouring
    channels.

    With a linear layer in front, a convex piecewise linear activation that is learned. The derivative is 1 at the
    maximum (the first, where several tie) and 0 elsewhere.

    >>> maxout(jnp.array([1.0, 5.0, 2.0, -1.0]), 2)
    Array([5., 2.], dtype=float32)

    Raises:
      ValueError: `pieces` does not divide the last axis.

    Reference: Goodfellow et al., Maxout networks, ICML 2013.
    """
    if x.ndim == 0 or pieces < 1 or x.shape[-1] % pieces:
        raise ValueError(f"maxout: x is {list(x.shape)}; want a last axis that pieces={pieces} divides")
    parts = x.reshape(*x.shape[:-1], x.shape[-1] // pieces, pieces)
    return reduce(first_max, (lax.index_in_dim(parts, k, -1, keepdims=False) for k in range(pieces)))


def crelu(x: _X, axis: int = -1) -> _Y:
    """`[max(x, 0), max(-x, 0)]` along `axis`, whose size doubles: what ReLU throws away is kept. Derivatives: 1 or 0,
    -1 or 0.

    >>> crelu(jnp.array([-1.0, 2.0]))
    Array([0., 2., 1., 0.], dtype=float32)

    Reference: Shang et al., Understanding and improving convolutional neural networks via concatenated ReLU, ICML
    2016.
    """
    return jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], axis)
