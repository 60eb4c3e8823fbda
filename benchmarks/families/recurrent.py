"""One layer of LSTM and GRU over whole sequences, all outputs."""

from collections.abc import Iterator
from typing import Any

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from dlkit import nn
from families.case import Case, Timed, array, equinox_run, fill, haiku_run, jax_run, nnx_run, torch_run, weight

D, BATCH = 256, 64


def cases() -> Iterator[Case]:
    for name, gates in (("LSTM", 4), ("GRU", 3)):
        w = {"input": weight(D, gates * D), "hidden": weight(D, gates * D, seed=1), "b": array(gates * D, scale=0.1)}
        for length in (64, 256):
            x = array(BATCH, length, D)
            layer = getattr(nn, name)(D, D)
            params = {
                "input": {"w": w["input"], "b": w["b"]},
                "hidden": {"w": w["hidden"], "b": np.zeros_like(w["b"])},
            }
            yield Case(
                f"{name} of {D} units, x {list(x.shape)}",
                {
                    "dlkit": lambda x=x, layer=layer, params=params: jax_run(
                        lambda params, x: layer.apply(params, None, x, nn.EVAL)[0], params, x
                    ),
                    "nnx": lambda x=x, name=name, w=w: _nnx(name, x, w),
                    "equinox": lambda x=x, name=name, w=w: _equinox(name, x, w),
                    "haiku": lambda x=x, name=name, w=w: _haiku(name, x, w),
                    "torch": lambda x=x, name=name, w=w: _torch(name, x, w),
                },
                goal=1.0,
                other=("haiku",) if name == "GRU" else (),  # it resets before the product
            )


def _torch(name: str, x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    layer = getattr(torch.nn, name)(D, D, batch_first=True)
    for target, values in (
        (layer.weight_ih_l0, w["input"].T),
        (layer.weight_hh_l0, w["hidden"].T),
        (layer.bias_ih_l0, w["b"]),
        (layer.bias_hh_l0, np.zeros_like(w["b"])),
    ):
        fill(target, values)
    return torch_run(layer, x, lambda layer, x: layer(x)[0])


def _nnx(name: str, x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    if name == "LSTM":
        cell = nnx.OptimizedLSTMCell(D, D, rngs=nnx.Rngs(0))
        cell.dense_h.bias[...] = jnp.asarray(w["b"])
    else:
        cell = nnx.GRUCell(D, D, rngs=nnx.Rngs(0))
        cell.dense_i.bias[...] = jnp.asarray(w["b"])
    cell.dense_i.kernel[...], cell.dense_h.kernel[...] = jnp.asarray(w["input"]), jnp.asarray(w["hidden"])
    start = jnp.zeros((BATCH, D))
    carry = (start, start) if name == "LSTM" else start
    return nnx_run(nnx.RNN(cell), x, lambda module, x: module(x, initial_carry=carry))


def _equinox(name: str, x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    made = {"LSTM": equinox.nn.LSTMCell, "GRU": equinox.nn.GRUCell}[name](D, D, key=jax.random.key(0))
    values = [jnp.asarray(a) for a in (w["input"].T, w["hidden"].T, w["b"])]
    made = equinox.tree_at(lambda m: (m.weight_ih, m.weight_hh, m.bias), made, values)
    if name == "GRU":
        made = equinox.tree_at(lambda m: m.bias_n, made, jnp.zeros(D))

    def whole(cell: Any, x: Any) -> Any:
        start = jnp.zeros((BATCH, D))

        def step(carry: Any, x: Any) -> Any:
            carry = jax.vmap(cell)(x, carry)
            return carry, (carry[0] if name == "LSTM" else carry)

        carry = (start, start) if name == "LSTM" else start
        return jax.lax.scan(step, carry, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    return equinox_run(made, x, whole)


def _haiku(name: str, x: np.ndarray, w: dict[str, np.ndarray]) -> Timed:
    def fn(x: Any) -> Any:
        core = getattr(haiku, name)(D)
        return haiku.dynamic_unroll(core, x, core.initial_state(BATCH), time_major=False)[0]

    def fill_lstm(params: Any) -> Any:
        i, f, g, o = np.split(np.concatenate([w["input"], w["hidden"]]), 4, axis=1)
        bi, bf, bg, bo = np.split(w["b"], 4)  # haiku adds 1 to the forget gate
        values = {"w": np.concatenate([i, g, f, o], 1), "b": np.concatenate([bi, bg, bf - 1, bo])}
        return {path: jax.tree.map(jnp.asarray, values) for path in params}

    return haiku_run(fn, x, fill_lstm if name == "LSTM" else lambda params: params)
