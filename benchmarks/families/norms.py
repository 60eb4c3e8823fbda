"""Normalization of tokens and of pictures, and the embedding table."""

from collections.abc import Iterator

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from dlkit import nn
from families.case import Case, array, equinox_run, fill, haiku_run, jax_run, nnx_run, torch_run

D, TOKENS, VOCAB = 384, (16, 256), 8192
CHANNELS, IMAGES = 64, (32, 32, 32)


def cases() -> Iterator[Case]:
    x = array(*TOKENS, D)
    layer = nn.LayerNorm(D)
    eps = 1e-5
    yield Case(
        f"LayerNorm, x {list(x.shape)}",
        {
            "dlkit": lambda: jax_run(layer, layer.init(jax.random.key(0)), x),
            "nnx": lambda: nnx_run(nnx.LayerNorm(D, epsilon=eps, rngs=nnx.Rngs(0)), x),
            "equinox": lambda: equinox_run(equinox.nn.LayerNorm(D), x, lambda m, x: jax.vmap(jax.vmap(m))(x)),
            "haiku": lambda: haiku_run(lambda x: haiku.LayerNorm(-1, True, True)(x), x, lambda p: p),
            "torch": lambda: torch_run(torch.nn.LayerNorm(D), x),
        },
        goal=1.0,
    )
    rms = nn.RMSNorm(D)
    yield Case(
        f"RMSNorm, x {list(x.shape)}",
        {
            "dlkit": lambda: jax_run(rms, rms.init(jax.random.key(0)), x),
            "nnx": lambda: nnx_run(nnx.RMSNorm(D, epsilon=eps, rngs=nnx.Rngs(0)), x),
            "equinox": lambda: equinox_run(
                equinox.nn.RMSNorm(D, use_bias=False), x, lambda m, x: jax.vmap(jax.vmap(m))(x)
            ),
            "haiku": lambda: haiku_run(lambda x: haiku.RMSNorm(-1)(x), x, lambda p: p),
            "torch": lambda: torch_run(torch.nn.RMSNorm(D, eps=eps), x),
        },
    )
    pictures = array(*IMAGES, CHANNELS)
    group = nn.GroupNorm(8, CHANNELS)
    first = lambda m, x: m(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # noqa: E731  (a view: channels last to torch)
    yield Case(
        f"GroupNorm(8), x {list(pictures.shape)}",
        {
            "dlkit": lambda: jax_run(group, group.init(jax.random.key(0)), pictures),
            "nnx": lambda: nnx_run(nnx.GroupNorm(CHANNELS, 8, epsilon=eps, rngs=nnx.Rngs(0)), pictures),
            "equinox": lambda: equinox_run(
                equinox.nn.GroupNorm(8, CHANNELS),
                pictures,
                lambda m, x: jax.vmap(m)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
            ),
            "haiku": lambda: haiku_run(lambda x: haiku.GroupNorm(8)(x), pictures, lambda p: p),
            "torch": lambda: torch_run(torch.nn.GroupNorm(8, CHANNELS), pictures, first),
        },
    )
    batch = nn.BatchNorm(CHANNELS)
    trained = lambda params, x: batch.apply(params, batch.init_state(), x, nn.training(None))[0]  # noqa: E731
    yield Case(
        f"BatchNorm in training, x {list(pictures.shape)}",
        {
            "dlkit": lambda: jax_run(trained, batch.init(jax.random.key(0)), pictures),
            "nnx": lambda: nnx_run(_BatchNorm(), pictures),
            "torch": lambda: torch_run(torch.nn.BatchNorm2d(CHANNELS), pictures, first),
        },
    )
    table, ids = array(VOCAB, D), np.random.default_rng(0).integers(0, VOCAB, TOKENS).astype(np.int32)
    embedding = nn.Embedding(VOCAB, D)

    def of_torch():
        module = torch.nn.Embedding(VOCAB, D)
        fill(module.weight, table)
        return torch_run(module, ids)

    yield Case(
        f"Embedding of {VOCAB} rows of {D}, ids {list(ids.shape)}",
        {
            "dlkit": lambda: jax_run(embedding, {"table": table}, ids),
            "nnx": lambda: nnx_run(_embed(table), ids),
            "equinox": lambda: equinox_run(
                equinox.nn.Embedding(weight=jnp.asarray(table)), ids, lambda m, x: jax.vmap(jax.vmap(m))(x)
            ),
            "haiku": lambda: haiku_run(
                lambda x: haiku.Embed(VOCAB, D)(x), ids, lambda p: jax.tree.map(lambda _: jnp.asarray(table), p)
            ),
            "torch": of_torch,
        },
    )


class _BatchNorm(nnx.Module):
    """Only parameters: the running averages are thrown away, as they are in the other columns."""

    def __init__(self) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(CHANNELS)), nnx.Param(jnp.zeros(CHANNELS))

    def __call__(self, x: jax.Array) -> jax.Array:
        norm = nnx.BatchNorm(CHANNELS, use_running_average=False, epsilon=1e-5, rngs=nnx.Rngs(0))
        norm.scale, norm.bias = self.scale, self.bias
        return norm(x)


def _embed(table: np.ndarray) -> nnx.Embed:
    module = nnx.Embed(*table.shape, rngs=nnx.Rngs(0))
    module.embedding[...] = jnp.asarray(table)
    return module
