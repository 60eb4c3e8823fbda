"""equinox: modules on one example, `jax.vmap`, `eqx.filter_jit`, channels first."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import Trainer

from peers.problem import BLOCKS, CLASSES, LEARNING_RATE, WIDTHS, Problem

KEY = jax.random.key(0)


class MLP(eqx.Module):
    layers: list[Any]

    def __init__(self) -> None:
        self.layers = [eqx.nn.Linear(a, b, key=KEY) for a, b in itertools.pairwise(WIDTHS)]

    def __call__(self, x: Any, state: Any) -> Any:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x), state


class CNN(eqx.Module):
    layers: list[Any]
    pool: Any

    def __init__(self) -> None:
        self.layers = [eqx.nn.Conv2d(a, b, 3, padding=1, key=KEY) for a, b in ((1, 32), (32, 64))]
        self.layers.append(eqx.nn.Linear(14 * 14 * 64, CLASSES, key=KEY))
        self.pool = eqx.nn.MaxPool2d(2, 2)

    def __call__(self, x: Any, state: Any) -> Any:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](self.pool(x).ravel()), state


class ResNet20(eqx.Module):
    layers: list[Any]
    norms: list[Any]

    def __init__(self) -> None:
        shapes = [(3, 16, 1), *(c for a, b, s in BLOCKS for c in ((a, b, s), (b, b, 1)))]
        self.layers = [eqx.nn.Conv2d(a, b, 3, s, 1, use_bias=False, key=KEY) for a, b, s in shapes]
        self.norms = [eqx.nn.BatchNorm(b, "batch", momentum=0.9, mode="batch") for _, b, _ in shapes]
        self.layers.append(eqx.nn.Linear(64, CLASSES, key=KEY))

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.norms[0](self.layers[0](x), state)
        x = jax.nn.relu(x)
        for i, (c_in, c_out, stride) in enumerate(BLOCKS):
            y, state = self.norms[2 * i + 1](self.layers[2 * i + 1](x), state)
            y, state = self.norms[2 * i + 2](self.layers[2 * i + 2](jax.nn.relu(y)), state)
            more = (c_out - c_in) // 2
            x = jax.nn.relu(jnp.pad(x[:, ::stride, ::stride], ((more, more), (0, 0), (0, 0))) + y)
        return self.layers[-1](x.mean((1, 2))), state


def trainer(problem: Problem) -> Trainer:
    model, state = eqx.nn.make_with_state({"mlp": MLP, "cnn": CNN, "resnet20": ResNet20}[problem.name])()
    take = problem.take()

    def fill(layer: Any) -> Any:
        w, b = take(), layer.bias
        if w.ndim == 4:
            w = w.transpose(3, 2, 0, 1)
        elif problem.name == "cnn":
            w = w.reshape(14, 14, 64, -1).transpose(3, 2, 0, 1).reshape(CLASSES, -1)
        else:
            w = w.T
        layer = eqx.tree_at(lambda a: a.weight, layer, jnp.asarray(np.ascontiguousarray(w)))
        return layer if b is None else eqx.tree_at(lambda a: a.bias, layer, jnp.asarray(take().reshape(b.shape)))

    model = eqx.tree_at(lambda m: m.layers, model, [fill(layer) for layer in model.layers])
    tx = optax.adam(LEARNING_RATE)
    x = problem.x if problem.x.ndim == 2 else np.ascontiguousarray(problem.x.transpose(0, 3, 1, 2))
    x, y = jnp.asarray(x), jnp.asarray(problem.y)

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, model: Any, state: Any, opt_state: Any) -> Any:
        def loss(model: Any) -> Any:
            run = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            logits, new = run(batch[0], state)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), new

        (value, new), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        updates, opt_state = tx.update(grads, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return (eqx.apply_updates(model, updates), new, opt_state), value

    carry = [(model, state, tx.init(eqx.filter(model, eqx.is_inexact_array)))]
    count = sum(a.size for a in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))

    def run() -> Any:
        carry[0], value = step((x, y), *carry[0])
        return value

    return Trainer(run, lambda: jax.block_until_ready(jax.tree.leaves(eqx.filter(carry[0], eqx.is_array))), count)
