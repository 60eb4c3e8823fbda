"""Models whose backward pass also gathers what K-FAC needs: second moments of inputs and of output gradients.

A tapped layer computes what the layer computes. Beside its weights it has parameters `taps`, which nothing depends on;
their *gradients* are defined to be sum a a^T and sum g g^T over all that went through the layer. So one call of `vjp`
brings them out, through `scan`, `remat`, `vmap` and models of any form, with no state and no second way through them.
"""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import functional
from dlkit.functional.convolution.padding import pad
from dlkit.functional.convolution.spatial import resolve_padding, spread
from dlkit.nn import Conv, Layer, Linear, map_layers

__all__ = []

TAPS = "taps"


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(layer: Any, y: Array, x: Array, taps: dict[str, Array]) -> Array:
    return y


def _forward(layer: Any, y: Array, x: Array, taps: dict[str, Array]) -> tuple[Array, tuple[Array, Any]]:
    return y, (x, taps)


def _backward(layer: Any, kept: tuple[Array, Any], g: Array) -> tuple[Array, Array, dict[str, Array]]:
    x, taps = kept
    dtype = taps["a"].dtype
    a = layer.rows(x).astype(dtype)
    a = a.reshape(-1, a.shape[-1])
    if layer.bias:
        a = jnp.concatenate([a, jnp.ones((a.shape[0], 1), dtype)], axis=1)
    rows = g.astype(dtype).reshape(-1, g.shape[-1])
    moments = {"a": _moment(a), "g": _moment(rows), "rows": jnp.full_like(taps["rows"], a.shape[0])}
    return g, jnp.zeros_like(x), moments


def _moment(rows: Array) -> Array:
    return jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)


_tap.defvjp(_forward, _backward)


def _taps(d_in: int, d_out: int, bias: bool) -> dict[str, Array]:
    d = d_in + bias
    return {"a": jnp.zeros((d, d)), "g": jnp.zeros((d_out, d_out)), "rows": jnp.zeros(())}


@dataclass(frozen=True)
class TappedLinear(Linear):
    def init(self, key: Any) -> Any:
        return {**super().init(key), TAPS: _taps(self.d_in, self.d_out, self.bias)}

    def rows(self, x: Array) -> Array:
        return x

    def __call__(self, params: Any, x: Array) -> Array:
        return _tap(self, super().__call__(params, x), jax.lax.stop_gradient(x), params[TAPS])


@dataclass(frozen=True)
class TappedConv(Conv):
    def init(self, key: Any) -> Any:
        return {**super().init(key), TAPS: _taps(math.prod(self.kernel_shape) * self.c_in, self.c_out, self.bias)}

    def rows(self, x: Array) -> Array:
        """Every window of the input as a row (im2col), in the order of `w.reshape(-1, c_out)`."""
        kernel, padding = self.kernel_shape, self.padding
        dims = len(kernel)
        if self.padding_mode != "zeros":
            sizes = x.shape[-dims - 1 : -1]
            strides, dilations = (spread("conv", of, dims) for of in (self.stride, self.dilation))
            padding = resolve_padding(padding, sizes, kernel, strides, dilations, what="conv: padding")
            lead = x.shape[: -dims - 1]
            x = pad(x.reshape(math.prod(lead), *x.shape[-dims - 1 :]), padding, self.padding_mode)
            padding = "VALID"
        return functional.unfold(x, kernel, self.stride, padding, dilation=self.dilation, dims=dims)

    def __call__(self, params: Any, x: Array) -> Array:
        return _tap(self, super().__call__(params, x), jax.lax.stop_gradient(x), params[TAPS])


def tapped(model: Layer[Any, Any]) -> Layer[Any, Any]:
    """The model with taps in every `Linear` and every `Conv` of one group (the paper has no factors for more)."""

    def replace(path: str, layer: Any) -> Any:
        if type(layer) is Linear:
            return TappedLinear(**{f.name: getattr(layer, f.name) for f in fields(layer)})
        if type(layer) is Conv and layer.groups == 1:
            return TappedConv(**{f.name: getattr(layer, f.name) for f in fields(layer)})
        return layer

    return map_layers(replace, model)


def with_taps(params: Any, taps: dict[str, Any], path: str = "") -> Any:
    """`params` with `taps[path]` beside the leaves of every layer at `path`."""

    def below(name: str) -> str:
        return f"{path}/{name}".lstrip("/")

    if isinstance(params, dict):
        inside = {name: with_taps(value, taps, below(name)) for name, value in params.items()}
        return {**inside, TAPS: taps[path]} if path in taps else inside
    if isinstance(params, tuple):
        inside = [with_taps(value, taps, below(str(i))) for i, value in enumerate(params)]
        return type(params)(*inside) if hasattr(params, "_fields") else tuple(inside)
    return params
