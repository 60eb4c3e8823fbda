"""The floor: `jax.jit` over plain lists and dicts and optax, written the obvious way."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from timing import Trainer

from peers.problem import BLOCKS, LEARNING_RATE, Problem


def conv(x: Any, w: Any, stride: int = 1) -> Any:
    return lax.conv_general_dilated(
        x, w, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def batch_norm(p: Any, s: Any, x: Any) -> Any:
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    y = (x - mean) * lax.rsqrt(var + 1e-5) * p["scale"] + p["shift"]
    return y, {"mean": 0.9 * s["mean"] + 0.1 * mean, "var": 0.9 * s["var"] + 0.1 * var}


def mlp(p: Any, state: Any, x: Any) -> Any:
    for i in (0, 2):
        x = jax.nn.relu(x @ p[i] + p[i + 1])
    return x @ p[4] + p[5], state


def cnn(p: Any, state: Any, x: Any) -> Any:
    for i in (0, 2):
        x = jax.nn.relu(conv(x, p[i]) + p[i + 1])
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ p[4] + p[5], state


def resnet20(p: Any, state: Any, x: Any) -> Any:
    new = []

    def conv_norm(x: Any, stride: int = 1) -> Any:
        i = len(new)
        y, s = batch_norm(p["norms"][i], state[i], conv(x, p["weights"][i], stride))
        new.append(s)
        return y

    x = jax.nn.relu(conv_norm(x))
    for c_in, c_out, stride in BLOCKS:
        y = conv_norm(jax.nn.relu(conv_norm(x, stride)))
        more = (c_out - c_in) // 2
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (more, more)))
        x = jax.nn.relu(x + y)
    return x.mean((1, 2)) @ p["weights"][-2] + p["weights"][-1], new


def trainer(problem: Problem) -> Trainer:
    apply = {"mlp": mlp, "cnn": cnn, "resnet20": resnet20}[problem.name]
    params: Any = [jnp.asarray(w) for w in problem.weights]
    state: Any = []
    if problem.name == "resnet20":
        sizes = [16] + [c for _, b, _ in BLOCKS for c in (b, b)]
        norms = [{"scale": jnp.ones(n), "shift": jnp.zeros(n)} for n in sizes]
        params = {"weights": params, "norms": norms}
        state = [{"mean": jnp.zeros(n), "var": jnp.ones(n)} for n in sizes]
    tx = optax.adam(LEARNING_RATE)
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)

    def step(params: Any, state: Any, opt_state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, new = apply(params, state, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    count = sum(a.size for a in jax.tree.leaves(params))
    carry = [(params, state, tx.init(params))]

    def run() -> Any:
        carry[0], value = compiled(*carry[0], x, y)
        return value

    return Trainer(run, lambda: jax.block_until_ready(carry[0]), count)
