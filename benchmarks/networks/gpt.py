"""A GPT of 6 layers, 384 wide, 6 heads, 256 tokens, batch 8: learned positions, LayerNorm before, GELU, tied head."""

import dataclasses
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

from dlkit import losses, models, nn, optim
from networks.training import jax_trainer, linear, token_loss, torch_trainer

TITLE, STEPS, GOAL = "GPT 6 x 384, 6 heads, 256 tokens, batch 8, AdamW and clipping", 1, 1.0
VOCAB, D, HEADS, LENGTH, DEPTH, BATCH = 65, 384, 6, 256, 6, 8
SHAPES = {"q": (D, D), "k": (D, D), "v": (D, D), "out": (D, D), "up": (D, 4 * D), "down": (4 * D, D)}
RATE, DECAY, CLIP = 1e-3, 0.1, 1.0
Weights = dict[str, Any]


def weights() -> Weights:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (0.02 * rng.normal(size=shape)).astype(np.float32)

    blocks = [{name: normal(*s) for name, s in SHAPES.items()} for _ in range(DEPTH)]
    return {"tokens": normal(VOCAB, D), "positions": normal(LENGTH, D), "blocks": blocks}


def trainers() -> dict[str, Callable[[], Trainer]]:
    w = weights()
    text = np.random.default_rng(1).integers(0, VOCAB, (BATCH, LENGTH + 1)).astype(np.int32)
    batch = (text[:, :-1].copy(), text[:, 1:].copy())
    return {
        "dlkit": partial(_dlkit, w, batch, scan=False),
        "dlkit scanned": partial(_dlkit, w, batch, scan=True),
        "floor": partial(_floor, w, batch),
        "nnx": partial(_nnx, w, batch),
        "equinox": partial(_equinox, w, batch),
        "haiku": partial(_haiku, w, batch),
        "torch fused": partial(_torch, w, batch),
        "torch compiled, fused": partial(_torch, w, batch, compiled=True),
    }


def dlkit_model(scan: bool) -> Any:
    model = models.gpt(vocab=VOCAB, d=D, depth=DEPTH, heads=HEADS, length=LENGTH)
    return dataclasses.replace(model, blocks=dataclasses.replace(model.blocks, scan=scan))


def dlkit_params(w: Weights, model: Any) -> Any:
    params = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(model.init, jax.random.key(0)))
    params["tokens"]["table"], params["positions"]["table"] = w["tokens"], w["positions"]
    params["norm"]["scale"] += 1
    blocks = params["blocks"]
    for norm in ("norm1", "norm2"):
        blocks[norm]["scale"] += 1
    for name in SHAPES:
        part = "mlp" if name in ("up", "down") else "attention"
        blocks[part][name]["w"] = np.stack([block[name] for block in w["blocks"]])
    return params


def _dlkit(w: Weights, batch: Any, scan: bool) -> Trainer:
    model = dlkit_model(scan)

    def loss(params: Any, x: Any, y: Any) -> Any:
        logits, _ = model.apply(params, None, x, nn.EVAL)
        return losses.cross_entropy(logits, y).mean()

    tx = optim.chain(optim.clip_by_global_norm(CLIP), optim.adamw(RATE, weight_decay=DECAY))
    return jax_trainer(loss, dlkit_params(w, model), batch, tx)


def _floor(w: Weights, batch: Any) -> Trainer:
    def block(b: Weights) -> Weights:
        biases = {f"{name}_b": np.zeros(a.shape[1], np.float32) for name, a in b.items()}
        return b | biases | {"norm1": _norm(), "norm2": _norm()}

    params = w | {"blocks": [block(b) for b in w["blocks"]], "norm": _norm()}

    def norm(p: Any, x: Any) -> Any:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * p["scale"] + p["shift"]

    def attend(p: Any, x: Any) -> Any:
        q, k, v = ((x @ p[n] + p[n + "_b"]).reshape(BATCH, LENGTH, HEADS, -1) for n in "qkv")
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(D // HEADS).astype(np.float32)
        scores = jnp.where(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), scores, -jnp.inf)
        y = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
        return y.reshape(BATCH, LENGTH, D) @ p["out"] + p["out_b"]

    def logits(p: Any, x: Any) -> Any:
        x = p["tokens"][x] + p["positions"]
        for b in p["blocks"]:
            x = x + attend(b, norm(b["norm1"], x))
            h = jax.nn.gelu(norm(b["norm2"], x) @ b["up"] + b["up_b"], approximate=True)
            x = x + h @ b["down"] + b["down_b"]
        return norm(p["norm"], x) @ p["tokens"].T

    return jax_trainer(token_loss(logits), params, batch, ADAMW)


