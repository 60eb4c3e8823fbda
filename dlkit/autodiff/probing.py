"""Derivatives by finite differences and by either mode: along random directions, and element by element."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.autodiff.causes import Probe

__all__ = ["Problem", "differences", "probe", "slopes", "total"]

Mode = Literal["forward", "reverse"]


@dataclass(frozen=True)
class Problem:
    """A function of its differentiable leaves alone, weighted to one number, and what it is called in messages."""

    run: Callable[[Sequence[Any]], Any]
    leaves: tuple[Any, ...]
    paths: tuple[str, ...]
    modes: tuple[Mode, ...]
    order: int


def total(parts: Sequence[Any]) -> Any:
    wide = jnp.result_type(*(p.dtype for p in parts))
    total = jnp.zeros((), wide)
    for p in parts:
        total = total + jnp.sum(p).astype(wide)
    return total


def slopes(problem: Problem, at: list[Any], pairs: Sequence[tuple[int, int]], seed: int) -> dict[str, Any]:
    """For each (leaf, number of a direction): the slope by differences and by either mode."""
    gradient = jax.grad(lambda x: total(problem.run(x)))(at) if "reverse" in problem.modes else at

    def one(item: Any) -> dict[str, Any]:
        leaf, number = item
        v = [jnp.where(leaf == k, _signs(a, number, seed), jnp.zeros_like(a)) for k, a in enumerate(at)]
        out = differences(problem.run, at, v)
        if "reverse" in problem.modes:
            out["reverse"] = total([g * x for g, x in zip(gradient, v, strict=True)])
        if "forward" in problem.modes:
            out["forward"] = total(jax.jvp(problem.run, (at,), (v,))[1])
        return out

    leaf, number = (jnp.asarray([pair[n] for pair in pairs], jnp.uint32) for n in (0, 1))
    return jax.lax.map(one, (leaf, number))


def _signs(like: Any, number: Any, seed: int) -> Any:
    """A vector of random signs and sizes (1/2 to 3/2) and of norm about 1, by a hash of the positions.

    The hash multiplies and shifts, which compiles faster than the draws of a key. Sizes differ so that exchanged
    elements do not go unnoticed.
    """
    bits = jnp.arange(like.size, dtype=jnp.uint32) + number * jnp.uint32(0x9E3779B9) + jnp.uint32(seed)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    signs = 1 - 2 * (bits >> 31).astype(like.dtype)
    sizes = 0.5 + ((bits >> 8) & 0xFF).astype(like.dtype) / 256
    return (signs * sizes / max(like.size, 1) ** 0.5).reshape(like.shape)


def differences(run: Callable[[Any], Any], at: list[Any], v: list[Any]) -> dict[str, Any]:
    """The slope of the total along `v`, its errors, and the one-sided slopes at h and h/2."""
    eps = max(float(jnp.finfo(a.dtype).eps) for a in at)
    moving = [(a, x) for a, x in zip(at, v, strict=True) if a.size]
    largest = [jnp.max(jnp.where(x == 0, jnp.zeros_like(a), jnp.abs(a))).astype(jnp.float32) for a, x in moving]
    h = jnp.asarray(eps**0.25, jnp.float32) * jnp.maximum(jnp.max(jnp.stack(largest)), jnp.float32(1))

    def value(t: Any) -> Any:
        return run([a + t.astype(a.dtype) * x for a, x in zip(at, v, strict=True)])

    offsets = jnp.stack([h, h / 2, 0 * h, -h / 2, -h])
    parts = jax.lax.map(value, offsets)
    middle = jax.tree.map(lambda p: p[2], parts)
    # Differences before sums: what does not change then cancels exactly.
    wide = jnp.result_type(*(p.dtype for p in parts))
    change = [total([(p[i] - m) for p, m in zip(parts, middle, strict=True)]) for i in (0, 1, 3, 4)]
    step = h.astype(wide)
    up, near_up, near_down, down = change[0] / step, 2 * change[1] / step, -2 * change[2] / step, -change[3] / step
    wide_slope, near_slope = (up + down) / 2, (near_up + near_down) / 2
    slope = (4 * near_slope - wide_slope) / 3
    size = total([jnp.abs(m) for m in middle])
    noise = jnp.asarray(20 * eps, wide) * size / step
    rough = jnp.minimum(jnp.abs(wide_slope - near_slope), jnp.asarray(0.02, wide) * jnp.abs(slope))
    return {
        "slope": slope, "noise": noise, "truncation": rough,
        "up": up, "down": down, "near_up": near_up, "near_down": near_down,
    }  # fmt: skip


def probe(problem: Problem, k: int, rtol: float, most: int, seed: int) -> Probe:
    """The derivatives by each element of one leaf, by differences and either mode, at the point and two others."""
    leaf = problem.leaves[k]
    chosen = np.unique(np.linspace(0, max(leaf.size - 1, 0), min(leaf.size, most)).astype(int))
    rng = np.random.default_rng(seed)
    shift = [1.0 + 0.15 * rng.uniform(-1, 1, (3, *a.shape)) for a in problem.leaves]
    for s in shift:
        s[0] = 1.0

    def one(item: Any, at: list[Any]) -> dict[str, Any]:
        hit = (jnp.arange(leaf.size) == item).reshape(leaf.shape)
        v = [hit.astype(a.dtype) if n == k else jnp.zeros_like(a) for n, a in enumerate(at)]
        out = differences(problem.run, at, v)
        if "forward" in problem.modes:
            out["forward"] = total(jax.jvp(problem.run, (at,), (v,))[1])
        return out

    def point(factors: list[Any]) -> dict[str, Any]:
        at = [a * f.astype(a.dtype) for a, f in zip(problem.leaves, factors, strict=True)]
        out = jax.lax.map(lambda i: one(i, at), jnp.asarray(chosen))
        if "reverse" in problem.modes:
            out["reverse"] = jnp.ravel(jax.grad(lambda x: total(problem.run(x)))(at)[k])[jnp.asarray(chosen)]
        out["x"] = jnp.ravel(at[k])[jnp.asarray(chosen)]
        return out

    found = jax.jit(lambda f: jax.lax.map(point, f))([jnp.asarray(s, jnp.float32) for s in shift])
    return Probe(tuple(leaf.shape), chosen, {name: np.asarray(v, np.float64) for name, v in found.items()}, rtol)
