"""The loop: the same bits as a loop by hand, exact history, few transfers, callbacks."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score
from support import compiling
from support import training as problem

from dlkit import data, losses, metrics, nn, optim, train


class Recorder(train.Callback):
    def __init__(self):
        self.logs, self.epochs, self.steps, self.events = [], [], 0, []

    def on_start(self, run):
        self.events.append("start")

    def on_step(self, run):
        self.steps += 1

    def on_log(self, run, row):
        self.logs.append((run.step, dict(row)))
        self.events.append("log")

    def on_epoch(self, run, row):
        self.epochs.append(dict(row))
        self.events.append("epoch")

    def on_end(self, run, result):
        self.events.append("end")

    def on_close(self, run):
        self.events.append("close")


def test_same_as_a_loop_by_hand():
    """Bit for bit: parameters, state, optimizer state, key; and the history is that of merged sums."""
    task, optimizer, train_set, valid = problem.task(), problem.optimizer(), problem.points(103), problem.points(40, 1)
    state = train.create_state(task.model, optimizer, jax.random.key(3))
    step = train.make_step(task, optimizer)
    loader = data.Loader(train_set, 16, seed=3)
    rows = []
    for epoch in range(2):
        sums = []
        for batch in loader.epoch(epoch):
            state, measured = step(state, batch)
            sums.append(task.result(measured) | {"n": float(batch["weight"].sum())})
        weight = sum(s["n"] for s in sums)
        rows.append({name: sum(s[name] * s["n"] for s in sums) / weight for name in ("loss", "accuracy")})
        rows[-1]["valid"] = train.evaluate(task, state.params, state.state, valid)
    recorder = Recorder()
    result = train.fit(
        task, optimizer, train_set, valid=valid, epochs=2, batch_size=16, seed=3, log_every=5, callbacks=[recorder]
    )
    assert problem.equal(result.state, state)
    assert result.stopped_because == "2 epochs"
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert [row["step"] for row in result.history] == [7, 14]
    for row, expected in zip(result.history, rows, strict=True):
        for name in ("loss", "accuracy"):
            assert row[f"train/{name}"] == pytest.approx(expected[name], rel=1e-6)
            assert row[f"valid/{name}"] == expected["valid"][name]
    assert result.history[1]["learning_rate"] == pytest.approx(float(optim.cosine_decay_schedule(0.05, 60)(13)))
    assert result.last == result.history[-1]
    assert result.best == min(result.history, key=lambda row: row["valid/loss"])
    assert recorder.events == ["start", "log", "epoch", "log", "epoch", "end", "close"]
    assert recorder.steps == 14
    assert all(not key.startswith("time/") for row in result.history for key in row)


def test_log_rows_cover_their_interval_across_epochs():
    task, optimizer = problem.task(metrics={}), problem.optimizer()
    recorder, each = Recorder(), Recorder()
    common = {"epochs": 3, "batch_size": 32}
    train.fit(task, optimizer, problem.points(), callbacks=[recorder], log_every=5, **common)  # 4 steps an epoch
    train.fit(task, optimizer, problem.points(), callbacks=[each], log_every=1, **common)
    weights = [32, 32, 32, 7] * 3
    assert [row["step"] for _, row in recorder.logs] == [5, 10]
    assert [row["step"] for _, row in each.logs] == list(range(1, 13))
    single = [row["train/loss"] for _, row in each.logs]
    for k, (_, row) in enumerate(recorder.logs):
        part = slice(5 * k, 5 * k + 5)
        assert row["train/loss"] == pytest.approx(np.average(single[part], weights=weights[part]), rel=1e-6)


def test_rows_come_one_interval_late():
    recorder = Recorder()
    train.fit(
        problem.task(),
        problem.optimizer(),
        problem.points(320),
        epochs=1,
        batch_size=8,
        log_every=10,
        callbacks=[recorder],
    )
    assert [(seen, row["step"]) for seen, row in recorder.logs] == [(20, 10), (30, 20), (40, 30), (40, 40)]


def test_no_transfers_between_log_points(monkeypatch):
    """Ask 37: nothing is read from the device but by the explicit fetches, and those are few."""
    fetches, inside = [], []
    get = jax.device_get

    def fetch(tree):
        fetches.append(1)
        inside.append(1)
        try:
            return get(tree)
        finally:
            inside.pop()

    monkeypatch.setattr(jax, "device_get", fetch)
    array = type(jnp.zeros(1))
    reads = []

    def watched(name, real):
        def read(self, *args, **kwargs):
            if not inside:
                reads.append(name)
            return real(self, *args, **kwargs)

        return read

    for name in ("__array__", "__float__", "__int__", "__bool__", "__index__", "item", "tolist"):
        monkeypatch.setattr(array, name, watched(name, getattr(array, name)))

    class Guard(train.Callback):
        def on_start(self, run):
            fetches.clear()
            reads.clear()

        def on_step(self, run):
            counts.append((len(fetches), len(reads)))

    counts = []
    with jax.transfer_guard("disallow"):
        with jax.transfer_guard("allow"):  # the initial draws are not part of the loop
            state = train.create_state(problem.network(), problem.optimizer(), jax.random.key(0))
        train.fit(
            problem.task(), problem.optimizer(), problem.points(160), epochs=1, batch_size=8, log_every=5,
            callbacks=[Guard()], state=state,
        )  # fmt: skip
    assert len(counts) == 20
    assert [n for n, _ in counts] == [0] * 9 + [1] * 5 + [2] * 5 + [3]
    assert {n for _, n in counts} == {0}
    float(jnp.ones(()))
    assert reads == ["__float__"]  # it would have been seen


def test_optax_and_growing_metrics():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90).astype(np.float32)
    x = (rng.standard_normal((90, 3)) + y[:, None]).astype(np.float32)

    @dataclass(frozen=True)
    class Score(nn.Pure):
        inner: nn.Linear = nn.Linear(3, 1)

        def __call__(self, params, x):
            return self.inner(params["inner"], x)[:, 0]

    task = train.Task(Score(), losses.binary_cross_entropy, {"auc": metrics.AUC()})
    recorder = Recorder()
    ds = data.Arrays(x=x, y=y)
    result = train.fit(task, optax.sgd(0.0), ds, valid=ds, epochs=1, batch_size=16, log_every=4, callbacks=[recorder])
    scores = train.predict(task.model, result.state.params, None, x)
    assert result.last["train/auc"] == pytest.approx(roc_auc_score(y, scores), abs=1e-6)
    assert result.last["valid/auc"] == result.last["train/auc"]
    assert len(recorder.logs) == 1
    assert "learning_rate" not in result.last


def test_max_steps_and_own_loader_and_own_state():
    task, optimizer = problem.task(), problem.optimizer()
    loader = data.Loader(problem.points(), 20, seed=9, shuffle=False)
    state = train.create_state(task.model, optimizer, jax.random.key(1))
    before = jax.device_get(state.params)
    result = train.fit(task, optimizer, loader, epochs=5, max_steps=8, state=state)
    assert int(result.state.step) == 8
    assert result.stopped_because == "max_steps=8"
    assert [row["step"] for row in result.history] == [6]
    assert problem.equal(jax.device_get(state.params), before)  # the state that was given is not consumed
    same = train.fit(task, optimizer, loader, epochs=5, max_steps=8, state=state)
    assert problem.equal(same.state, result.state)


def test_traced_once_with_validation_restore_and_a_new_rate(tmp_path):
    """Ask 8: two epochs of a ragged dataset, a restore, a changing learning rate."""
    traces = {True: 0, False: 0}

    @dataclass(frozen=True)
    class Counting(nn.Layer):
        inner: nn.Linear = nn.Linear(4, 3)

        def apply(self, params, state, x, mode):
            traces[mode.train] += 1
            return self.inner(params["inner"], x), state

    task, optimizer = problem.task(Counting()), problem.optimizer()
    for epochs in (2, 4):
        traces[True] = 0
        train.fit(
            task,
            optimizer,
            problem.points(),
            valid=problem.points(30, 1),
            epochs=epochs,
            batch_size=16,
            run_dir=tmp_path,
        )
        assert traces == {True: 1, False: 1}


def test_max_traces_of_the_loop():
    """Ask 8: a trace too many names the leaf, what it was and what it is; where it is meant, it is allowed."""

    class Growing(data.Loader):
        def batch(self, epoch, index):
            rows = 8 if epoch == 0 else 12
            return {name: field[:rows] for name, field in super().batch(epoch, index).items()}

    task, loader = problem.task(problem.network(norm=False)), Growing(problem.points(24), 12)
    with pytest.raises(train.RetraceError) as caught:
        train.fit(task, optim.sgd(0.1), loader, epochs=2)
    assert "training_step would be traced again (number 2, max_traces=1)" in str(caught.value)
    assert "2/x: expected float32[8,4], got float32[12,4]" in str(caught.value)
    assert train.fit(task, optim.sgd(0.1), loader, epochs=2, max_traces=2).last["step"] == 4


class Scripted(train.Callback):
    """Puts given numbers in the place of valid/loss, in front of what reads it."""

    def __init__(self, values, key="valid/loss"):
        self.values, self.key, self.seen = values, key, []

    def on_epoch(self, run, row):
        row[self.key] = self.values[row["epoch"] - 1]
        self.seen.append(jax.device_get(run.state.params))


def simulate(values, patience, min_delta, direction):
    """By hand: the epoch after which to stop (or the last), and the best one."""
    best, at, since = math.nan, None, 0
    for epoch, value in enumerate(values, 1):
        gain = (best - value) * (1 if direction == "min" else -1)
        if not math.isnan(value) and (at is None or gain > min_delta):
            best, at, since = value, epoch, 0
        else:
            since += 1
            if since == patience:
                return epoch, at
    return len(values), at


CASES = [
    ([5, 4, 3, 3, 3, 3, 2], 3, 0.0, "min"),
    ([5, 4, 4, 3.9, 3.8, 1, 1], 2, 0.5, "min"),
    ([0.1, 0.5, 0.4, 0.3, 0.9, 0.8], 2, 0.0, "max"),
    ([math.nan, math.nan, 3, 4, 2, math.nan, math.nan, 9], 2, 0.0, "min"),
    ([math.nan] * 5, 3, 0.0, "min"),
    ([3, 2, 1, 0], 1, 0.0, "min"),
]


@pytest.mark.parametrize(("values", "patience", "min_delta", "direction"), CASES)
def test_early_stopping_stops_where_a_hand_simulation_says(values, patience, min_delta, direction):
    script = Scripted(values)
    stopping = train.EarlyStopping("valid/loss", patience, min_delta, direction)
    result = train.fit(
        problem.task(problem.network(dropout=0.0)), problem.optimizer(), problem.points(20), epochs=len(values),
        batch_size=10, callbacks=[script, stopping],
    )  # fmt: skip
    stop, best = simulate(values, patience, min_delta, direction)
    assert len(result.history) == stop
    assert stopping.best_epoch == best
    expected = script.seen[(best or stop) - 1]
    assert problem.equal(jax.device_get(result.state.params), expected)
    assert result.stopped_because.startswith(
        "early stopping: valid/loss"
        if stop < len(values) or best is None or stop - best >= patience
        else f"{stop} epochs"
    )


def test_early_stopping_says_what_it_needs():
    assert train.EarlyStopping("valid/accuracy").direction == "max"
    assert train.EarlyStopping("valid/perplexity").direction == "min"
    with pytest.raises(ValueError, match="say direction"):
        train.EarlyStopping("valid/strange")
    with pytest.raises(ValueError, match="patience >= 1"):
        train.EarlyStopping(patience=0)
    with pytest.raises(ValueError, match=r"no number called 'valid/loss' after an epoch: there are .*train/loss"):
        train.fit(problem.task(), problem.optimizer(), problem.points(20), epochs=1, callbacks=[train.EarlyStopping()])


@dataclass(frozen=True)
class Poisoned:
    """The cross-entropy, infinite for an input above 50."""

    def __call__(self, outputs, targets):
        return losses.cross_entropy(outputs, targets)


def poisoned(n, at):
    ds = problem.points(n)
    x = ds.x.copy()
    x[at] = np.inf
    return data.Arrays(x=x, y=ds.y)


def test_a_loss_that_is_not_finite(tmp_path):
    """`StopOnNan` names the metric and the step, and what is lost is not saved; without it there is one warning."""
    task = train.Task(problem.network(dropout=0.0, norm=False), Poisoned())
    loader = data.Loader(poisoned(80, 45), 8, shuffle=False)
    result = train.fit(
        task, problem.optimizer(), loader, epochs=3, log_every=4, callbacks=[train.StopOnNan()], run_dir=tmp_path / "a"
    )
    assert result.stopped_because == "train/loss (nan) is not finite, first in step 6"
    assert int(result.state.step) == 10
    assert train.latest(tmp_path / "a" / "checkpoints") is None
    with pytest.warns(UserWarning, match=r"train/loss is nan after epoch 1 \(first in step 6\)"):
        result = train.fit(task, problem.optimizer(), loader, epochs=1)
    assert math.isnan(result.last["train/loss"])
    assert result.best == {}


def test_gradient_norm_in_rows():
    result = train.fit(problem.task(), problem.optimizer(), problem.points(20), epochs=1, log_grad_norm=True)
    assert result.last["grad_norm"] > 0


def test_bad_arguments(tmp_path):
    task, optimizer, ds = problem.task(), problem.optimizer(), problem.points(20)
    for name in ("epochs", "log_every", "max_steps", "max_traces"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            train.fit(task, optimizer, ds, **{name: 0})
    with pytest.raises(TypeError, match=r"a callback must be a train\.Callback"):
        train.fit(task, optimizer, ds, callbacks=[print])
    with pytest.raises(ValueError, match="needs a place"):
        train.fit(task, optimizer, ds, callbacks=[train.Checkpointer()])
    with pytest.raises(ValueError, match="keep_last >= 1"):
        train.Checkpointer(keep_last=0)
    with pytest.raises(ValueError, match="batch has no field 'z'"):
        train.fit(problem.task(inputs="z"), optimizer, ds)


def test_a_failing_save_stops_or_warns(tmp_path):
    task, optimizer, ds = problem.task(), problem.optimizer(), problem.points(20)
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(train.CheckpointError, match="saving step 1"):
        train.fit(task, optimizer, ds, epochs=1, run_dir=tmp_path)
    saver = train.Checkpointer(on_error="warn")
    with pytest.warns(train.CheckpointWarning, match="saving step 1 .* training goes on"):
        result = train.fit(task, optimizer, ds, epochs=1, run_dir=tmp_path, callbacks=[saver])
    assert result.stopped_because == "1 epoch"


MESH = """
import sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from support import training as problem
from dlkit import optim, train

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
runs = [
    train.fit(problem.task(), optim.sgd(0.05, momentum=0.9), problem.points(103), valid=problem.points(30, 1), epochs=3,
              batch_size=16, log_every=4, sharding=sharding, run_dir=folder)
    for sharding, folder in ((None, None), (rows, sys.argv[2]), (None, sys.argv[2]), (rows, sys.argv[2]))
]
one, eight, again, back = runs
for a, b in zip(one.history, eight.history, strict=True):
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, rtol=2e-5, err_msg=name)
assert eight.history == again.history == back.history
assert len(back.state.params["head"]["w"].sharding.device_set) == 8
assert len(again.state.params["head"]["w"].sharding.device_set) == 1
assert problem.equal(again.state, back.state)
print("done")
"""


def test_eight_devices_train_like_one(tmp_path):
    """The same masks and initial weights, so the same history up to the order of sums. Saved on 8, restored on 1 and 8.

    Momentum, not Adam, which turns rounding errors of a gradient that is 0 (the bias in front of BatchNorm) into steps.
    """
    root = Path(__file__).parent.parent
    env = os.environ | {
        "PYTHONPATH": str(root.parent),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": compiling.devices(8),
        "JAX_COMPILATION_CACHE_DIR": str(root.parent / ".cache" / "jax"),
    }
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", MESH, str(root), str(tmp_path)],
        env=env, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert run.stdout == "done\n", run.stderr[-3000:]
