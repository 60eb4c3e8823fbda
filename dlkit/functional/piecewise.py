"""Piecewise activations of one number, elementwise: straight pieces, and a parabola in `hard_swish`.

The derivative at a knot is the one torch takes; it is stated where the two sides differ.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = [
    "hard_shrink",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "prelu",
    "relu",
    "relu6",
    "soft_shrink",
    "threshold",
]

_X = Float[Array, "*shape"]


def relu(x: _X) -> _X:
    """`max(x, 0)`. Derivative: 1 where x > 0, else 0, at 0 too.

    >>> relu(jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    return jax.nn.relu(x)


def leaky_relu(x: _X, negative_slope: float) -> _X:
    """`x` where x > 0, else `negative_slope x`. Derivative: 1 where x > 0, else `negative_slope`, at 0 too.

    The slope has no default on purpose: it is 0.01 in torch and jax.nn, 0.3 in Keras' layer and 0.2 in Keras'
    function.

    >>> leaky_relu(jnp.array([-1.0, 2.0]), 0.25)
    Array([-0.25,  2.  ], dtype=float32)

    Reference: Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, 2013.
    """
    return jnp.where(x > 0, x, negative_slope * x)


def prelu(x: _X, slope: Float[Array, "..."]) -> _X:
    """`x` where x > 0, else `slope x`, the slope learned: one for all `[]` or `[1]`, or one a channel `[C]` (x `[...,
    C]`).

    Derivatives: of x, 1 where x > 0, else `slope`; of the slope, 0 where x > 0, else `x`, summed over where it is
    shared.

    >>> prelu(jnp.array([[-1.0, -1.0], [2.0, 2.0]]), jnp.array([0.25, 0.5]))
    Array([[-0.25, -0.5 ],
           [ 2.  ,  2.  ]], dtype=float32)

    Raises:
      ValueError: a slope that is neither one number nor one for each channel.

    Reference: He et al., Delving deep into rectifiers, ICCV 2015.
    """
    if slope.ndim > 1 or (slope.size != 1 and slope.shape != x.shape[-1:]):
        raise ValueError(
            f"prelu: slope is {list(slope.shape)} and x {list(x.shape)}; want one number or [{x.shape[-1]}]"
        )
    if slope.size == 1:
        slope = slope.reshape(())
    else:
        slope = slope.reshape((1,) * (x.ndim - 1) + slope.shape)
    return jnp.where(x > 0, x, slope * x)


def hard_tanh(x: _X, low: float = -1.0, high: float = 1.0) -> _X:
    """`min(max(x, low), high)`. Derivative: 1 strictly between `low` and `high`, else 0.

    >>> hard_tanh(jnp.array([-3.0, 0.5, 3.0]))
    Array([-1. ,  0.5,  1. ], dtype=float32)
    """
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x)).astype(x.dtype)


def relu6(x: _X) -> _X:
    """`min(max(x, 0), 6)`. Derivative: 1 strictly between 0 and 6, else 0.

    >>> relu6(jnp.array([-3.0, 0.5, 9.0]))
    Array([0. , 0.5, 6. ], dtype=float32)

    Reference: Krizhevsky, Convolutional deep belief networks on CIFAR-10, 2010.
    """
    return hard_tanh(x, 0.0, 6.0)


def hard_sigmoid(x: _X) -> _X:
    """`relu6(x + 3) / 6`. Derivative: 1/6 strictly between -3 and 3, else 0.

    As in torch, jax.nn and Keras 3; Keras 2 had `0.2 x + 0.5`.

    >>> hard_sigmoid(jnp.array([-3.0, 0.0, 3.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return hard_tanh(x + 3, 0.0, 6.0) / 6


def hard_swish(x: _X) -> _X:
    """`x relu6(x + 3) / 6`, also called hard SiLU. Derivative: `x / 3 + 1/2` strictly between -3 and 3, else 0 or 1.

    >>> hard_swish(jnp.array([-3.0, 1.5, 3.0]))
    Array([-0.   ,  1.125,  3.   ], dtype=float32)

    Reference: Howard et al., Searching for MobileNetV3, ICCV 2019.
    """
    return x * hard_sigmoid(x)


def hard_shrink(x: _X, lambd: float = 0.5) -> _X:
    """`x` where `|x| > lambd`, else 0. Derivative: 1, else 0.

    >>> hard_shrink(jnp.array([-1.0, 0.25, 1.0]))
    Array([-1.,  0.,  1.], dtype=float32)
    """
    return jnp.where(jnp.abs(x) > lambd, x, 0.0)


def soft_shrink(x: _X, lambd: float = 0.5) -> _X:
    """`sign(x) max(|x| - lambd, 0)`, the proximal map of `lambd |x|`. Derivative: 1 where `|x| > lambd`, else 0.

    >>> soft_shrink(jnp.array([-1.0, 0.25, 1.0]))
    Array([-0.5,  0. ,  0.5], dtype=float32)
    """
    return jnp.where(x > lambd, x - lambd, jnp.where(x < -lambd, x + lambd, 0.0))


def threshold(x: _X, threshold: float, value: float) -> _X:
    """`x` where `x > threshold`, else `value`. Derivative: 1, else 0.

    >>> threshold(jnp.array([0.5, 2.0]), 1.0, -7.0)
    Array([-7.,  2.], dtype=float32)
    """
    return jnp.where(x > threshold, x, value)
