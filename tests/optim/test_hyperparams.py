"""Hyperparameters in the state: no retrace, vmap, schedules, values; beside optax."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlkit import optim
from dlkit.optim.wrappers.masks import BoolTree

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}


def grads_at(t):
    return jax.tree.map(lambda p: jnp.sin(p + t), PARAMS)


class Counted:
    """`tx.update`, compiled, with the number of times it was traced."""

    def __init__(self, tx):
        self.traces, self.tx, self.compiled = 0, tx, jax.jit(self.update)

    def update(self, *args):
        self.traces += 1
        return self.tx.update(*args)

    def __call__(self, *args):
        return self.compiled(*args)


def run(tx, steps=5, params=PARAMS, state=None):
    update = Counted(tx)
    state = tx.init(params) if state is None else state
    with jax.numpy_dtype_promotion("standard"):
        for t in range(steps):
            updates, state = update(grads_at(jnp.float32(t)), state, params)
            params = optim.apply_updates(params, updates)
    assert update.traces == 1
    return params, state


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


SCHEDULE = optim.linear_schedule(0.5, 0.0, 5)


@pytest.mark.parametrize(
    ("recipe", "args"),
    [
        (optim.adamw, {"learning_rate": 0.1, "weight_decay": 0.3}),
        (optim.sgd, {"learning_rate": SCHEDULE, "momentum": 0.9, "nesterov": True}),
        (optim.rmsprop, {"learning_rate": 0.1, "decay": 0.8, "mask": {"w": True, "b": False}, "l2": 0.1}),
        (optim.scale_by_adam, {"b2": 0.9}),
    ],
)
def test_the_same_numbers_as_the_recipe_itself(recipe, args):
    injected = optim.inject_hyperparams(recipe)(**args)
    close(run(injected)[0], run(recipe(**args))[0])
    assert injected == optim.inject_hyperparams(recipe)(**args)
    assert injected == pickle.loads(pickle.dumps(injected))  # noqa: S301
    assert hash(injected) == hash(optim.inject_hyperparams(recipe)(**args))
    assert "0x" not in repr(injected)


def test_equals_optax_at_every_step():
    """Schedules start at 0 in both; so `state.hyperparams` shows what the update used (ask 22)."""
    ours = optim.inject_hyperparams(optim.adam)(SCHEDULE, b1=0.8)
    theirs = optax.inject_hyperparams(optax.adam)(optax.linear_schedule(0.5, 0.0, 5), b1=0.8)
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    p, q = PARAMS, PARAMS
    for t in range(7):
        updates, a = ours.update(grads_at(t), a, p)
        with jax.numpy_dtype_promotion("standard"):
            expected, b = theirs.update(grads_at(t), b, q)
        p, q = optim.apply_updates(p, updates), optax.apply_updates(q, expected)
        close(p, q, rtol=1e-4)  # optax's bias corrections lose digits in float32
        for state in (a, b):
            np.testing.assert_allclose(state.hyperparams["learning_rate"], SCHEDULE(t), rtol=1e-6)
        np.testing.assert_allclose(optim.learning_rate(a), SCHEDULE(t), rtol=1e-6)
        assert {name: int(x) for name, x in optim.report(a).items() if name == "step"} == {"step": t}
    assert set(a.hyperparams) == {"learning_rate", "b1", "b2", "eps"}
    assert set(b.hyperparams) - set(a.hyperparams) == {"eps_root"}  # a default of 0: left out here


def test_change_without_a_retrace():
    tx = optim.chain(optim.clip(10.0), optim.inject_hyperparams(optim.sgd)(0.1))
    update = Counted(tx)
    state = tx.init(PARAMS)
    for rate in (0.1, 0.5, np.float64(0.25), jnp.float32(0.0), 1):
        state = optim.set_hyperparams(state, learning_rate=rate)
        updates, state = update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(updates["w"], -np.float32(rate) * PARAMS["w"], rtol=1e-6)
        np.testing.assert_allclose(optim.learning_rate(state), rate, rtol=1e-6)
    assert update.traces == 1
    state[1].hyperparams["learning_rate"] = jnp.float32(2.0)  # by hand, as with optax
    np.testing.assert_allclose(update(PARAMS, state, PARAMS)[0]["w"], -2 * PARAMS["w"], rtol=1e-6)
    assert update.traces == 1
    with pytest.raises(ValueError, match="holds no 'lr'; it holds learning_rate"):
        optim.set_hyperparams(state, lr=0.1)
    with pytest.raises(ValueError, match=r"learning_rate has shape \(2,\), wanted \(\)"):
        optim.set_hyperparams(state, learning_rate=np.ones(2))


def test_each_run_of_a_vmap_has_its_own():
    tx = optim.inject_hyperparams(optim.adamw)(0.1)
    many = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    rates, decays = np.array([0.01, 0.1, 0.5]), np.array([0.0, 0.1, 0.2])
    state = optim.set_hyperparams(jax.vmap(tx.init)(many), learning_rate=rates, weight_decay=decays)
    for t in range(3):
        updates, state = jax.jit(jax.vmap(tx.update, (None, 0, 0)))(grads_at(t), state, many)
        many = optim.apply_updates(many, updates)
    for i in range(3):
        alone, _ = run(optim.adamw(rates[i], weight_decay=decays[i]), 3)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], many), alone)


def test_a_factory_of_optax():
    ours = optim.inject_hyperparams(optax.sgd)(0.1, momentum=0.9)
    theirs = optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9)
    close(run(ours)[0], run(theirs)[0])
    assert isinstance(ours, optim.Transform)


def with_a_count(learning_rate, steps):
    return optim.chain(optim.sgd(learning_rate), optim.apply_every(steps))


@pytest.mark.usefixtures("unchecked")
def test_static_arguments():
    tx = optim.inject_hyperparams(with_a_count, static_args="steps")(0.1, 2)
    assert set(tx.init(PARAMS).hyperparams) == {"learning_rate"}
    close(run(tx)[0], run(with_a_count(0.1, 2))[0])
    with pytest.raises(TypeError, match="wanted a whole number of steps") as caught:
        optim.inject_hyperparams(with_a_count)(0.1, 2)
    assert "inject_hyperparams(..., static_args=...)" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="static_args names 'stps'; with_a_count takes learning_rate, steps"):
        optim.inject_hyperparams(with_a_count, "stps")
    assert optim.inject_stateful_hyperparams is optim.inject_hyperparams


@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_said_before_anything_is_traced():
    with pytest.raises(ValueError, match=r"scale_by_adam: b1 is 1\.5, wanted 0 <= b1 < 1"):
        optim.inject_hyperparams(optim.adam)(0.1, b1=1.5)
    with pytest.raises(TypeError, match="adam: b1 is an array of shape"):
        optim.inject_hyperparams(optim.adam)(0.1, b1=np.ones(2))
    with pytest.raises(TypeError, match="unexpected keyword argument 'beta'"):
        optim.inject_hyperparams(optim.adam)(0.1, beta=0.9)


class Plateau(optax.schedules.StatefulSchedule):
    """Halves where the loss does not fall: a schedule with a state, in optax's form."""

    def init(self):
        return {"rate": jnp.float32(1.0), "best": jnp.float32(jnp.inf)}

    def update(self, state, *, value, **extra):
        worse = value >= state["best"]
        return {
            "rate": jnp.where(worse, 0.5 * state["rate"], state["rate"]),
            "best": jnp.minimum(value, state["best"]),
        }

    def __call__(self, state, **extra):
        return state["rate"]


