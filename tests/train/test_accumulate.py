"""Gradient accumulation is the large batch (ask 5); what the step logs is what the update used (ask 44)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import training as problem

from dlkit import losses, metrics, nn, optim, train

TOKENS, CLASSES, ROWS = 6, 5, 16


@dataclass(frozen=True)
class Tagger(nn.Layer):
    """A class for every token."""

    width: int = 8

    def init(self, key):
        a, b = (nn.fold_name(key, name) for name in "ab")
        return {
            "hidden": {"w": jax.random.normal(a, (4, self.width)), "b": jnp.zeros(self.width)},
            "head": {"w": 0.3 * jax.random.normal(b, (self.width, CLASSES)), "b": jnp.zeros(CLASSES)},
        }

    def apply(self, params, state, x, mode):
        hidden = jnp.tanh(nn.functional.linear(x, params["hidden"]["w"], params["hidden"]["b"]))
        return nn.functional.linear(hidden, params["head"]["w"], params["head"]["b"]), state


def tokens(seed, rows=ROWS):
    """Rows with 0 to 6 valid tokens, and a weight in between: no two micro-batches weigh the same."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, TOKENS + 1, rows)
    weight = (np.arange(TOKENS)[None] < lengths[:, None]) * rng.choice([0.5, 1.0, 2.0], (rows, 1))
    return {
        "x": jnp.asarray(rng.standard_normal((rows, TOKENS, 4)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, CLASSES, (rows, TOKENS)), jnp.int32),
        "weight": jnp.asarray(weight, jnp.float32),
    }


def optimizer():
    """With clipping, decay and a schedule. A large eps: Adam makes a step of the rounding of a gradient of 0."""
    rate = optim.warmup_cosine_decay_schedule(0.01, 0.1, 3, 10)
    recipe = optim.adamw(rate, eps=1e-2, weight_decay=0.1, mask=optim.WEIGHTS)
    return optim.with_report(optim.chain(optim.clip_by_global_norm(0.5), recipe))


def history(accumulate, task, steps=10, tx=None):
    tx = optimizer() if tx is None else tx
    state = train.create_state(task.model, tx, jax.random.key(0))
    step = train.make_step(task, tx, accumulate=accumulate)
    rows = []
    for t in range(steps):
        state, measured = step(state, tokens(t))
        rows.append(task.result(measured) | {"used": optim.report(state.opt_state)})
    assert step.traces == 1
    return state, rows


TASK = train.Task(Tagger(), losses.cross_entropy, {"accuracy": metrics.Accuracy()}, regularizer=losses.l2(1e-2))


@pytest.fixture(scope="module")
def whole():
    return history(1, TASK)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_is_the_large_batch(whole, accumulate):
    """Loss, metric, penalty, gradient norm, learning rate and parameters, 10 steps, masked tokens of unequal number."""
    state, rows = history(accumulate, TASK)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole[0].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for row, expected in zip(rows, whole[1], strict=True):
        assert row["accuracy"] == expected["accuracy"]
        for name in ("loss", "penalty", "grad_norm", "update_norm", "learning_rate"):
            np.testing.assert_allclose(row[name], expected[name], rtol=2e-6)
    assert int(state.step) == 10


def test_batches_in_turn_are_the_large_batch(whole):
    """`multi_steps` in training, four calls an update: each counts by the weight of its tokens."""
    task = train.Task(Tagger(), losses.cross_entropy, regularizer=losses.l2(1e-2))
    tx = optim.multi_steps(optimizer(), 4)
    state, step = train.create_state(task.model, tx, jax.random.key(0)), train.make_step(task, tx)
    for t in range(10):
        for i in range(4):
            state, _ = step(state, jax.tree.map(lambda leaf, i=i: leaf[i::4], tokens(t)))
        used = optim.report(state.opt_state)
        for name in ("learning_rate", "grad_norm", "update_norm"):
            np.testing.assert_allclose(used[name], whole[1][t]["used"][name], rtol=2e-6)
    assert step.traces == 1
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole[0].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_logged_values_are_those_used(whole):
    """The schedule counts optimizer steps, with accumulation and after restoring (ask 44)."""
    schedule = optax.warmup_cosine_decay_schedule(0.01, 0.1, 3, 10)
    for t, row in enumerate(history(4, TASK)[1]):
        assert int(row["used"]["step"]) == t
        np.testing.assert_allclose(row["learning_rate"], schedule(t), rtol=1e-6)
        for name in ("learning_rate", "grad_norm", "update_norm"):
            assert float(row["used"][name]) == np.float32(row[name])


