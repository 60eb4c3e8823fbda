"""A batch norm folded into the layer before it, for evaluation."""

from dataclasses import replace
from typing import Any, TypeVar

import jax  # noqa: F401  (the doctest)
import jax.numpy as jnp
from jax import lax

from dlkit.functional.precision import wide_dtype
from dlkit.nn.convolution.conv import Conv
from dlkit.nn.linear import Linear
from dlkit.nn.normalization.batch_norm import BatchNorm

__all__ = ["fold_batch_norm"]

L = TypeVar("L", Conv, Linear)


def fold_batch_norm(layer: L, params: Any, norm: BatchNorm, norm_params: Any, norm_state: Any) -> tuple[L, Any]:
    """The one layer, with its parameters, that computes what `layer` and then `norm` do in evaluation.

        w' = w scale / sqrt(var + eps)        b' = (b - mean) scale / sqrt(var + eps) + shift

    For a `Linear` or a `Conv`. The result has a bias. Computed in float32 or wider. torch: `fuse_conv_bn_eval` and
    `fuse_linear_bn_eval`.

    >>> from dlkit.nn import EVAL
    >>> layer, norm = Linear(3, 2, bias=False), BatchNorm(2)
    >>> params, scales, state = layer.init(jax.random.key(0)), norm.init(jax.random.key(1)), norm.init_state()
    >>> one, held = fold_batch_norm(layer, params, norm, scales, state)
    >>> x = jnp.ones((4, 3))
    >>> bool(jnp.allclose(one(held, x), norm.apply(scales, state, layer(params, x), EVAL)[0]))
    True

    Raises:
      TypeError: `layer` is not a `Linear` or a `Conv`, or `norm` not a `BatchNorm`.
      ValueError: the norm has not one value for each output of the layer.
    """
    if not isinstance(layer, Conv | Linear) or not isinstance(norm, BatchNorm):
        raise TypeError(
            f"fold_batch_norm got a {type(layer).__name__} and a {type(norm).__name__}: expected a Linear or a Conv, "
            f"and a BatchNorm"
        )
    w = params["w"]
    if norm.d != w.shape[-1]:
        raise ValueError(f"fold_batch_norm got {norm!r} behind {w.shape[-1]} outputs of {layer!r}: expected one size")
    wide = wide_dtype(w.dtype)

    def taken(tree: Any, name: str, default: float) -> Any:
        return tree[name].astype(wide) if name in tree else jnp.full(norm.d, default, wide)

    factor = taken(norm_params, "scale", 1.0) * lax.rsqrt(taken(norm_state, "var", 1.0) + norm.eps)
    b = (taken(params, "b", 0.0) - taken(norm_state, "mean", 0.0)) * factor + taken(norm_params, "shift", 0.0)
    scaled = w.astype(wide) * factor.reshape((1,) * (w.ndim - 1) + factor.shape)
    return replace(layer, bias=True), {"w": scaled.astype(w.dtype), "b": b.astype(w.dtype)}
