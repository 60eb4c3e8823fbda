"""dlkit, as its README writes a step by hand."""

from typing import Any

import jax
import jax.numpy as jnp
from timing import Trainer

from dlkit import losses, models, nn, optim, tree
from peers.problem import CLASSES, LEARNING_RATE, WIDTHS, Problem


def trainer(problem: Problem) -> Trainer:
    model = {
        "mlp": lambda: models.mlp(WIDTHS),
        "cnn": lambda: nn.Chain(
            nn.Conv(1, 32, 3), nn.Relu(), nn.Conv(32, 64, 3), nn.Relu(), nn.MaxPool(2), nn.Flatten(),
            nn.Linear(14 * 14 * 64, CLASSES),
        ),
        "resnet20": lambda: models.resnet20(CLASSES),
    }[problem.name]()  # fmt: skip
    optimizer = optim.adam(LEARNING_RATE)

    def step(params: Any, state: Any, opt_state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, new = model.apply(params, state, x, nn.training(None))
            return losses.cross_entropy(logits, y).mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optim.apply_updates(params, updates), new, opt_state), value

    params = _fill(model, model.init(jax.random.key(0)), problem)
    carry = [(params, model.init_state(), optimizer.init(params))]
    count = tree.count(params)
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    compiled = jax.jit(step, donate_argnums=(0, 1, 2))

    def run() -> Any:
        carry[0], value = compiled(*carry[0], x, y)
        return value

    return Trainer(run, lambda: jax.block_until_ready(carry[0]), count)


def _fill(model: nn.Chain, params: Any, problem: Problem) -> Any:
    """`params` with the problem's weights, layer by layer in the order of the chain."""
    take = problem.take()

    def fill(layer: Any, params: Any) -> Any:
        if isinstance(layer, nn.BasicBlock):
            return fill(layer.build(), params)
        if isinstance(layer, nn.Residual):
            return {name: fill(getattr(layer, name), p) for name, p in params.items()}
        if isinstance(layer, nn.Chain):
            parts = zip(layer.names, layer.layers, strict=True)
            return {name: fill(part, params[name]) for name, part in parts if name in params}
        if isinstance(layer, nn.BatchNorm):
            return params
        return {name: jnp.asarray(take()) for name in ("w", "b") if name in params}

    return fill(model, params)
