"""The layer kit catches what it is there to catch: each planted fault fails exactly by the property named for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit.nn import EVAL, Chain, Dropout, Layer, Pure, Residual, Stack
from dlkit.testing import PROPERTIES, check_layer

X = jax.random.normal(jax.random.key(0), (4, 32))


@dataclass(frozen=True)
class Dense(Pure):
    d_in: int
    d_out: int
    std: float | None = None

    def init(self, key):
        std = self.d_in**-0.5 if self.std is None else self.std
        return {"w": std * jax.random.normal(key, (self.d_in, self.d_out)), "b": jnp.zeros(self.d_out)}

    def __call__(self, params, x):
        return x @ params["w"] + params["b"][None]


@dataclass(frozen=True)
class Drop(Layer):
    rate: float = 0.5
    rescale: bool = True

    def apply(self, params, state, x, mode):
        key = mode.rng("drop")
        if key is None:
            return x, None
        kept = jnp.where(jax.random.bernoulli(key, 1 - self.rate, x.shape), x, jnp.zeros_like(x))
        return kept / (1 - self.rate) if self.rescale else kept, None


@dataclass(frozen=True)
class Calls(Layer):
    """Counts its calls."""

    def init_state(self):
        return {"n": jnp.zeros((), jnp.int32)}

    def apply(self, params, state, x, mode):
        return x, {"n": state["n"] + 1}


@dataclass(frozen=True)
class Block(Layer):
    dense: Dense = Dense(32, 32)
    drop1: Drop = Drop()
    drop2: Drop = Drop(0.2)
    calls: Calls = Calls()

    def apply(self, params, state, x, mode):
        h, _ = self.drop1.apply(params["drop1"], None, self.dense(params["dense"], x), mode.at("drop1"))
        h, _ = self.drop2.apply(params["drop2"], None, h, mode.at("drop2"))
        h, calls = self.calls.apply(params["calls"], state["calls"], h, mode)
        return h, {"calls": calls}


@pytest.mark.parametrize(
    "layer",
    [Dense(32, 8), Drop(), Calls(), Block(), Stack(Block(), 2), Residual(Block()), Chain(Dense(32, 32), Drop(0.1))],
    ids=lambda layer: type(layer).__name__,
)
def test_sound_layers_pass(layer):
    check_layer(layer, X)


# --- planted faults: (layer, the property that must fail) ------------------------------------------------------------


@dataclass(frozen=True)
class WrongAxis(Pure):
    def __call__(self, params, x):
        return x - jnp.mean(x, axis=0, keepdims=True)


@dataclass(frozen=True)
class SameKey(Block):
    def apply(self, params, state, x, mode):
        h, _ = self.drop1.apply(params["drop1"], None, self.dense(params["dense"], x), mode)
        h, _ = self.drop2.apply(params["drop2"], None, h, mode)
        return h, state


@dataclass(frozen=True)
class ConsumedTwice(Layer):
    def apply(self, params, state, x, mode):
        key = mode.rng("noise")
        if key is None:
            return x, None
        return x + jax.random.normal(key, x.shape) + jax.random.normal(key, x.shape), None


@dataclass(frozen=True)
class WeakState(Calls):
    def init_state(self):
        return {"n": jnp.asarray(0)}


@dataclass(frozen=True)
class PythonState(Calls):
    def init_state(self):
        return {"n": 0}


@dataclass(frozen=True)
class FloatingState(Calls):
    def apply(self, params, state, x, mode):
        return x, {"n": state["n"].astype(jnp.float32) + 1.0}


@dataclass(frozen=True)
class ForgottenState(Calls):
    def apply(self, params, state, x, mode):
        return x, (state if mode.train else None)


@dataclass(frozen=True)
class Widening(Dense):
    def __call__(self, params, x):
        return (x @ params["w"] + params["b"][None]).astype(jnp.float32)


@dataclass(frozen=True)
class NoisyEval(Layer):
    def apply(self, params, state, x, mode):
        return (x if mode.key is None else x + jax.random.normal(mode.key, x.shape)), None


@dataclass(frozen=True)
class DeadBias(Dense):
    def __call__(self, params, x):
        return x @ params["w"] + jax.lax.stop_gradient(params["b"])[None]


@jax.custom_vjp
def wrong_square(x):
    return x * x


wrong_square.defvjp(lambda x: (x * x, x), lambda x, g: (x * g,))  # the factor 2 is missing


@dataclass(frozen=True)
class WrongGradient(Dense):
    def __call__(self, params, x):
        return wrong_square(x @ params["w"] + params["b"][None])


@dataclass(frozen=True)
class Unhashable(Pure):
    sizes: Any = None

    def __call__(self, params, x):
        return x


@dataclass(frozen=True, eq=False)
class ByIdentity(Pure):
    def __call__(self, params, x):
        return x


@dataclass(frozen=True)
class Fickle(Dense):
    def init(self, key):
        return {"w": jnp.asarray(np.random.standard_normal((32, 8)), jnp.float32), "b": jnp.zeros(8)}  # noqa: NPY002


@dataclass(frozen=True)
class Untraceable(Pure):
    def __call__(self, params, x):
        return x if float(jnp.sum(x)) > 0 else -x


@dataclass(frozen=True)
class Impure(Pure):
    def __call__(self, params, x):
        return x + jnp.asarray(np.random.standard_normal(), x.dtype)  # noqa: NPY002


@dataclass(frozen=True)
class FixedKey(Layer):
    def apply(self, params, state, x, mode):
        kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
        return (2 * jnp.where(kept, x, jnp.zeros_like(x)) if mode.train else x), None


@dataclass(frozen=True)
class ForgetsMode(Layer):
    drop: Dropout = Dropout(0.5)

    def apply(self, params, state, x, mode):
        return self.drop.apply(params["drop"], None, x, EVAL)


@dataclass(frozen=True)
class CountingDrop(Calls):
    def apply(self, params, state, x, mode):
        return Drop(rescale=False).apply({}, None, x, mode)[0], {"n": state["n"] + 1}


FAULTS: list[tuple[str, Callable[[], Layer], str]] = [
    ("reduces over the batch", WrongAxis, "independence"),
    ("two children share a key", SameKey, "keys"),
    ("a key is consumed twice", ConsumedTwice, "keys"),
    ("dropout without the scale", lambda: Drop(rescale=False), "training mean"),
    ("dropout without the scale that also remembers", CountingDrop, "training mean"),
    ("the same mask in every step", FixedKey, "training draws"),
    ("a child is told EVAL in training", ForgetsMode, "training draws"),
    ("weights without the scale", lambda: Dense(32, 8, std=4.0), "fresh scale"),
    ("the state starts weakly typed", WeakState, "strong types"),
    ("the state starts as a Python number", PythonState, "strong types"),
    ("the state changes its dtype", FloatingState, "state type"),
    ("the state changes its dtype, so it is traced again", FloatingState, "traced once"),
    ("the state is dropped in evaluation", ForgottenState, "state type"),
    ("bfloat16 becomes float32", lambda: Widening(32, 8), "dtype"),
    ("evaluation draws", NoisyEval, "eval draws nothing"),
    ("a parameter out of reach", lambda: DeadBias(32, 8), "gradient reaches"),
    ("a wrong custom gradient", lambda: WrongGradient(32, 8), "gradient"),
    ("a field that is a list", lambda: Unhashable([1, 2]), "value"),
    ("a field that is a lambda", lambda: Unhashable(lambda x: x), "value"),
    ("compared by identity", ByIdentity, "value"),
    ("init ignores its key", lambda: Fickle(32, 8), "init"),
    ("Python branches on values", Untraceable, "jit"),
    ("numpy's global generator", Impure, "jit"),
]


@pytest.mark.parametrize(("fault", "make", "prop"), FAULTS, ids=[f"{name}-{p}" for name, _, p in FAULTS])
def test_planted_faults_are_caught(fault, make, prop):
    with pytest.raises(AssertionError, match=f"(?m)^{prop}: "):
        check_layer(make(), X, only=[prop])


def test_unknown_property_is_named():
    with pytest.raises(ValueError, match=r"no property is called \['grad'\]; there are value, init"):
        check_layer(Dense(32, 8), X, skip=["grad"])
    assert len(PROPERTIES) == 18
