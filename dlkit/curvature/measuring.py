"""One compiled program that measures a model while it trains: curvature, noise, and each layer's gradients."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dlkit import tree
from dlkit.curvature.noise import unbiased
from dlkit.curvature.objective import Term
from dlkit.optim.second_order import vectors
from dlkit.train import Task

__all__: list[str] = []


def measure(
    task: Task, steps: int, probes: int, parts: int, stacked: tuple[tuple[str, int], ...], params: Any, before: Any,
    state: Any, batch: Mapping[str, Any], key: Any,
) -> dict[str, Any]:  # fmt: skip
    """The tridiagonal matrix of Lanczos, samples of the trace, and norms by leaf.

    `before` is the parameters of one step earlier. With `parts` above 1 the batch is cut into so many for the noise.
    """
    term = Term(task, None, False)
    x, back = vectors.flat(params)

    def gradient(x: Array) -> Array:
        return jax.grad(lambda x: term.value(back(x), state, batch))(x)

    grad, product = jax.linearize(gradient, x)
    start, draws = jax.random.split(key)
    alpha, beta = _lanczos(product, jax.random.normal(start, x.shape, x.dtype), steps)

    def sample(key: Any) -> Array:
        z = jax.random.rademacher(key, x.shape, x.dtype)
        return jnp.vdot(z, product(z))

    found: dict[str, Any] = {"alpha": alpha, "beta": beta}
    found["trace"] = jax.lax.map(sample, jax.random.split(draws, probes))
    if parts > 1:
        cut = jax.tree.map(lambda a: a.reshape(parts, a.shape[0] // parts, *a.shape[1:]), dict(batch))

        def part(piece: Any) -> Array:
            g = jax.grad(lambda x: term.value(back(x), state, piece))(x)
            return jnp.vdot(g, g)

        rows = next(iter(batch.values())).shape[0]
        small = jnp.mean(jax.lax.map(part, cut))
        total = jnp.asarray(rows, x.dtype)
        found["noise"] = jnp.stack(unbiased(small, jnp.vdot(grad, grad), total / parts, total))
    leads = dict(stacked)
    grads, now, earlier = (tree.flatten(t) for t in (back(grad), params, before))
    found["grad_norm"] = {path: vectors.norm(g) for path, g in grads.items()}
    found["weight_norm"] = {path: vectors.norm(w) for path, w in now.items()}
    found["update_norm"] = {
        path: vectors.norm(vectors.subtract(vectors.wide(now[path]), vectors.wide(earlier[path]))) for path in now
    }
    found["dead"] = {
        path: _dead(g, leads.get(path, 0)) for path, g in grads.items() if g.ndim - leads.get(path, 0) >= 2
    }
    return found


def _dead(grad: Array, lead: int) -> Array:
    """The share of outputs none of whose weights has a gradient."""
    axes = tuple(range(lead, grad.ndim - 1))
    return jnp.mean((jnp.max(jnp.abs(grad), axis=axes) == 0).astype(jnp.float32))


def _lanczos(product: Any, start: Array, steps: int) -> tuple[Array, Array]:
    """alpha and beta `[steps]`, every vector made orthogonal to all before it, on the device."""
    tiny = jnp.asarray(jnp.finfo(start.dtype).tiny, start.dtype)
    high = jax.lax.Precision.HIGHEST

    def body(carry: Any, i: Array) -> Any:
        basis, q = carry
        basis = jax.lax.dynamic_update_index_in_dim(basis, q, i, 0)
        w = product(q)
        alpha = jnp.vdot(q, w, precision=high)
        for _ in range(2):
            w = w - jnp.matmul(jnp.matmul(basis, w, precision=high), basis, precision=high)
        beta = jnp.linalg.norm(w)
        return (basis, w / jnp.maximum(beta, tiny)), (alpha, beta)

    q = start / jnp.maximum(jnp.linalg.norm(start), tiny)
    _, found = jax.lax.scan(body, (jnp.zeros((steps, start.size), start.dtype), q), jnp.arange(steps))
    return found


@functools.lru_cache(maxsize=16)
def program(task: Task, steps: int, probes: int, parts: int, stacked: tuple[tuple[str, int], ...]) -> Any:
    return jax.jit(functools.partial(measure, task, steps, probes, parts, stacked))
