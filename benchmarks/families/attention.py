"""Causal multi-head self-attention with its four projections, at three lengths."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn import functional as F

from dlkit import nn
from families.case import Case, Timed, array, equinox_run, fill, haiku_run, jax_run, nnx_run, torch_run, weight

D, HEADS = 384, 6
NAMES = ("q", "k", "v", "out")


def cases() -> Iterator[Case]:
    w = {name: weight(D, D, seed=i) for i, name in enumerate(NAMES)}
    for batch, length in ((8, 256), (2, 1024), (1, 4096)):
        x = array(batch, length, D)
        yield Case(
            f"Causal self-attention of {HEADS} heads, x {list(x.shape)}",
            {
                "dlkit": lambda x=x: _dlkit(x, w),
                "nnx": lambda x=x: _nnx(x, w),
                "equinox": lambda x=x: _equinox(x, w),
                "haiku": lambda x=x: _haiku(x, w),
                "torch": lambda x=x: _torch(x, w),
                "torch MultiheadAttention": lambda x=x: _torch_layer(x, w),
            },
            goal=1.0,
        )


def _dlkit(x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    layer = nn.MultiHeadAttention(D, HEADS, causal=True, bias=False)
    params = {name: {"w": w[name]} for name in NAMES}
    return jax_run(lambda params, x: layer.apply(params, None, x, nn.EVAL)[0], params, x)


def _nnx(x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    layer = nnx.MultiHeadAttention(HEADS, D, use_bias=False, decode=False, rngs=nnx.Rngs(0))
    for module, name in zip((layer.query, layer.key, layer.value), NAMES, strict=False):
        module.kernel[...] = jnp.asarray(w[name].reshape(D, HEADS, -1))
    layer.out.kernel[...] = jnp.asarray(w["out"].reshape(HEADS, -1, D))
    mask = nnx.make_causal_mask(jnp.ones(x.shape[:2]))
    return nnx_run(layer, x, lambda module, x: module(x, mask=mask))


def _equinox(x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    layer = equinox.nn.MultiheadAttention(HEADS, D, key=jax.random.key(0))
    mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    parts = ("query_proj", "key_proj", "value_proj", "output_proj")
    layer = equinox.tree_at(
        lambda m: [getattr(m, part).weight for part in parts], layer, [jnp.asarray(w[name].T) for name in NAMES]
    )
    return equinox_run(layer, x, lambda m, x: jax.vmap(lambda x: m(x, x, x, mask=mask))(x))


def _haiku(x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))[None, None]

    def layer(x: Any) -> Any:
        init = haiku.initializers.Constant(0.0)
        return haiku.MultiHeadAttention(HEADS, D // HEADS, with_bias=False, w_init=init, model_size=D)(
            x, x, x, mask=mask
        )

    parts = dict(zip(("query", "key", "value", "linear"), NAMES, strict=True))
    return haiku_run(
        layer, x, lambda params: {path: {"w": jnp.asarray(w[parts[path.split("/")[-1]]])} for path in params}
    )


class _Attention(torch.nn.Module):
    """As model code writes it: one projection to q, k and v, and the fused function."""

    def __init__(self, w: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(D, 3 * D, bias=False), torch.nn.Linear(D, D, bias=False)
        fill(self.qkv.weight, np.concatenate([w[name].T for name in NAMES[:3]]))
        fill(self.out.weight, w["out"].T)

    def forward(self, x: Any) -> Any:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, D))


def _torch(x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    return torch_run(_Attention(w), x)


def _torch_layer(x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    layer = torch.nn.MultiheadAttention(D, HEADS, bias=False, batch_first=True)
    fill(layer.in_proj_weight, np.concatenate([w[name].T for name in NAMES[:3]]))
    fill(layer.out_proj.weight, w["out"].T)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
    call: Callable[[Any, Any], Any] = lambda m, x: m(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)[0]  # noqa: E731
    return torch_run(layer, x, call)
