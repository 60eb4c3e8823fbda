"""`check_transform` finds the faults that it is there for."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from dlkit import optim
from dlkit.testing import check_transform


class State(NamedTuple):
    count: Any
    seen: Any


@dataclass(frozen=True)
class Good(optim.Transform[State]):
    step: float = 0.1

    def init(self, params):
        return State(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: -self.step * g, grads), State(state.count + 1, state.seen)


class WeakCount(Good):
    def init(self, params):
        return super().init(params)._replace(count=jnp.asarray(0.0))


class CountTurnsFloat(Good):
    def update(self, grads, state, params=None):
        updates, state = super().update(grads, state, params)
        return updates, state._replace(count=state.count.astype(jnp.float32))


class StateLosesALeaf(Good):
    def update(self, grads, state, params=None):
        updates, state = super().update(grads, state, params)
        return updates, state._replace(seen=None)


class UpdatesInFloat32(Good):
    def update(self, grads, state, params=None):
        updates, state = super().update(grads, state, params)
        return jax.tree.map(lambda u: u.astype(jnp.float32), updates), state


class UpdatesInBfloat16(Good):
    def update(self, grads, state, params=None):
        updates, state = super().update(grads, state, params)
        return jax.tree.map(lambda u: u.astype(jnp.bfloat16), updates), state


class PromotesTheDtype(Good):
    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: g * jnp.float32(2), grads), state


class PromotesTheRank(Good):
    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: g - jnp.mean(g, axis=0), grads), state


class TurnsNoneIntoZero(Good):
    def update(self, grads, state, params=None):
        def step(g):
            return jnp.zeros(()) if g is None else g

        return jax.tree.map(step, grads, is_leaf=lambda g: g is None), state


class FailsAtNone(Good):
    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: -g, grads, is_leaf=lambda g: g is None), state


class UpdatesLoseALeaf(Good):
    def update(self, grads, state, params=None):
        updates, state = super().update(grads, state, params)
        return updates["block"], state


class NormalizesByZero(Good):
    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: g / jnp.sqrt(jnp.sum(g * g)), grads), state


class DependsOnPython(Good):
    calls = 0

    def update(self, grads, state, params=None):
        type(self).calls += 1
        return jax.tree.map(lambda g: g * type(self).calls, grads), state


class BranchesOnTracing(Good):
    def update(self, grads, state, params=None):
        factor = 2.0 if isinstance(state.count, jax.core.Tracer) else 1.0
        return jax.tree.map(lambda g: factor * g, grads), state


class ReadsValues(Good):
    def update(self, grads, state, params=None):
        jax.tree.map(lambda g: float(jnp.sum(g)), grads)
        return grads, state


class KeepsItsParameters(Good):
    def init(self, params):
        return super().init(params)._replace(seen=params)

    def update(self, grads, state, params=None):
        moved = jax.tree.map(lambda g, p, start: g + (p - start).astype(g.dtype), grads, params, state.seen)
        return moved, state


class GivesOneArrayTwice(Good):
    def init(self, params):
        state = super().init(params)
        return state._replace(seen=(state.seen, state.seen))


class ComparesByIdentity(Good):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


@dataclass(frozen=True)
class HoldsAFunction(Good):
    rule: Any = field(default_factory=lambda: lambda g: g)


@dataclass(frozen=True)
class HoldsAList(Good):
    betas: Any = field(default_factory=lambda: [0.9])


def test_a_good_one_passes():
    check_transform(Good())
    check_transform(optim.sgd(0.1, 0.9), {"any": jnp.ones(3), "names": (jnp.ones((2, 2)),)})


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (WeakCount, "count is weakly typed"),
        (CountTurnsFloat, "changes the type of its state"),
        (StateLosesALeaf, "changes the type of its state"),
        (UpdatesInFloat32, "is float32, narrower than its gradient .float64 parameters, float64 gradients"),
        (UpdatesInBfloat16, "is bfloat16, narrower than its gradient .float32 parameters, float32 gradients"),
        (PromotesTheDtype, r"raises .bfloat16 parameters, bfloat16 gradients.: TypePromotionError"),
        (PromotesTheRank, r"raises .float32 parameters, float32 gradients.: [\s\S]*rank"),
        (UpdatesLoseALeaf, "another structure or shape than the gradients"),
        (TurnsNoneIntoZero, r"a None or a scalar among the parameters is not left alone:\n.*head/b"),
        (FailsAtNone, "raises where a parameter is None or a scalar: TypeError"),
        (ReadsValues, "raises .float32 parameters, float32 gradients.: ConcretizationTypeError"),
        (NormalizesByZero, "zero gradients give"),
        (DependsOnPython, "different results for equal arguments"),
        (BranchesOnTracing, "jit and eager execution differ"),
        (KeepsItsParameters, "donated state and parameters: [^:]*: .*donate the same buffer twice"),
        (GivesOneArrayTwice, "donated state and parameters: [^:]*: .*donate the same buffer twice"),
        (ComparesByIdentity, "not equal to its pickled copy"),
        (HoldsAFunction, "does not print as a value"),
        (HoldsAList, "does not hash"),
    ],
)
def test_planted_faults(faulty, message):
    # As in a plain script: check_transform is strict by itself.
    strict = pytest.raises(AssertionError, match=message)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), strict:
        check_transform(faulty())


def test_wider_updates_than_gradients_are_right():
    """A moment in float32 beside bfloat16 gradients: rounding it back would lose digits."""
    check_transform(optim.chain(optim.trace(0.9, accumulator_dtype="float32"), optim.adamw(0.1)))


def _bowl(params):
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def test_extra_arguments_and_keys():
    """value= and obj_fn= reach `update`; a state with a typed key is compared by the key's numbers."""
    check_transform(optim.momo(), value=1.0)
    check_transform(optim.hutchinson_estimator_diag_hessian(jax.random.key(0)), obj_fn=_bowl)
    with pytest.raises(AssertionError, match="momo: it reads the loss"):
        check_transform(optim.momo())
