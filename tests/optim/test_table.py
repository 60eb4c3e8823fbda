"""The table of optimizers: a row for every recipe and building block, a column for every property.

A new optimizer joins by adding its row to `tests/optimizer_rows`.
"""

import copy
import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizer_rows import BLOCKS, RECIPES

from dlkit import optim, tree
from dlkit.testing import check_transform

TABLE = RECIPES | BLOCKS
OF_PATTERNS = {"adam_l2", "adamw", "lars", "add_decayed_weights", "masked", "freeze", "scale_by_depth"}


def given(name):
    """The extra arguments of `update`, as the row has them."""
    return dict(*TABLE[name][2:])


def others(names):
    """The names, and a mark on those that show an optimizer again: with options, or as another library has it."""
    again = [name in RECIPES and any(name.startswith(f"{other}_") for other in RECIPES) for name in names]
    again = [
        (a or name.startswith(("torch_", "keras_"))) and name not in {"momo_adam", "newton_cg"}
        for name, a in zip(names, again, strict=True)
    ]
    return [pytest.param(name, marks=pytest.mark.thorough if a else ()) for name, a in zip(names, again, strict=True)]


@pytest.mark.parametrize("name", others(TABLE))
def test_contract(name):
    """Prints, pickles, compares, hashes; types; jit = eager; one trace; donated; vmap; scan; pure; zeros; scalars."""
    check_transform(TABLE[name][0], **given(name))


@pytest.mark.parametrize("name", TABLE)
def test_state_snapshot(name):
    transform, paths = TABLE[name][:2]
    assert sorted(tree.flatten(jax.eval_shape(transform.init, {"w": jnp.ones(2)}))) == sorted(paths)


@pytest.mark.parametrize("name", TABLE)
def test_empty_tree(name):
    """No parameter, no update; a glob finds nothing in it, and says so."""
    transform = TABLE[name][0]
    if name in OF_PATTERNS:
        with pytest.raises(ValueError, match="matches none of the 0 paths"):
            transform.init({})
        return
    state = jax.eval_shape(transform.init, {})
    updates, after = jax.eval_shape(lambda state: transform.update({}, state, {}, **given(name)), state)
    assert updates == {}
    assert not tree.diff(state, after)


