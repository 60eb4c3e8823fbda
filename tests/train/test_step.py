"""The step: what it computes, traced once, donated, keyed by its number."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import training as problem

from dlkit import data, losses, metrics, nn, optim, train, tree


def start(task=None, optimizer=None):
    task = problem.task() if task is None else task
    optimizer = problem.optimizer() if optimizer is None else optimizer
    return task, optimizer, train.create_state(task.model, optimizer, jax.random.key(0))


def test_a_step_is_gradient_update_apply():
    # Momentum, not Adam: Adam turns the rounding error of a gradient that is 0 into a full step.
    task, optimizer, state = start(optimizer=optim.sgd(0.05, momentum=0.9))
    batch = problem.batch()
    mode = nn.training(jax.random.fold_in(state.key, 0))

    @jax.jit
    def by_hand(state):
        def loss(params):
            logits, after = task.model.apply(params, state.state, batch["x"], mode)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])), (after, logits)

        (value, (after, logits)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return value, logits, optim.apply_updates(state.params, updates), after, opt_state

    value, logits, params, after, opt_state = by_hand(state)
    expected = jax.device_get((params, after, opt_state))
    new, measured = train.make_step(task, optimizer)(state, batch)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves((new.params, new.state, new.opt_state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # float32, another order of the same sums
    values = task.result(measured)
    np.testing.assert_allclose(values["loss"], value, rtol=1e-6)
    assert values["accuracy"] == np.mean(np.argmax(logits, -1) == batch["y"])
    assert values["learning_rate"] == pytest.approx(0.05)
    assert new.step.dtype == jnp.int32
    assert int(new.step) == 1


def test_padding_counts_for_nothing():
    task = problem.task(problem.network(dropout=0.0, norm=False))
    _, _, state = start(task)
    small = problem.batch(6)
    large = {k: jnp.concatenate([v, v[:2]]) for k, v in small.items()}
    large["weight"] = large["weight"].at[6:].set(0.0)
    large["x"] = large["x"].at[6:].set(jnp.nan)
    loss = jax.jit(jax.value_and_grad(lambda p, b: task.loss_fn(p, None, b, nn.EVAL)[0]))
    a, b = (
        loss(state.params, small),
        loss(state.params, {**large, "x": jnp.where(jnp.isnan(large["x"]), 7.0, large["x"])}),
    )
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
    measure = train.make_eval_step(task, max_traces=2)
    values = [task.result(measure(state.params, None, b)) for b in (small, large)]
    assert values[0]["accuracy"] == values[1]["accuracy"]
    assert np.isfinite(values[0]["loss"])


def test_regularizer_is_added_and_reported_apart():
    task = problem.task(regularizer=losses.l2(0.1))
    plain = problem.task()
    _, _, state = start(task)
    batch = problem.batch()
    mode = nn.training(jax.random.key(3))
    value, (_, _, sums) = jax.jit(task.loss_and_sums)(state.params, state.state, batch, mode)
    without, _ = jax.jit(plain.loss_fn)(state.params, state.state, batch, mode)
    penalty = losses.l2(0.1)(state.params)
    np.testing.assert_allclose(value, without + penalty, rtol=1e-6)
    np.testing.assert_allclose(task.result(sums)["loss"], without, rtol=1e-6)
    np.testing.assert_allclose(task.result(sums)["penalty"], penalty, rtol=1e-6)


@pytest.mark.parametrize("make", [optax.adam, lambda rate: optax.inject_hyperparams(optax.sgd)(learning_rate=rate)])
def test_optax_transforms_work_and_are_traced_once(make):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        task, optimizer, state = start(optimizer=make(1e-2))
        step = train.make_step(task, optimizer)
        for _ in range(3):
            state, measured = step(state, problem.batch())
    assert step.traces == 1
    assert "learning_rate" not in measured


def test_a_line_search_of_optax_is_given_what_it_knows_inside_a_chain_too():
    """It refuses every argument that it does not know."""
    with jax.numpy_dtype_promotion("standard"):
        task, optimizer, state = start(optimizer=optim.chain(optim.clip(10.0), optax.lbfgs()))
        after, _ = jax.eval_shape(train.make_step(task, optimizer).jitted, state, problem.batch())
    assert not tree.diff(jax.eval_shape(lambda: state), after)


def test_traced_once_over_ragged_epochs():
    task, optimizer, state = start()
    step, evaluation = train.make_step(task, optimizer), train.make_eval_step(task)
    loader = data.Loader(problem.points(), 16, seed=0)
    for epoch in range(2):
        for one in loader.epoch(epoch):
            state, _ = step(state, one)
            evaluation(state.params, state.state, one)
    assert (step.traces, evaluation.traces) == (1, 1)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s, b: (s, {**b, "x": b["x"][:4], "y": b["y"][:4], "weight": b["weight"][:4]}),
         "1/x: expected float32[8,4], got float32[4,4]"),
        (lambda s, b: (s, {**b, "y": b["y"].astype(jnp.int8)}), "1/y: expected int32[8], got int8[8]"),
        (lambda s, b: (s._replace(step=jnp.asarray(3)), b), "0/step: expected int32[], got int32[], weak type"),
        (lambda s, b: (s, {**b, "z": b["x"]}), "1/z: unexpected (got float32[8,4])"),
    ],
)  # fmt: skip
def test_a_second_trace_names_the_leaf_that_changed(change, line):
    task, optimizer, state = start()
    step = train.make_step(task, optimizer)
    batch = problem.batch()
    state, _ = step(state, batch)
    with pytest.raises(train.RetraceError) as caught:
        step(*change(state, batch))
    assert line in str(caught.value)
    assert "max_traces=1" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 10
    state, _ = step(state, batch)  # the state was not consumed
    assert int(state.step) == 2


def test_max_traces_allows_more():
    task, optimizer, state = start()
    step = train.make_step(task, optimizer, max_traces=2)
    for n in (8, 4, 8):
        state, _ = step(state, problem.batch(n))
    assert step.traces == 2
    with pytest.raises(train.RetraceError, match="number 3"):
        step(state, problem.batch(5))


def test_initial_state_is_strong_and_the_same_after_a_step():
    """Ask 8: `init` and `update` have equal avals, so nothing is traced twice."""
    task, optimizer, state = start()
    before = jax.tree.map(jax.typeof, state)
    assert not any(a.weak_type for a in jax.tree.leaves(before) if hasattr(a, "weak_type"))
    new, _ = jax.eval_shape(lambda s, b: train.training_step(task, optimizer, s, b), state, problem.batch())
    assert tree.diff(before, new) == ""


def test_an_optimizer_that_changes_its_state_is_named():
    class Drifting(optim.Transform):
        def init(self, params):
            return {"count": jnp.zeros((), jnp.int32)}

        def update(self, grads, state, params=None):
            return grads, {"count": state["count"].astype(jnp.float32)}

    task, optimizer, state = start(optimizer=Drifting())
    with pytest.raises(ValueError, match=r"opt_state/count: expected int32\[\], got float32\[\]"):
        train.make_step(task, optimizer)(state, problem.batch())


def test_steps_are_keyed_by_their_number():
    """Ask 11: the key of step k is fold_in(run key, k), so restarts change nothing; consecutive masks differ."""

    @dataclass(frozen=True)
    class Draw(nn.Layer):
        def init(self, key):
            return {"w": jnp.zeros(())}

        def apply(self, params, state, x, mode):
            return x + params["w"] + jax.random.uniform(mode.rng("noise"), x.shape), state

    class Loss:
        def __call__(self, outputs, targets):
            return outputs[:, 0]

    task, optimizer = train.Task(Draw(), Loss()), optim.sgd(0.0)
    state = train.create_state(task.model, optimizer, jax.random.key(5))
    key = state.key
    step = train.make_step(task, optimizer, donate=False)
    seen = []
    batch = {"x": jnp.zeros((3, 2)), "y": jnp.zeros(3), "weight": jnp.ones(3)}
    for _ in range(3):
        state, measured = step(state, batch)
        seen.append(task.result(measured)["loss"])
    expected = [
        jax.random.uniform(nn.training(jax.random.fold_in(key, t)).rng("noise"), (3, 2))[:, 0].mean() for t in range(3)
    ]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert len(set(seen)) == 3
    _, again = step(state._replace(step=jnp.asarray(1, jnp.int32)), batch)
    assert task.result(again)["loss"] == seen[1]


def test_no_key_is_used_twice():
    """Ask 11: init and a whole step under JAX's own check."""
    with jax.debug_key_reuse(True):
        task, optimizer, state = start()
        train.make_step(task, optimizer)(state, problem.batch())