def _norm() -> Weights:
    return {"scale": np.ones(D, np.float32), "shift": np.zeros(D, np.float32)}


class _NnxBlock(nnx.Module):
    def __init__(self, w: Weights, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = (nnx.LayerNorm(D, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(HEADS, D, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(D, 4 * D, rngs=rngs), nnx.Linear(4 * D, D, rngs=rngs)
        for name, part in (("q", "query"), ("k", "key"), ("v", "value")):
            getattr(self.attention, part).kernel[...] = jnp.asarray(w[name].reshape(D, HEADS, -1))
        self.attention.out.kernel[...] = jnp.asarray(w["out"].reshape(HEADS, -1, D))
        self.up.kernel[...], self.down.kernel[...] = jnp.asarray(w["up"]), jnp.asarray(w["down"])

    def __call__(self, x: Any, mask: Any) -> Any:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class _Nnx(nnx.Module):
    def __init__(self, w: Weights, rngs: nnx.Rngs) -> None:
        self.tokens, self.positions = nnx.Embed(VOCAB, D, rngs=rngs), nnx.Embed(LENGTH, D, rngs=rngs)
        self.blocks = nnx.List([_NnxBlock(b, rngs) for b in w["blocks"]])
        self.norm = nnx.LayerNorm(D, epsilon=1e-5, rngs=rngs)
        self.tokens.embedding[...], self.positions.embedding[...] = (
            jnp.asarray(w["tokens"]),
            jnp.asarray(w["positions"]),
        )

    def __call__(self, ids: Any) -> Any:
        x, mask = self.tokens(ids) + self.positions(jnp.arange(LENGTH)), nnx.make_causal_mask(ids)
        for block in self.blocks:
            x = block(x, mask)
        return self.tokens.attend(self.norm(x))


def _nnx(w: Weights, batch: Any) -> Trainer:
    definition, params, rest = nnx.split(_Nnx(w, nnx.Rngs(0)), nnx.Param, ...)
    return jax_trainer(token_loss(lambda p, x: nnx.merge(definition, p, rest)(x)), params, batch, ADAMW)


class _EquinoxBlock(equinox.Module):
    norms: list[Any]
    attention: Any
    up: Any
    down: Any

    def __init__(self, w: Weights) -> None:
        key = jax.random.key(0)
        self.norms = [equinox.nn.LayerNorm(D) for _ in range(2)]
        parts = {f"use_{part}_bias": True for part in ("query", "key", "value", "output")}
        attention = equinox.nn.MultiheadAttention(HEADS, D, key=key, **parts)
        names = {"q": "query_proj", "k": "key_proj", "v": "value_proj", "out": "output_proj"}
        for name, part in names.items():
            attention = equinox.tree_at(lambda m, part=part: getattr(m, part), attention, _eqx_linear(w[name]))
        self.attention, self.up, self.down = attention, _eqx_linear(w["up"]), _eqx_linear(w["down"])

    def __call__(self, x: Any, mask: Any) -> Any:
        h = jax.vmap(self.norms[0])(x)
        x = x + self.attention(h, h, h, mask=mask)
        return x + jax.vmap(lambda x: self.down(jax.nn.gelu(self.up(self.norms[1](x)))))(x)


def _eqx_linear(w: np.ndarray) -> Any:
    layer = equinox.nn.Linear(*w.shape, key=jax.random.key(0))
    return equinox.tree_at(lambda m: (m.weight, m.bias), layer, (jnp.asarray(w.T), jnp.zeros(w.shape[1])))


def _equinox(w: Weights, batch: Any) -> Trainer:
    model = {"tokens": jnp.asarray(w["tokens"]), "positions": jnp.asarray(w["positions"])}
    model |= {"blocks": [_EquinoxBlock(b) for b in w["blocks"]], "norm": equinox.nn.LayerNorm(D)}
    params, static = equinox.partition(model, equinox.is_inexact_array)
    mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))

    def one(model: Any, ids: Any) -> Any:
        x = model["tokens"][ids] + model["positions"]
        for block in model["blocks"]:
            x = block(x, mask)
        return jax.vmap(model["norm"])(x) @ model["tokens"].T

    return jax_trainer(
        token_loss(lambda p, x: jax.vmap(partial(one, equinox.combine(p, static)))(x)), params, batch, ADAMW
    )


def _haiku(w: Weights, batch: Any) -> Trainer:
    zeros = haiku.initializers.Constant(0.0)

    def norm() -> Any:
        return haiku.LayerNorm(-1, True, True)

    def logits(ids: Any) -> Any:
        embed = haiku.Embed(VOCAB, D, name="tokens")
        x = embed(ids) + haiku.get_parameter("positions", (LENGTH, D), init=zeros)
        mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))[None, None]
        for i in range(DEPTH):
            attention = haiku.MultiHeadAttention(HEADS, D // HEADS, w_init=zeros, model_size=D, name=f"attention{i}")
            h = norm()(x)
            x = x + attention(h, h, h, mask=mask)
            h = jax.nn.gelu(haiku.Linear(4 * D, name=f"up{i}")(norm()(x)))
            x = x + haiku.Linear(D, name=f"down{i}")(h)
        return norm()(x) @ embed.embeddings.T

    model = haiku.without_apply_rng(haiku.transform(logits))
    params: Any = model.init(jax.random.key(0), jnp.asarray(batch[0]))
    params["tokens"]["embeddings"], params["~"]["positions"] = w["tokens"], w["positions"]
    for i, block in enumerate(w["blocks"]):
        for name, part in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "linear")):
            params[f"attention{i}/{part}"]["w"] = block[name]
        params[f"up{i}"]["w"], params[f"down{i}"]["w"] = block["up"], block["down"]
    return jax_trainer(token_loss(model.apply), params, batch, ADAMW)


