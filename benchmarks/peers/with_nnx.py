"""flax nnx: modules, `nnx.Optimizer`, `nnx.jit`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from timing import Trainer

from peers.problem import BLOCKS, CLASSES, LEARNING_RATE, WIDTHS, Problem


class MLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(WIDTHS[0], WIDTHS[1], rngs=rngs)
        self.second = nnx.Linear(WIDTHS[1], WIDTHS[2], rngs=rngs)
        self.third = nnx.Linear(WIDTHS[2], WIDTHS[3], rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.third(nnx.relu(self.second(nnx.relu(self.first(x)))))

    def weighted(self) -> list[Any]:
        return [self.first, self.second, self.third]


class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.second = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.head = nnx.Linear(14 * 14 * 64, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.head(nnx.max_pool(x, (2, 2), strides=(2, 2)).reshape(len(x), -1))

    def weighted(self) -> list[Any]:
        return [self.first, self.second, self.head]


class ConvNorm(nnx.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(c_in, c_out, (3, 3), strides=stride, padding=1, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(c_out, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.norm(self.conv(x))


class Block(nnx.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.first, self.second = ConvNorm(c_in, c_out, stride, rngs), ConvNorm(c_out, c_out, 1, rngs)
        self.stride, self.more = stride, (c_out - c_in) // 2

    def __call__(self, x: Any) -> Any:
        y = self.second(nnx.relu(self.first(x)))
        x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (self.more, self.more)))
        return nnx.relu(x + y)


class ResNet20(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = ConvNorm(3, 16, 1, rngs)
        self.blocks = nnx.List([Block(*sizes, rngs) for sizes in BLOCKS])
        self.head = nnx.Linear(64, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))

    def weighted(self) -> list[Any]:
        return [self.stem.conv, *(part.conv for b in self.blocks for part in (b.first, b.second)), self.head]


def trainer(problem: Problem) -> Trainer:
    model = {"mlp": MLP, "cnn": CNN, "resnet20": ResNet20}[problem.name](nnx.Rngs(0))
    take = problem.take()
    for layer in model.weighted():
        layer.kernel[...] = jnp.asarray(take())
        if layer.bias is not None:
            layer.bias[...] = jnp.asarray(take())
    optimizer = nnx.Optimizer(model, optax.adam(LEARNING_RATE), wrt=nnx.Param)
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        def loss(model: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    count = sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return Trainer(
        lambda: step(model, optimizer, x, y), lambda: jax.block_until_ready(jax.tree.leaves(nnx.state(model))), count
    )