def test_run_key_and_init_key_are_named():
    model, optimizer = problem.network(), problem.optimizer()
    state = train.create_state(model, optimizer, jax.random.key(7))
    key = jax.random.key(7)
    assert problem.equal(state.params, model.init(nn.fold_name(key, "init")))
    assert problem.equal(state.key, nn.fold_name(key, "run"))


def test_donation_is_complete():
    """Ask 40: a donated buffer that is not usable would be a warning, and warnings are errors."""
    task, optimizer, state = start()
    old = state
    new, _ = train.make_step(task, optimizer)(state, problem.batch())
    kept = tree.nbytes([leaf for leaf in jax.tree.leaves(old._replace(key=None)) if not leaf.is_deleted()])
    assert kept <= 8  # the learning rate and the clipped norm of the step before are not read, so they are not given
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_memory_of_a_step_with_adam():
    """Ask 40: less than 2.2 times the state, the new state and all intermediates included."""
    model = nn.Chain(nn.Linear(128, 512), nn.Relu(), nn.Linear(512, 512), nn.Relu(), head=nn.Linear(512, 10))
    task, optimizer = train.Task(model, losses.cross_entropy, {"accuracy": metrics.Accuracy()}), optim.adam(1e-3)
    state = train.create_state(model, optimizer, jax.random.key(0))
    batch = {"x": jnp.ones((32, 128)), "y": jnp.zeros(32, jnp.int32), "weight": jnp.ones(32)}
    memory = train.make_step(task, optimizer).lower(state, batch).compile().memory_analysis()
    size = tree.nbytes(state._replace(key=None))
    assert memory.alias_size_in_bytes > 0.999 * size
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert peak - memory.alias_size_in_bytes < 2.2 * size