class TorchBlock(torch.nn.Module):
    def __init__(self, w: Weights) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(D), torch.nn.LayerNorm(D)
        self.qkv, self.out = linear(np.concatenate([w[name] for name in "qkv"], 1)), linear(w["out"])
        self.up, self.down = linear(w["up"]), linear(w["down"])

    def forward(self, x: Any, cache: Any = None) -> Any:
        """`cache` is a pair of lists, to which the keys and values of `x` are added."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache[:] = [torch.cat([old, new], 2) for old, new in zip(cache, (k, v), strict=True)]
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, D))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class TorchGPT(torch.nn.Module):
    def __init__(self, w: Weights) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(VOCAB, D), torch.nn.Embedding(LENGTH, D)
        fill(self.tokens.weight, w["tokens"])
        fill(self.positions.weight, w["positions"])
        self.blocks = torch.nn.ModuleList(TorchBlock(b) for b in w["blocks"])
        self.norm = torch.nn.LayerNorm(D)

    def forward(self, ids: Any, cache: Any = None, at: int = 0) -> Any:
        x = self.tokens(ids) + self.positions.weight[at : at + ids.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[i])
        return self.norm(x) @ self.tokens.weight.T


def _torch(w: Weights, batch: Any, compiled: bool = False) -> Trainer:
    def loss(model: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x).reshape(-1, VOCAB), y.reshape(-1))

    def adamw(params: Any) -> Any:
        return torch.optim.AdamW(params, RATE, weight_decay=DECAY, fused=True)

    return torch_trainer(TorchGPT(w), loss, batch, adamw, clip=CLIP, compiled=compiled)


ADAMW = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))
