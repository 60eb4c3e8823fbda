"""A layer with one input: what the layer properties are checked on."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.nn import EVAL, Layer, Mode, training

__all__ = ["Case", "assert_close", "is_float", "program", "scalar"]


@dataclass(frozen=True)
class Case:
    """A layer with one input (an array or a tree of arrays), and what the properties are checked with."""

    layer: Layer
    x: Any
    batched: bool  # whether axis 0 of x holds independent examples
    unbiased: bool | None  # whether the mean of many training outputs is the evaluation output
    scale: tuple[float, float]  # bounds on the root mean square of the output, fresh weights and an input of scale 1
    unused: tuple[str, ...]  # globs of parameters whose gradient is zero by design
    inputs: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `apply` beside x

    @cached_property
    def params(self) -> Any:
        return jax.jit(self.layer.init)(jax.random.key(1))

    @cached_property
    def state(self) -> Any:
        return self.layer.init_state()

    @cached_property
    def modes(self) -> dict[str, Mode]:
        return {"evaluation": EVAL, "training": training(jax.random.key(2))}

    @cached_property
    def ways(self) -> dict[str, Mode]:
        """The modes that make different programs: one of the two where training computes what evaluation does."""

        def traced(mode: Mode) -> Any:
            return jax.make_jaxpr(lambda params, state, x: self.run(params, state, x, mode))(
                self.params, self.state, self.x
            )

        same = program(traced(self.modes["evaluation"])) == program(traced(self.modes["training"]))
        return {"evaluation": self.modes["evaluation"]} if same else self.modes

    @cached_property
    def traces(self) -> dict[bool, int]:
        """How often `jitted` was traced in evaluation (False) and in training (True)."""
        return {False: 0, True: 0}

    @cached_property
    def jitted(self) -> Callable[..., tuple[Any, Any]]:
        """`run`, compiled once a mode for all the properties that need it."""

        def step(params: Any, state: Any, x: Any, mode: Mode) -> tuple[Any, Any]:
            self.traces[mode.train] += 1
            return self.run(params, state, x, mode)

        return jax.jit(step)

    @cached_property
    def gradients(self) -> tuple[Any, list[Any]]:
        """The gradient in training under `jax.checkpoint`, by the parameters and by the floating-point leaves of x."""
        return jax.jit(jax.grad(jax.checkpoint(self.loss), (0, 1)))(self.params, self.floats)

    @cached_property
    def direction(self) -> Any:
        """A random direction in (params, x), float64."""
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda a: rng.standard_normal(np.shape(a)), (self.params, self.x))

    @cached_property
    def slopes(self) -> dict[str, tuple[float, float, float]]:
        """By mode, in float64: `scalar`, its derivative along `direction`, and the same by central differences."""
        with jax.enable_x64(True):
            x, inputs = jax.tree.map(_wide, (self.x, dict(self.inputs)))
            held = replace(self, x=x, inputs=inputs)
            held.__dict__["params"] = jax.tree.map(_wide, self.params)
            held.__dict__["state"] = jax.tree.map(_wide, self.state)
            return {
                name: _slope(held, mode, jax.tree.map(jnp.asarray, self.direction)) for name, mode in self.ways.items()
            }

    @property
    def floats(self) -> list[Any]:
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(self.x) if is_float(leaf)]

    def loss(self, params: Any, floats: list[Any]) -> Any:
        """`scalar` in training, as a function of what can be differentiated."""
        moved = iter(floats)
        x = jax.tree.map(lambda leaf: next(moved) if is_float(leaf) else leaf, self.x)
        return scalar(self, self.modes["training"])(params, x)

    @property
    def differentiable(self) -> bool:
        return any(map(is_float, jax.tree.leaves(self.x)))

    def run(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Any, Any]:
        return self.layer.apply(params, state, x, mode, **self.inputs)

    def evaluate(self, mode: str) -> tuple[Any, Any]:
        """`run` on x, eagerly, once a mode: eager execution compiles a loop anew each time."""
        if mode not in self._seen:
            self._seen[mode] = self.run(self.params, self.state, self.x, self.modes[mode])
        return self._seen[mode]

    @cached_property
    def _seen(self) -> dict[str, tuple[Any, Any]]:
        return {}

    def varied(self, fn: Callable[[Any], Any]) -> Any:
        """x with `fn` applied to what may vary: its floating-point leaves; all of them where there are none."""
        return jax.tree.map(lambda a: fn(a) if is_float(a) or not self.differentiable else a, self.x)


def program(traced: Any) -> str:
    """What a jaxpr says, without addresses of Python's objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(traced))


def is_float(a: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(a), jnp.inexact)


def assert_close(got: Any, want: Any, what: str, tolerance: float = 1e-5) -> None:
    for (path, a), b in zip(tree.flatten(got).items(), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        bound = tolerance * max(1.0, float(np.max(np.abs(b), initial=0.0)))
        worst = float(np.max(np.abs(a - b), initial=0.0))
        assert worst <= bound, f"{what}: {path or 'the output'} differs by {worst:.3g} (tolerance {bound:.1g})"


def _wide(a: Any) -> Any:
    a = np.asarray(a)
    return jnp.asarray(a, jnp.float64 if jnp.issubdtype(a.dtype, jnp.inexact) else a.dtype)


def _slope(case: Case, mode: Mode, direction: Any, h: float = 1e-6) -> tuple[float, float, float]:
    fn = scalar(case, mode)

    def along(t: Any) -> Any:
        moved = jax.tree.map(lambda a, d: a + t * d if is_float(a) else a, (case.params, case.x), direction)
        return fn(*moved)

    both = jax.jit(jax.value_and_grad(along))
    value, exact = map(float, both(0.0))
    return value, exact, float(both(h)[0] - both(-h)[0]) / (2 * h)


def scalar(case: Case, mode: Mode) -> Callable[[Any, Any], Any]:
    """A scalar of the output that weighs each element differently, as a function of (params, x)."""

    def fn(params: Any, x: Any) -> Any:
        y, _ = case.run(params, case.state, x, mode)
        leaves = list(filter(is_float, jax.tree.leaves(y)))
        weights = [jnp.cos(1.0 + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape) for leaf in leaves]
        return sum(jnp.sum(w * leaf) for w, leaf in zip(weights, leaves, strict=True))

    return fn
