"""Activations of one number, elementwise: smooth ones.

Each docstring gives the value and the derivative. Both are finite from -1e4 to 1e4 in every float dtype, and the
dtype of the result is that of `x`. Piecewise linear ones are in `piecewise`, those that mix channels in `gates` and
`simplex`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.functional.precision import wide_dtype

__all__ = [
    "celu",
    "elu",
    "gelu",
    "identity",
    "log_sigmoid",
    "mish",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
]

_X = Float[Array, "*shape"]


def identity(x: _X) -> _X:
    """`x`. Derivative: 1.

    >>> identity(jnp.array([-1.0, 2.0]))
    Array([-1.,  2.], dtype=float32)
    """
    return x


def sigmoid(x: _X) -> _X:
    """`σ(x) = 1 / (1 + exp(-x))`. Derivative: `σ(x) (1 - σ(x))`.

    >>> sigmoid(jnp.array([-1e4, 0.0, 1e4]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jax.nn.sigmoid(x)


def tanh(x: _X) -> _X:
    """`(exp(x) - exp(-x)) / (exp(x) + exp(-x))`. Derivative: `1 - tanh(x)^2`.

    >>> tanh(jnp.array([-1e4, 0.0, 1e4]))
    Array([-1.,  0.,  1.], dtype=float32)
    """
    return jnp.tanh(x)


def softplus(x: _X, beta: float = 1.0, threshold: float = 20.0) -> _X:
    """`log(1 + exp(beta x)) / beta`, and `x` itself where `beta x > threshold`. Derivative: `σ(beta x)`, there 1.

    The threshold is torch's: it moves the value by less than `exp(-threshold) / beta`. `jax.nn.softplus` has neither
    argument; Keras has only beta = 1.

    >>> softplus(jnp.array([-1e4, 1e4]))
    Array([    0., 10000.], dtype=float32)
    """
    return jnp.where(x * beta > threshold, x, jax.nn.softplus(x * beta) / beta)


def log_sigmoid(x: _X) -> _X:
    """`log σ(x) = -log(1 + exp(-x))`, computed without rounding σ(x) to 0. Derivative: `σ(-x)`.

    >>> log_sigmoid(jnp.array([-1e4, 0.0])).round(4)
    Array([-1.000e+04, -6.931e-01], dtype=float32)
    """
    return jax.nn.log_sigmoid(x)


def softsign(x: _X) -> _X:
    """`x / (1 + |x|)`. Derivative: `1 / (1 + |x|)^2`.

    >>> softsign(jnp.array([-1.0, 3.0]))
    Array([-0.5 ,  0.75], dtype=float32)
    """
    wide = x.astype(wide_dtype(x.dtype))  # in float16 the square in the derivative overflows at 255
    return (wide / (1 + jnp.abs(wide))).astype(x.dtype)


def squareplus(x: _X, b: float = 4.0) -> _X:
    """`(x + sqrt(x^2 + b)) / 2`, a softplus without exp. Derivative: `(1 + x / sqrt(x^2 + b)) / 2`.

    For negative x the equal form `b / 2 / (sqrt(x^2 + b) - x)` is used, which does not cancel.

    >>> squareplus(jnp.array([-1.5, 0.0, 1.5]))
    Array([0.5, 1. , 2. ], dtype=float32)

    Reference: Barron, Squareplus: a softplus-like algebraic rectifier, 2021.
    """
    wide = x.astype(wide_dtype(x.dtype))
    root = jnp.sqrt(jnp.square(wide) + b)
    below = b / 2 / (root + jnp.abs(wide))
    return jnp.where(wide < 0, below, (wide + root) / 2).astype(x.dtype)


def silu(x: _X) -> _X:
    """`x σ(x)`, also called swish. Derivative: `σ(x) (1 + x (1 - σ(x)))`.

    >>> silu(jnp.array([-1e4, 0.0, 1e4]))
    Array([   -0.,     0., 10000.], dtype=float32)

    Reference: Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, 2017; Ramachandran et al. 2017.
    """
    return jax.nn.silu(x)


def swish(x: _X, beta: float = 1.0) -> _X:
    """`x σ(beta x)`: `silu` with a sharpness. Derivative: `s (1 + beta x (1 - s))` with `s = σ(beta x)`.

    >>> bool((swish(jnp.array([-1.0, 2.0])) == silu(jnp.array([-1.0, 2.0]))).all())
    True

    Reference: Ramachandran, Zoph and Le, Searching for activation functions, 2017.
    """
    return x * jax.nn.sigmoid(x * beta)


def mish(x: _X) -> _X:
    """`x t` with `t = tanh(log(1 + exp(x)))`. Derivative: `t + x σ(x) (1 - t^2)`.

    >>> mish(jnp.array([-1e4, 0.0, 1e4]))
    Array([   -0.,     0., 10000.], dtype=float32)

    Reference: Misra, Mish: a self regularized non-monotonic activation function, 2019.
    """
    return x * jnp.tanh(jax.nn.softplus(x))


def gelu(x: _X, approximate: bool = False) -> _X:
    """`x Φ(x)`, `Φ(x) = (1 + erf(x / sqrt(2))) / 2` the normal distribution function. Derivative: `Φ(x) + x φ(x)`.

    With `approximate=True`, `x σ(2 z)` with `z = sqrt(2 / π) (x + 0.044715 x^3)`, that is `x (1 + tanh(z)) / 2`, up
    to 5e-4 away. The default is exact, as in torch and Keras; **`jax.nn.gelu` and flax default to the
    approximation**, GPT-2 was trained with it.

    >>> [round(y, 4) for y in gelu(jnp.array([-1.0, 1.0])).tolist()]
    [-0.1587, 0.8413]

    Reference: Hendrycks and Gimpel, Gaussian error linear units, 2016.
    """
    if not approximate:
        return jax.nn.gelu(x, approximate=False)
    wide = x.astype(wide_dtype(x.dtype))  # in float16 the cube overflows at 41
    z = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    return (wide * jax.nn.sigmoid(2 * z)).astype(x.dtype)


def elu(x: _X, alpha: float = 1.0) -> _X:
    """`x` where x > 0, else `alpha (exp(x) - 1)`. Derivative: 1, else `alpha exp(x)`.

    >>> elu(jnp.array([-1e4, 2.0]))
    Array([-1.,  2.], dtype=float32)

    Reference: Clevert, Unterthiner and Hochreiter, Exponential linear units, ICLR 2016.
    """
    return jax.nn.elu(x, alpha)


def selu(x: _X) -> _X:
    """`1.0507 elu(x, 1.6733)`: the constants that keep mean 0 and variance 1 through a LeCun-normal layer.

    Derivative: 1.0507 where x > 0, else `1.7581 exp(x)`.

    >>> [round(y, 4) for y in selu(jnp.array([-1e4, 1.0])).tolist()]
    [-1.7581, 1.0507]

    Reference: Klambauer et al., Self-normalizing neural networks, NeurIPS 2017.
    """
    return jax.nn.selu(x)


def celu(x: _X, alpha: float = 1.0) -> _X:
    """`x` where x > 0, else `alpha (exp(x / alpha) - 1)`: an `elu` whose derivative, 1 or else `exp(x / alpha)`, has
    no jump.

    >>> celu(jnp.array([-1e4, 2.0]), alpha=2.0)
    Array([-2.,  2.], dtype=float32)

    Reference: Barron, Continuously differentiable exponential linear units, 2017.
    """
    return jax.nn.celu(x, alpha)


def tanh_shrink(x: _X) -> _X:
    """`x - tanh(x)`. Derivative: `tanh(x)^2`.

    >>> tanh_shrink(jnp.array([0.0, 1e4]))
    Array([   0., 9999.], dtype=float32)
    """
    return x - jnp.tanh(x)