@pytest.mark.parametrize("name", TABLE)
def test_is_a_value(name):
    transform = TABLE[name][0]
    assert isinstance(transform, optim.Transform)
    assert dataclasses.is_dataclass(transform)
    assert copy.deepcopy(transform) == transform
    assert transform not in [other for key, (other, *_) in TABLE.items() if key != name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        transform.anything = 1


_rng = np.random.default_rng(0)
INPUTS = jnp.asarray(_rng.standard_normal((64, 3)), jnp.float32)
TARGETS = INPUTS @ jnp.array([1.0, -2.0, 0.5]) + 0.7


def loss(params):
    return jnp.mean(jnp.square(INPUTS @ params["out"]["w"] + params["out"]["b"] - TARGETS))


@pytest.mark.parametrize("name", RECIPES)
def test_converges(name):
    transform = RECIPES[name][0]
    params = {"out": {"w": jnp.zeros(3), "b": jnp.zeros(())}}
    needed = given(name)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        known = {"value": value, "obj_fn": loss, "grad_fn": lambda p, i: jax.grad(loss)(p)}
        extra = {key: known[key] for key in known if key in needed}
        updates, state = transform.update(grads, state, params, **extra)
        return (optim.apply_updates(params, updates), state), value

    @jax.jit
    def run(params):
        return jax.lax.scan(step, (params, transform.init(params)), None, length=200)[1]

    values = run(params)
    assert values[-1] < 1e-3 * values[0]


def test_sharded_over_8_devices():
    """The same updates and states as on one device, of every recipe, in a process of its own: it has 8 devices."""
    script = Path(__file__).with_name("sharded.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "as on one device\n", done.stderr[-4000:]


class TestInterop:
    """Both ways, with optax's objects as they come."""

    PARAMS = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([0.5])}
    GRADS = {"w": jnp.array([[0.3, 0.2]]), "b": jnp.array([-1.0])}

    def run(self, transform, steps=4, **extra):
        """The updates of a few steps; optax promotes types implicitly."""
        with jax.numpy_dtype_promotion("standard"):
            state, seen = transform.init(self.PARAMS), []
            functions = {key: extra.pop(key) for key in tuple(extra) if callable(extra[key])}
            update = jax.jit(functools.partial(transform.update, **functions))
            for _ in range(steps):
                updates, state = update(self.GRADS, state, self.PARAMS, **extra)
                seen.append(updates)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)

    def same(self, got, expected):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)

    def in_chain(self, name):
        transform = TABLE[name][0]
        if given(name):  # optax gives extra arguments to its own class alone
            transform = optax.GradientTransformationExtraArgs(transform.init, transform.update)
        return optax.chain(transform, optax.scale(0.5))

    @pytest.mark.parametrize("name", TABLE)
    def test_optax_chain_takes_it(self, name):
        """Its state keeps its type there too."""
        params = {"head": self.PARAMS, "embed": {"table": jnp.ones((2, 3))}}
        with jax.numpy_dtype_promotion("standard"):
            chained = self.in_chain(name)
            state = jax.eval_shape(chained.init, params)
            updates, after = jax.eval_shape(lambda *a: chained.update(*a, **given(name)), params, state, params)
        assert not tree.diff(state, after)
        assert jax.tree.structure(updates) == jax.tree.structure(params)

    @pytest.mark.parametrize("name", ["sgd_nesterov", "rmsprop_centered_momentum", "adamw_schedule", "clip_adamw"])
    def test_inside_optax_chain(self, name):
        halved = self.run(self.in_chain(name))
        self.same(jax.tree.map(lambda u: 2 * u, halved), self.run(TABLE[name][0]))

    @pytest.mark.parametrize("name", ["sgd_momentum", "adamw_schedule", "clip_adamw"])
    def test_inside_optax_wrappers(self, name):
        transform = TABLE[name][0]
        plain = self.run(transform)
        self.same(self.run(optax.apply_if_finite(transform, 3)), plain)
        self.same(self.run(optax.masked(transform, {"w": True, "b": True})), plain)
        only_w = self.run(optax.masked(transform, {"w": True, "b": False}))
        np.testing.assert_array_equal(only_w["b"][0], self.GRADS["b"])
        every_second = self.run(optax.MultiSteps(transform, 2))
        np.testing.assert_array_equal(every_second["w"][::2], 0)
        # The average of two equal gradients, in optax's running form, may be off by one rounding.
        np.testing.assert_allclose(every_second["w"][1::2], plain["w"][:2], rtol=1e-5)

    def test_skips_a_step_that_is_not_finite(self):
        tx = optax.apply_if_finite(optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1)), 3)
        state = tx.init(self.PARAMS)
        bad = {**self.GRADS, "b": jnp.array([jnp.inf])}
        updates, after = tx.update(bad, state, self.PARAMS)
        np.testing.assert_array_equal(updates["w"], 0)
        jax.tree.map(np.testing.assert_array_equal, after.inner_state, state.inner_state)

    def test_optax_links_in_our_chain(self):
        mixed = optim.chain(optax.clip_by_global_norm(1.0), optim.scale_by_rms(), optax.scale(-0.1))
        self.same(self.run(mixed), self.run(optim.chain(optim.clip_by_global_norm(1.0), optim.rmsprop(0.1))))
        self.same(self.run(optim.chain(optax.rmsprop(0.1))), self.run(optim.rmsprop(0.1)))
        self.same(self.run(optim.masked(optax.rmsprop(0.1), "w")), self.run(optim.masked(optim.rmsprop(0.1), "w")))

    def test_extra_arguments_reach_the_links_that_take_them(self):
        """GradientTransformationExtraArgs: Polyak's step size needs the loss."""
        mixed = optim.chain(optim.scale(1.0), optax.scale(1.0), optim.masked(optax.polyak_sgd(), "**"))
        self.same(self.run(mixed, value=jnp.float32(3.0)), self.run(optax.polyak_sgd(), value=jnp.float32(3.0)))
