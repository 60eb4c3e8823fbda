"""A language model of characters: embedding, one LSTM of 256 units, head of 65 classes; 64 windows of 64."""

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
from families.case import fill
from flax import nnx
from timing import Trainer

from dlkit import losses, nn, optim
from networks.training import jax_trainer, linear, token_loss, torch_trainer

TITLE, STEPS, GOAL = "LSTM of 256 units over 64 characters, batch 64, Adam", 1, 1.0
VOCAB, D, LENGTH, BATCH = 65, 256, 64, 64


def trainers() -> dict[str, Callable[[], Trainer]]:
    rng = np.random.default_rng(0)
    shapes = {"tokens": (VOCAB, D), "input": (D, 4 * D), "hidden": (D, 4 * D), "head": (D, VOCAB)}
    w = {name: (rng.normal(size=s) / np.sqrt(D)).astype(np.float32) for name, s in shapes.items()}
    text = rng.integers(0, VOCAB, (BATCH, LENGTH + 1)).astype(np.int32)
    batch = (text[:, :-1].copy(), text[:, 1:].copy())
    eager = partial(_torch, w, batch)
    return {
        "dlkit": partial(_dlkit, w, batch),
        "floor": partial(_floor, w, batch),
        "nnx": partial(_nnx, w, batch),
        "equinox": partial(_equinox, w, batch),
        "haiku": partial(_haiku, w, batch),
        "torch eager": eager,
        "torch fused": partial(eager, fused=True),
    }


def _dlkit(w: dict[str, np.ndarray], batch: Any) -> Trainer:
    model = nn.Chain(tokens=nn.Embedding(VOCAB, D), lstm=nn.LSTM(D, D, hidden_bias=False), head=nn.Linear(D, VOCAB))
    params = {
        "tokens": {"table": w["tokens"]},
        "lstm": {"input": {"w": w["input"], "b": np.zeros(4 * D, np.float32)}, "hidden": {"w": w["hidden"]}},
        "head": {"w": w["head"], "b": np.zeros(VOCAB, np.float32)},
    }

    def loss(params: Any, x: Any, y: Any) -> Any:
        return losses.cross_entropy(model.apply(params, None, x, nn.EVAL)[0], y).mean()

    return jax_trainer(loss, params, batch, optim.adam(1e-3))


def _floor(w: dict[str, np.ndarray], batch: Any) -> Trainer:
    params: Any = w | {"b": np.zeros(4 * D, np.float32), "out": np.zeros(VOCAB, np.float32)}

    def logits(p: Any, x: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(x @ p["input"] + h @ p["hidden"] + p["b"], 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((BATCH, D))
        _, h = jax.lax.scan(step, (start, start), p["tokens"][x].swapaxes(0, 1))
        return h.swapaxes(0, 1) @ p["head"] + p["out"]

    return jax_trainer(token_loss(logits), params, batch, ADAM)


class _Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.tokens = nnx.Embed(VOCAB, D, rngs=rngs)
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(D, D, rngs=rngs))
        self.head = nnx.Linear(D, VOCAB, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        start = jnp.zeros((BATCH, D))
        return self.head(self.lstm(self.tokens(x), initial_carry=(start, start)))


def _nnx(w: dict[str, np.ndarray], batch: Any) -> Trainer:
    model = _Nnx(nnx.Rngs(0))
    cell = model.lstm.cell
    model.tokens.embedding[...], model.head.kernel[...] = jnp.asarray(w["tokens"]), jnp.asarray(w["head"])
    cell.dense_i.kernel[...], cell.dense_h.kernel[...] = jnp.asarray(w["input"]), jnp.asarray(w["hidden"])
    definition, params, rest = nnx.split(model, nnx.Param, ...)
    return jax_trainer(token_loss(lambda p, x: nnx.merge(definition, p, rest)(x)), params, batch, ADAM)


def _equinox(w: dict[str, np.ndarray], batch: Any) -> Trainer:
    key = jax.random.key(0)
    tokens, head = equinox.nn.Embedding(VOCAB, D, key=key), equinox.nn.Linear(D, VOCAB, key=key)
    model = (tokens, equinox.nn.LSTMCell(D, D, key=key), head)
    bias, out = np.zeros(4 * D, np.float32), np.zeros(VOCAB, np.float32)
    values = (w["tokens"], w["input"].T, w["hidden"].T, bias, w["head"].T, out)
    model = equinox.tree_at(
        lambda m: (m[0].weight, m[1].weight_ih, m[1].weight_hh, m[1].bias, m[2].weight, m[2].bias),
        model,
        tuple(map(jnp.asarray, values)),
    )
    params, static = equinox.partition(model, equinox.is_array)

    def one(model: Any, x: Any) -> Any:
        tokens, cell, head = model

        def step(carry: Any, x: Any) -> Any:
            carry = cell(x, carry)
            return carry, carry[0]

        start = jnp.zeros(D)
        return jax.vmap(head)(jax.lax.scan(step, (start, start), jax.vmap(tokens)(x))[1])

    return jax_trainer(
        token_loss(lambda p, x: jax.vmap(partial(one, equinox.combine(p, static)))(x)), params, batch, ADAM
    )


def _haiku(w: dict[str, np.ndarray], batch: Any) -> Trainer:
    def logits(x: Any) -> Any:
        core = haiku.LSTM(D)
        x = haiku.Embed(VOCAB, D)(x)
        h, _ = haiku.dynamic_unroll(core, x, core.initial_state(BATCH), time_major=False)
        return haiku.Linear(VOCAB)(h)

    model = haiku.without_apply_rng(haiku.transform(logits))
    params: Any = model.init(jax.random.key(0), jnp.asarray(batch[0]))
    i, f, g, o = np.split(np.concatenate([w["input"], w["hidden"]]), 4, axis=1)
    bias = np.zeros(4 * D, np.float32)
    bias[2 * D : 3 * D] = -1  # haiku adds 1 to the forget gate
    params = {
        "embed": {"embeddings": w["tokens"]},
        "lstm/linear": {"w": np.concatenate([i, g, f, o], 1), "b": bias},
        "linear": {"w": w["head"], "b": np.zeros(VOCAB, np.float32)},
    }
    return jax_trainer(token_loss(model.apply), params, batch, ADAM)


class _Torch(torch.nn.Module):
    def __init__(self, w: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.tokens, self.lstm = torch.nn.Embedding(VOCAB, D), torch.nn.LSTM(D, D, batch_first=True)
        self.head = linear(w["head"])
        fill(self.tokens.weight, w["tokens"])
        fill(self.lstm.weight_ih_l0, w["input"].T)
        fill(self.lstm.weight_hh_l0, w["hidden"].T)
        torch.nn.init.zeros_(self.lstm.bias_ih_l0)
        torch.nn.init.zeros_(self.lstm.bias_hh_l0).requires_grad_(False)  # one bias, as the others have

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(self.tokens(x))[0])


def _torch(w: dict[str, np.ndarray], batch: Any, fused: bool = False) -> Trainer:
    def loss(model: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x).reshape(-1, VOCAB), y.reshape(-1))

    def adam(params: Any) -> Any:
        return torch.optim.Adam([p for p in params if p.requires_grad], 1e-3, fused=fused or None)

    return torch_trainer(_Torch(w), loss, batch, adam)


ADAM = optax.adam(1e-3)
