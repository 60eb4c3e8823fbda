"""Weights computed from other weights: a length and a direction, standardized, divided by the largest singular value.

A weight here is `[..., c_out]`, its output channels on the last axis, as in `linear` and `conv`; `axis` names another.
Everything is computed in float32 or wider and has the dtype of the weight.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dlkit.functional.normalization.norms_local import unit_norm
from dlkit.functional.precision import wide_dtype

__all__ = ["power_iteration", "spectral_norm", "weight_norm", "weight_standardize"]


def _others(who: str, w: Array, axis: int) -> tuple[int, ...]:
    if not -w.ndim <= axis < w.ndim:
        raise ValueError(f"{who}: axis is {axis}, but w is {list(w.shape)}; want the axis of the output channels")
    return tuple(i for i in range(w.ndim) if i != axis % w.ndim)


def weight_norm(v: Float[Array, "*shape"], magnitude: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "*shape"]:
    """`w = magnitude v / |v|`: each output channel's weights by their length and their direction.

    v `[..., c_out]`, magnitude `[c_out]`, the length of the weights of each output channel, over all other axes. A v of
    length 0 has no direction; nothing guards against it, as in torch.

    >>> weight_norm(jnp.array([[3.0], [4.0]]), jnp.array([10.0]))
    Array([[6.],
           [8.]], dtype=float32)

    Raises:
      ValueError: an axis that v has not, or a magnitude without one value for each output channel.

    Reference: Salimans and Kingma, Weight normalization, 2016, arXiv:1602.07868.
    """
    others = _others("weight_norm", v, axis)
    if magnitude.shape != (v.shape[axis],):
        raise ValueError(
            f"weight_norm: magnitude is {list(magnitude.shape)} and v is {list(v.shape)}; want [{v.shape[axis]}]"
        )
    wide = v.astype(wide_dtype(v.dtype))
    length = jnp.sqrt(jnp.square(wide).sum(others, keepdims=True))
    return (wide * (jnp.expand_dims(magnitude.astype(wide.dtype), others) / length)).astype(v.dtype)


def weight_standardize(w: Float[Array, "*shape"], *, axis: int = -1, eps: float = 1e-6) -> Float[Array, "*shape"]:
    """`(w - mean) / sqrt(var + eps)`, mean and biased variance of the weights of each output channel.

    w `[..., c_out]`. eps stands inside the root, 1e-6 as in timm's StdConv2d; the paper's code adds 1e-5 to the
    unbiased standard deviation.

    >>> weight_standardize(jnp.array([[1.0], [3.0]]), eps=0.0)
    Array([[-1.],
           [ 1.]], dtype=float32)

    Raises:
      ValueError: an axis that w has not.

    Reference: Qiao, Wang, Liu, Shen and Yuille, Micro-batch training with batch-channel normalization and weight
    standardization, 2019, arXiv:1903.10520.
    """
    others = _others("weight_standardize", w, axis)
    wide = w.astype(wide_dtype(w.dtype))
    centered = wide - wide.mean(others, keepdims=True)
    var = jnp.square(centered).mean(others, keepdims=True)
    return (centered * lax.rsqrt(var + eps)).astype(w.dtype)


def _matrix(w: Array, axis: int) -> Array:
    """`[c_out, everything else]`."""
    return jnp.moveaxis(w.astype(wide_dtype(w.dtype)), axis, 0).reshape(w.shape[axis], -1)


def power_iteration(
    w: Float[Array, "*shape"],
    u: Float[Array, "c_out"],
    v: Float[Array, "c_in"],
    steps: Any,
    *,
    axis: int = -1,
    eps: float = 1e-12,
) -> tuple[Float[Array, "c_out"], Float[Array, "c_in"]]:
    """`steps` times `u = W v / |W v|`, `v = W' u / |W' u|`: toward the singular vectors of the largest singular value.

    W `[c_out, c_in]` is w with its output channels first and everything else flattened; c_in counts all of that. No
    gradient flows through. `steps` may be an array. Each step shrinks the error by the square of the ratio of the
    second singular value to the first. Lengths are bounded from below by `eps`.

    >>> u, v = power_iteration(jnp.diag(jnp.array([3.0, 1.0])), jnp.ones(2), jnp.ones(2), 20)
    >>> v.round(3)
    Array([1., 0.], dtype=float32)

    Raises:
      ValueError: an axis that w has not, or vectors that are not of W's sizes.
    """
    _others("power_iteration", w, axis)
    matrix = lax.stop_gradient(_matrix(w, axis))
    if (*u.shape, *v.shape) != matrix.shape:
        raise ValueError(
            f"power_iteration: u is {list(u.shape)} and v is {list(v.shape)}, but w as a matrix is "
            f"{list(matrix.shape)}; want one vector of each size"
        )

    def step(_: Any, both: tuple[Array, Array]) -> tuple[Array, Array]:
        u = unit_norm(matrix @ both[1], eps=eps)
        return u, unit_norm(u @ matrix, eps=eps)

    return lax.fori_loop(0, steps, step, (u.astype(matrix.dtype), v.astype(matrix.dtype)))


def spectral_norm(
    w: Float[Array, "*shape"], u: Float[Array, "c_out"], v: Float[Array, "c_in"], *, axis: int = -1
) -> Float[Array, "*shape"]:
    """`w / sigma`, `sigma = u' W v` the largest singular value where u and v are its vectors (`power_iteration`).

    u and v are constants of the derivative: `dsigma = u' dW v`, which is exact at the singular vectors.

    >>> spectral_norm(jnp.diag(jnp.array([4.0, 1.0])), jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]))
    Array([[1.  , 0.  ],
           [0.  , 0.25]], dtype=float32)

    Raises:
      ValueError: an axis that w has not.

    Reference: Miyato, Kataoka, Koyama and Yoshida, Spectral normalization for GANs, 2018, arXiv:1802.05957.
    """
    _others("spectral_norm", w, axis)
    matrix = _matrix(w, axis)
    u, v = (lax.stop_gradient(a).astype(matrix.dtype) for a in (u, v))
    return (w.astype(matrix.dtype) / (u @ (matrix @ v))).astype(w.dtype)
