"""haiku: `transform_with_state`, jitted and donated."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from timing import Trainer

from peers.problem import BLOCKS, CLASSES, LEARNING_RATE, WIDTHS, Problem


def mlp(x: Any) -> Any:
    for width in WIDTHS[1:-1]:
        x = jax.nn.relu(hk.Linear(width)(x))
    return hk.Linear(CLASSES)(x)


def cnn(x: Any) -> Any:
    for channels in (32, 64):
        x = jax.nn.relu(hk.Conv2D(channels, 3)(x))
    return hk.Linear(CLASSES)(hk.Flatten()(hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID")))


def resnet20(x: Any) -> Any:
    def conv_norm(x: Any, channels: int, stride: int = 1) -> Any:
        x = hk.Conv2D(channels, 3, stride, padding=[(1, 1), (1, 1)], with_bias=False)(x)
        return hk.BatchNorm(True, True, decay_rate=0.9, eps=1e-5)(x, is_training=True)

    x = jax.nn.relu(conv_norm(x, 16))
    for c_in, c_out, stride in BLOCKS:
        y = conv_norm(jax.nn.relu(conv_norm(x, c_out, stride)), c_out)
        more = (c_out - c_in) // 2
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (more, more)))
        x = jax.nn.relu(x + y)
    return hk.Linear(CLASSES)(x.mean((1, 2)))


def trainer(problem: Problem) -> Trainer:
    apply = {"mlp": mlp, "cnn": cnn, "resnet20": resnet20}[problem.name]
    model = hk.transform_with_state(apply)
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    params, state = model.init(jax.random.key(0), x)
    take = problem.take()

    def position(name: str) -> tuple[bool, int]:
        kind, _, number = name.rpartition("_")
        return name.startswith("linear"), int(number) if number.isdigit() and kind else 0

    for name in sorted((n for n in params if "w" in params[n]), key=position):
        params[name] = {leaf: jnp.asarray(take()) for leaf in ("w", "b") if leaf in params[name]}
    tx = optax.adam(LEARNING_RATE)

    def step(params: Any, state: Any, opt_state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, new = model.apply(params, state, None, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    carry = [(params, state, tx.init(params))]
    count = sum(a.size for a in jax.tree.leaves(params))

    def run() -> Any:
        carry[0], value = compiled(*carry[0], x, y)
        return value

    return Trainer(run, lambda: jax.block_until_ready(carry[0]), count)