def test_the_norm_before_clipping_is_always_logged():
    """Ask 52: what `clip_by_global_norm` saw, where it stands in the chain; of a group's gradients it would be half."""
    batch, rows = tokens(0), []
    for tx in (optim.chain(optim.clip_by_global_norm(0.1), optim.sgd(0.1)), optim.sgd(0.1)):
        state = train.create_state(TASK.model, tx, jax.random.key(0))
        rows.append(TASK.result(train.make_step(TASK, tx, log_grad_norm=tx == optim.sgd(0.1))(state, batch)[1]))
    np.testing.assert_allclose(rows[0]["grad_norm"], rows[1]["grad_norm"], rtol=1e-6)
    tx = optim.masked(optim.clip_by_global_norm(0.1), "head/**")
    state = train.create_state(TASK.model, tx, jax.random.key(0))
    assert "grad_norm" not in train.make_step(TASK, tx)(state, batch)[1]


def test_logged_values_after_restore(tmp_path):
    tx = optimizer()
    state = train.create_state(TASK.model, tx, jax.random.key(0))
    step = train.make_step(TASK, tx, accumulate=2)
    for t in range(4):
        state, _ = step(state, tokens(t))
    path = train.save(tmp_path, 4, state)
    seen = []
    for held in (state, train.restore(path, train.create_state(TASK.model, tx, jax.random.key(1)))[0]):
        used = optim.report(held.opt_state)
        assert int(used["step"]) == 3
        after, measured = step(jax.tree.map(jnp.copy, held), tokens(4))
        seen.append(TASK.result(measured))
        assert int(optim.report(after.opt_state)["step"]) == 4
    assert seen[0] == seen[1]
    np.testing.assert_allclose(
        seen[0]["learning_rate"], optax.warmup_cosine_decay_schedule(0.01, 0.1, 3, 10)(4), rtol=1e-6
    )


def test_memory_does_not_grow_with_the_number_of_micro_batches():
    """At 64 rows a micro-batch. What grows is the batch itself, an argument; not what the step needs beside it."""
    task, tx = train.Task(Tagger(256), losses.cross_entropy), optim.adam(1e-3)
    state = train.create_state(task.model, tx, jax.random.key(0))
    temporary = {}
    for k in (1, 2, 8):
        compiled = train.make_step(task, tx, accumulate=k).lower(state, tokens(0, 64 * k)).compile()
        temporary[k] = compiled.memory_analysis().temp_size_in_bytes
    assert temporary[8] <= 1.05 * temporary[2]
    at_once = train.make_step(task, tx).lower(state, tokens(0, 64 * 8)).compile().memory_analysis()
    assert temporary[8] < 0.5 * at_once.temp_size_in_bytes