def test_a_schedule_with_a_state():
    ours, theirs = (inject(f)(Plateau()) for inject, f in (
        (optim.inject_hyperparams, optim.sgd), (optax.inject_hyperparams, optax.sgd)))  # fmt: skip
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for value in (3.0, 2.0, 2.5, 1.0, 1.5):
        updates, a = ours.update(PARAMS, a, PARAMS, value=jnp.float32(value))
        with jax.numpy_dtype_promotion("standard"):
            expected, b = theirs.update(PARAMS, b, PARAMS, value=jnp.float32(value))
        close(updates, expected)
    assert float(a.hyperparams["learning_rate"]) == float(b.hyperparams["learning_rate"])


@pytest.mark.parametrize(
    ("given", "x64", "dtype"), [(None, False, "float32"), (None, True, "float64"), ("bfloat16", False, "bfloat16")]
)
def test_dtypes(given, x64, dtype):
    """float32 whatever the gradients are: a bfloat16 learning rate has three digits."""
    with jax.enable_x64(x64):
        tx = optim.inject_hyperparams(optim.adam, hyperparam_dtype=given)(1e-3)
        narrow = {"w": jnp.ones(2, jnp.bfloat16)}
        state = tx.init(narrow)
        updates, after = tx.update(narrow, state, narrow)
        assert {x.dtype.name for x in state.hyperparams.values()} == {dtype}
        assert {x.dtype.name for x in after.hyperparams.values()} == {dtype}
        assert updates["w"].dtype == jnp.bfloat16


def test_a_mask_as_a_tree_is_held_in_a_hashable_form():
    tx = optim.inject_hyperparams(optim.adamw)(0.1, mask={"w": True, "b": False})
    assert isinstance(dict(tx.arguments)["mask"], BoolTree)
