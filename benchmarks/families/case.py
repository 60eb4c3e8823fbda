"""A layer in several libraries: forward and backward, with the output that all of them must agree on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import haiku
import jax
import jax.numpy as jnp
import numpy as np
import torch
from timing import Run

__all__ = ["Case", "Timed", "array", "equinox_run", "haiku_run", "jax_run", "nnx_run", "torch_run"]


@dataclass(frozen=True)
class Timed(Run):
    y: np.ndarray  # what the layer gives


@dataclass(frozen=True)
class Case:
    """`runs` are made when the case's turn comes. `other` says which compute another function, and why."""

    title: str
    runs: dict[str, Callable[[], Timed]]
    goal: float | None = None  # of torch's best
    other: tuple[str, ...] = ()


def array(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """Of variance 1 / (the product of all axes but the last)."""
    return array(*shape, seed=seed, scale=float(np.prod(shape[:-1])) ** -0.5)


def jax_run(fn: Callable[..., Any], *args: Any) -> Timed:
    """Forward and backward of `sum(fn(*args) * g)`, g random, with respect to all arguments."""
    args = jax.tree.map(jnp.asarray, args)
    y = jax.jit(fn)(*args)
    g = jnp.asarray(array(*y.shape, seed=1))
    floats = tuple(i for i, a in enumerate(args) if all(map(_is_float, jax.tree.leaves(a))))
    step = jax.jit(jax.value_and_grad(lambda *a: jnp.sum(fn(*a) * g), argnums=floats))
    held: list[Any] = [None]

    def run() -> None:
        held[0] = step(*args)

    return Timed(run, lambda: jax.block_until_ready(held[0]), np.asarray(y))


def _is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def nnx_run(module: Any, x: Any, call: Callable[[Any, Any], Any] = lambda module, x: module(x)) -> Timed:
    """Split and merged by hand under `jax.jit`: `nnx.jit` would add its own cost to every call."""
    from flax import nnx

    definition, params = nnx.split(module)
    x = jnp.asarray(x)
    y = jax.jit(lambda params, x: call(nnx.merge(definition, params), x))(params, x)
    g = jnp.asarray(array(*y.shape, seed=1))
    grad = nnx.value_and_grad(lambda module, x: jnp.sum(call(module, x) * g), argnums=(0, 1) if _is_float(x) else 0)
    step = jax.jit(lambda params, x: nnx.pure(grad(nnx.merge(definition, params), x)))
    held: list[Any] = [None]

    def run() -> None:
        held[0] = step(params, x)

    return Timed(run, lambda: jax.block_until_ready(held[0]), np.asarray(y))


def equinox_run(module: Any, x: Any, call: Callable[[Any, Any], Any] | None = None) -> Timed:
    """`call(module, x)` computes on a batch; by default the module is mapped over axis 0."""
    import equinox

    params, static = equinox.partition(module, equinox.is_array)
    whole = call or (lambda module, x: jax.vmap(module)(x))
    return jax_run(lambda params, x: whole(equinox.combine(params, static), x), params, x)


def haiku_run(fn: Callable[[Any], Any], x: Any, fill: Callable[[Any], Any]) -> Timed:
    """`fill` maps the parameters that haiku makes to those with the common weights."""
    made = haiku.without_apply_rng(haiku.transform(fn))
    params = fill(made.init(jax.random.key(0), jnp.asarray(x)))
    return jax_run(made.apply, params, x)


def torch_run(
    module: Any,
    x: np.ndarray,
    call: Callable[[Any, Any], Any] = lambda module, x: module(x),
    memory_format: Any = torch.contiguous_format,
) -> Timed:
    """Forward and backward with respect to parameters and input; channels first is the caller's matter."""
    given = torch.tensor(x).contiguous(memory_format=memory_format)
    if given.is_floating_point():
        given.requires_grad_(True)
    y = call(module, given)
    g = torch.tensor(array(*y.shape, seed=1)).contiguous(memory_format=memory_format)

    def run() -> None:
        module.zero_grad(set_to_none=True)
        given.grad = None
        call(module, given).backward(g)

    return Timed(run, lambda: None, y.detach().numpy())


def fill(target: Any, values: np.ndarray) -> None:
    """A torch parameter with these numbers."""
    with torch.no_grad():
        target.copy_(torch.tensor(np.ascontiguousarray(values)))
