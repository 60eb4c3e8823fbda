"""A VAE 784-400-20 of perceptrons with ReLU, Bernoulli pixels, one draw an example; the noise is part of the batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from timing import Trainer

from dlkit import losses, models, optim
from networks.training import jax_trainer, linear, torch_trainer

TITLE, STEPS, GOAL = "VAE 784-400-20, batch 128, Adam", 10, 0.45
PIXELS, HIDDEN, LATENT = 784, 400, 20
SHAPES = [(PIXELS, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS)]


def trainers() -> dict[str, Callable[[], Trainer]]:
    rng = np.random.default_rng(0)
    w = [(rng.normal(size=s) / np.sqrt(s[0])).astype(np.float32) for s in SHAPES]
    pixels = (rng.uniform(size=(128, PIXELS)) < 0.3).astype(np.float32)
    batch = (pixels, rng.normal(size=(128, LATENT)).astype(np.float32))
    eager = partial(_torch, w, batch)
    return {
        "dlkit": partial(_dlkit, w, batch),
        "floor": partial(_floor, w, batch),
        "nnx": partial(_nnx, w, batch),
        "equinox": partial(_equinox, w, batch),
        "haiku": partial(_haiku, w, batch),
        "torch eager": eager,
        "torch fused": partial(eager, fused=True),
        "torch compiled, fused": partial(eager, fused=True, compiled=True),
    }


def _jax_loss(encode: Callable[[Any, Any], Any], decode: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """The obvious way to write it, for all but dlkit."""

    def loss(params: Any, x: Any, noise: Any) -> Any:
        mean, log_var = jnp.split(encode(params, x), 2, axis=1)
        logits = decode(params, mean + jnp.exp(0.5 * log_var) * noise)
        pixels = optax.sigmoid_binary_cross_entropy(logits, x).sum(1)
        kl = 0.5 * (jnp.exp(log_var) + mean**2 - 1 - log_var).sum(1)
        return (pixels + kl).mean()

    return loss


def _dlkit(w: list[np.ndarray], batch: Any) -> Trainer:
    encoder, decoder = models.mlp((PIXELS, HIDDEN, 2 * LATENT)), models.mlp((LATENT, HIDDEN, PIXELS))
    made = {"encoder": encoder.init(jax.random.key(0)), "decoder": decoder.init(jax.random.key(0))}
    leaves, treedef = jax.tree.flatten(made)
    # The dict is sorted: the decoder comes first, and a bias before its matrix.
    order = iter([w[2], w[3], w[0], w[1]])
    params = jax.tree.unflatten(treedef, [next(order) if a.ndim == 2 else np.zeros_like(a) for a in leaves])

    def loss(params: Any, x: Any, noise: Any) -> Any:
        mean, log_var = jnp.split(encoder(params["encoder"], x), 2, axis=1)
        logits = decoder(params["decoder"], mean + jnp.exp(0.5 * log_var) * noise)
        pixels = losses.binary_cross_entropy(logits, x, batch_axes=2).sum(1)
        return (pixels + losses.gaussian_kl(mean, log_var)).mean()

    return jax_trainer(loss, params, batch, optim.adam(1e-3))


def _floor(w: list[np.ndarray], batch: Any) -> Trainer:
    params = [{"w": a, "b": np.zeros(a.shape[1], np.float32)} for a in w]

    def two(first: Any, second: Any, x: Any) -> Any:
        return jax.nn.relu(x @ first["w"] + first["b"]) @ second["w"] + second["b"]

    return jax_trainer(_jax_loss(lambda p, x: two(p[0], p[1], x), lambda p, z: two(p[2], p[3], z)), params, batch, ADAM)


def _nnx(w: list[np.ndarray], batch: Any) -> Trainer:
    layers = nnx.List([nnx.Linear(*s, rngs=nnx.Rngs(0)) for s in SHAPES])
    for layer, a in zip(layers, w, strict=True):
        layer.kernel[...] = jnp.asarray(a)
    definition, params = nnx.split(layers)

    def part(first: int) -> Callable[[Any, Any], Any]:
        def call(params: Any, x: Any) -> Any:
            made = nnx.merge(definition, params)
            return made[first + 1](nnx.relu(made[first](x)))

        return call

    return jax_trainer(_jax_loss(part(0), part(2)), params, batch, ADAM)


def _equinox(w: list[np.ndarray], batch: Any) -> Trainer:
    layers = [equinox.nn.Linear(*s, key=jax.random.key(0)) for s in SHAPES]
    for i, a in enumerate(w):
        values = jnp.asarray(a.T), jnp.zeros(a.shape[1])
        layers[i] = equinox.tree_at(lambda m: (m.weight, m.bias), layers[i], values)
    params, static = equinox.partition(layers, equinox.is_array)

    def part(first: int) -> Callable[[Any, Any], Any]:
        def call(params: Any, x: Any) -> Any:
            made = equinox.combine(params, static)
            return jax.vmap(lambda x: made[first + 1](jax.nn.relu(made[first](x))))(x)

        return call

    return jax_trainer(_jax_loss(part(0), part(2)), params, batch, ADAM)


def _haiku(w: list[np.ndarray], batch: Any) -> Trainer:
    def part(widths: tuple[int, ...]) -> Any:
        return haiku.without_apply_rng(haiku.transform(lambda x: haiku.nets.MLP(widths)(x)))

    encoder, decoder = part((HIDDEN, 2 * LATENT)), part((HIDDEN, PIXELS))
    names = "mlp/~/linear_0", "mlp/~/linear_1"
    filled = [{"w": a, "b": np.zeros(a.shape[1], np.float32)} for a in w]
    params = [dict(zip(names, filled[i : i + 2], strict=True)) for i in (0, 2)]
    loss = _jax_loss(lambda p, x: encoder.apply(p[0], x), lambda p, z: decoder.apply(p[1], z))
    return jax_trainer(loss, params, batch, ADAM)


def _torch(w: list[np.ndarray], batch: Any, fused: bool = False, compiled: bool = False) -> Trainer:
    layers = torch.nn.ModuleList(linear(a) for a in w)

    def loss(layers: Any, x: Any, noise: Any) -> Any:
        mean, log_var = layers[1](torch.relu(layers[0](x))).chunk(2, dim=1)
        logits = layers[3](torch.relu(layers[2](mean + torch.exp(0.5 * log_var) * noise)))
        pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        kl = 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1)
        return (pixels + kl).mean()

    return torch_trainer(
        layers, loss, batch, lambda p: torch.optim.Adam(p, 1e-3, fused=fused or None), compiled=compiled
    )


ADAM = optax.adam(1e-3)