def test_the_sum_is_kept_in_float32():
    """Gradients of bfloat16 parameters are summed in float32, and rounded once: as far as one batch would be."""

    @dataclass(frozen=True)
    class Narrow(nn.Pure):
        def init(self, key):
            return {"w": jnp.zeros(1, jnp.bfloat16)}

        def __call__(self, params, x):
            return x * params["w"][None]

    def value(outputs, targets):
        return outputs[:, 0]

    task, tx = train.Task(Narrow(), value), optim.sgd(1.0)
    # 1 once and 2^-9 511 times: a running sum in bfloat16 would stay 1.
    batch = {
        "x": jnp.full((512, 1), 2.0**-9, jnp.bfloat16).at[0].set(1.0),
        "y": jnp.zeros(512),
        "weight": jnp.ones(512),
    }
    state, _ = train.make_step(task, tx, accumulate=512)(train.create_state(task.model, tx, jax.random.key(0)), batch)
    assert state.params["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(-512 * state.params["w"].astype(jnp.float32), [1 + 511 / 512], rtol=2**-8)


def test_what_is_sequential_goes_through_the_parts_in_turn():
    """BatchNorm sees micro-batches: its statistics move k times, as in k calls (documented; ask 5 exempts it)."""
    task = problem.task(problem.network(dropout=0.0))
    tx, batch = optim.sgd(0.0), problem.batch(8)
    state = train.create_state(task.model, tx, jax.random.key(0))
    expected = state.state
    for i in range(2):
        _, expected = task.model.apply(state.params, expected, batch["x"][i::2], nn.training(jax.random.key(0)))
    after, _ = train.make_step(task, tx, accumulate=2)(state, batch)
    for a, b in zip(jax.tree.leaves(after.state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_each_part_draws_its_own_dropout():
    with jax.debug_key_reuse(True):
        task, tx = problem.task(), problem.optimizer()
        state = train.create_state(task.model, tx, jax.random.key(0))
        train.make_step(task, tx, accumulate=2)(state, problem.batch())


def test_metrics_that_grow():
    """AUC keeps every example: the micro-batches' are joined."""

    def binary(outputs, targets):
        return losses.cross_entropy(outputs, targets)

    @dataclass(frozen=True)
    class Score(metrics.AUC):
        def measure(self, outputs, targets, weight=None):
            return super().measure(outputs[:, 0], (targets == 0).astype(jnp.int32), weight)

    values = []
    for k in (1, 4):
        task = train.Task(problem.network(dropout=0.0, norm=False), binary, {"auc": Score()})
        state = train.create_state(task.model, optim.sgd(0.1), jax.random.key(0))
        values.append(task.result(train.make_step(task, optim.sgd(0.1), accumulate=k)(state, problem.batch(16))[1]))
    np.testing.assert_allclose(values[0]["auc"], values[1]["auc"], rtol=1e-6)


def test_a_batch_of_weight_zero_changes_nothing_but_the_penalty():
    batch = tokens(0) | {"weight": jnp.zeros((ROWS, TOKENS))}
    task = train.Task(Tagger(), losses.cross_entropy)
    state = train.create_state(task.model, optim.sgd(0.1), jax.random.key(0))
    new, _ = train.make_step(task, optim.sgd(0.1), accumulate=4, donate=False)(state, batch)
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_number_of_parts(k, error):
    with pytest.raises(error, match="accumulate must be"):
        train.make_step(TASK, optim.sgd(0.1), accumulate=k)
    with pytest.raises(error, match="accumulate must be"):
        train.fit(problem.task(), optim.sgd(0.1), problem.points(), accumulate=k)


def test_a_batch_that_cannot_be_cut():
    state = train.create_state(TASK.model, optim.sgd(0.1), jax.random.key(0))
    with pytest.raises(ValueError, match="accumulate=3 does not divide the 16 rows of weight"):
        train.make_step(TASK, optim.sgd(0.1), accumulate=3)(state, tokens(0))


def test_fit_accumulates():
    task = problem.task(problem.network(dropout=0.0, norm=False))
    results = [
        train.fit(task, optim.sgd(0.1, 0.9), problem.points(50), epochs=2, batch_size=16, accumulate=k) for k in (1, 4)
    ]
    for a, b in zip(*(jax.tree.leaves(r.state.params) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(*(r.history for r in results), strict=True):
        np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=1e-5)
        assert a["learning_rate"] == b["learning_rate"]