def test_a_donated_state_is_explained():
    task, optimizer, state = start()
    step = train.make_step(task, optimizer)
    batch = problem.batch()
    new, _ = step(state, batch)
    newer, _ = step(new, batch)
    with pytest.raises(train.DonatedError, match="this state was donated to step 1; use the returned one"):
        step(new, batch)
    with pytest.raises(train.DonatedError, match="donated to step 0"):
        step(state, batch)
    with pytest.raises(train.DonatedError, match="was donated"):
        train.evaluate(task, new.params, new.state, problem.points(8))
    with pytest.raises(train.DonatedError, match="was donated"):
        train.predict(task.model, new.params, new.state, np.zeros((2, 4), np.float32))
    step(newer, batch)


def test_not_donated_state_lives_on():
    task, optimizer, state = start()
    step = train.make_step(task, optimizer, donate=False)
    a, _ = step(state, problem.batch())
    b, _ = step(state, problem.batch())
    assert problem.equal(a, b)


def test_shared_buffers_are_separated():
    """Ask 40: an average that starts as the parameters themselves, tied weights, constants."""

    class Averaging(optim.Transform):
        def init(self, params):
            return {"average": params}

        def update(self, grads, state, params=None):
            return grads, state

    @dataclass(frozen=True)
    class Tied(nn.Layer):
        def init(self, key):
            w = jax.random.normal(key, (4, 4))
            return {"a": w, "b": w}

        def apply(self, params, state, x, mode):
            return x @ params["a"] @ params["b"], state

    task, optimizer = train.Task(Tied(), losses.cross_entropy), Averaging()
    state = train.create_state(task.model, optimizer, jax.random.key(0))
    step = train.make_step(task, optimizer)
    for _ in range(2):
        state, _ = step(state, problem.batch())
    assert step.traces == 1


def test_errors_name_the_batch():
    _, optimizer, state = start()
    wide = {**problem.batch(), "x": jnp.ones((8, 5))}
    with pytest.raises(ValueError, match="expected the last axis to have size 4") as caught:
        train.make_step(problem.task(), optimizer)(state, wide)
    assert any("x float32[8, 5], y int32[8]" in note for note in caught.value.__notes__)
    assert any("in layer linear1" in note for note in caught.value.__notes__)
    with pytest.raises(ValueError, match="no field 'labels': it has"):
        train.make_step(problem.task(targets="labels"), optimizer)(state, problem.batch())

    def reduced(outputs, targets):
        return jnp.mean(losses.cross_entropy(outputs, targets))

    with pytest.raises(ValueError, match=r"loss returned shape \[\] for a batch of 8 examples"):
        train.make_step(train.Task(problem.network(), reduced), optimizer)(state, problem.batch())
    with pytest.raises(ValueError, match="distinct names, none of loss"):
        problem.task(metrics={"loss": metrics.Accuracy()})
    with pytest.raises(TypeError, match=r"expected one of dlkit\.metrics"):
        problem.task(metrics={"accuracy": lambda outputs, targets: 1.0})


def test_several_inputs_and_targets():
    @dataclass(frozen=True)
    class Both(nn.Pure):
        def init(self, key):
            return {"w": jnp.ones(4)}

        def __call__(self, params, x):
            a, b = x
            return a * params["w"][None], b

    def loss(outputs, targets):
        (a, b), (y, index) = outputs, targets
        return jnp.sum(a * b, -1) + y.astype(jnp.float32) + index.astype(jnp.float32)

    task = train.Task(Both(), loss, inputs=("x", "extra"), targets=("y", "index"))
    batch = problem.batch()
    batch["extra"] = batch["x"]
    value, _ = task.loss_fn({"w": jnp.ones(4)}, None, batch, nn.EVAL)
    expected = np.mean(np.sum(np.square(batch["x"]), -1) + np.asarray(batch["y"]) + np.asarray(batch["index"]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_gradient_norm_is_that_before_clipping():
    task, optimizer, state = start()
    batch = problem.batch()
    mode = nn.training(jax.random.fold_in(state.key, 0))
    grads = jax.jit(jax.grad(lambda p: task.loss_fn(p, state.state, batch, mode)[0]))(state.params)
    expected = optax.tree.norm(grads)
    _, measured = train.make_step(task, optimizer, log_grad_norm=True)(state, batch)
    np.testing.assert_allclose(measured["grad_norm"], expected, rtol=1e-5)


def test_tasks_are_values():
    assert problem.task() == problem.task()
    assert hash(problem.task()) == hash(problem.task())
    assert problem.task() != problem.task(metrics={})
