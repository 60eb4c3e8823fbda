"""Ask 1: killed anywhere, in fresh processes, twice: the same bits as never stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from support import training as problem

from dlkit import data, optim, train
from dlkit.train import files

ROOT = Path(__file__).parent.parent

SCRIPT = """
import json, os, signal, sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from support import training as problem
from dlkit import train

folder, die_at, batch_size = sys.argv[2], int(sys.argv[3]), 16

class Ids(train.Callback):
    def on_step(self, run):
        with open(folder + "/ids.jsonl", "a") as handle:
            print(json.dumps([run.step, np.asarray(run.batch["index"]).tolist()]), file=handle)
        if run.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

saver = train.Checkpointer(every_steps=5, every_epochs=1)
stopping = train.EarlyStopping(patience=50)
result = train.fit(
    problem.task(), problem.optimizer(), problem.points(103), valid=problem.points(30, 1), epochs=4,
    batch_size=batch_size, seed=2, log_every=3, run_dir=folder, callbacks=[Ids(), stopping, saver],
)
import hashlib
leaves = jax.tree.leaves((result.state, stopping.arrays()))
digests = [hashlib.sha256(problem.raw(leaf).tobytes()).hexdigest() for leaf in leaves]
print(json.dumps({"leaves": digests, "history": result.history, "resumed": None, "because": result.stopped_because}))
"""


def start(folder, die_at=0, script=SCRIPT, **more):
    folder.mkdir(exist_ok=True)
    env = os.environ | {
        "PYTHONPATH": str(ROOT.parent),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    args = [sys.executable, "-c", script, str(ROOT), str(folder), str(die_at)]
    return subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def consumed(folder):
    """The ids of each step; a step that was repeated after a kill counts as it was last."""
    rows = [json.loads(line) for line in (folder / "ids.jsonl").read_text().splitlines()]
    return dict(rows), [step for step, _ in rows]


def test_killed_and_resumed_twice_in_fresh_processes(tmp_path):
    """7 steps an epoch, 28 in all: killed in the middle of an epoch (18: step 15 was saved), then right after an epoch
    (22, the first of the fourth; 21 was saved), resumed each time by a fresh process."""
    straight = finish(start(tmp_path / "straight"))
    killed = tmp_path / "killed"
    for die_at in (18, 22):
        process = start(killed, die_at)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    resumed = finish(start(killed))
    assert resumed == straight
    (ids, _), (again, order) = consumed(tmp_path / "straight"), consumed(killed)
    assert order == [*range(1, 19), *range(16, 23), *range(22, 29)]
    assert ids == again
    assert {i for step, row in ids.items() if step <= 7 for i in row} == set(range(103))
    digest = {
        f: hashlib.sha256((f / "metrics.jsonl").read_bytes()).hexdigest() for f in (tmp_path / "straight", killed)
    }
    assert len(set(digest.values())) == 1
    rows = train.read_rows(killed / "metrics.jsonl")
    assert [r["step"] for r in rows if r["kind"] == "steps"] == list(range(3, 28, 3))
    assert [r["epoch"] for r in rows if r["kind"] == "epoch"] == [1, 2, 3, 4]
    for run in ("straight", "killed"):
        manifest = files.read_manifest(train.latest(tmp_path / run / "checkpoints"))
        manifest["metadata"].pop("callbacks")
        assert manifest["step"] == 28


def run(folder, **more):
    kept = {"epochs": 3, "batch_size": 16, "log_every": 3, "seed": 2, "run_dir": folder} | more
    return train.fit(problem.task(), problem.optimizer(), problem.points(103), valid=problem.points(30, 1), **kept)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_and_called_again(tmp_path, signum, code):
    """A notebook: stop in the middle of an epoch, call `fit` again, get the bits of a run that was never stopped."""

    class Stop(train.Callback):
        def on_step(self, run):
            if run.step == 10:
                signal.raise_signal(signum)

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    straight = run(tmp_path / "straight")
    with pytest.raises(train.Interrupted, match=r"after step 10; saved as .*step_00000010.*call fit again") as caught:
        run(tmp_path / "stopped", callbacks=[Stop()])
    assert caught.value.exit_code == code
    assert caught.value.step == 10
    assert caught.value.path.name == "step_00000010"
    assert {s: signal.getsignal(s) for s in before} == before
    again = run(tmp_path / "stopped")
    assert problem.equal(again.state, straight.state)
    assert again.history == straight.history
    assert (tmp_path / "stopped/metrics.jsonl").read_bytes() == (tmp_path / "straight/metrics.jsonl").read_bytes()


def test_a_second_signal_ends_at_once(tmp_path):
    """While validation takes long, say: the first signal waits for it, the second does not."""
    script = SCRIPT.replace(
        "if run.step == die_at:",
        "if run.step == 3:\n            import time; print('there', flush=True); time.sleep(60)\n        if False:",
    )
    process = start(tmp_path / "run", script=script)
    for _ in range(400):
        if (line := process.stdout.readline()) == "there\n":
            break
        assert line, process.stderr.read()
    begin = time.perf_counter()
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert time.perf_counter() - begin < 20


def test_a_finished_run_is_returned_and_more_epochs_go_on(tmp_path):
    class Count(train.Callback):
        steps = 0

        def on_step(self, run):
            self.steps += 1

    first = run(tmp_path / "a", epochs=2)
    count = Count()
    again = run(tmp_path / "a", epochs=2, callbacks=[count])
    assert count.steps == 0
    assert problem.equal(again.state, first.state)
    assert (again.history, again.stopped_because, again.best) == (first.history, first.stopped_because, first.best)
    more = run(tmp_path / "a", epochs=3, callbacks=[count])
    assert count.steps == 7
    straight = run(tmp_path / "b", epochs=3)
    assert problem.equal(more.state, straight.state)
    assert more.history == straight.history
    with pytest.raises(ValueError, match=r"holds a run: choose another run_dir, or go on with it"):
        run(tmp_path / "a", resume=False)
    assert files.steps(tmp_path / "a" / "checkpoints")


def test_early_stopping_survives_an_interruption(tmp_path):
    """Stops in the same epoch, with the same best parameters, and stays stopped."""

    class Worse(train.Callback):
        def __init__(self, stop_at=0):
            self.stop_at = stop_at

        def on_epoch(self, run, row):
            row["valid/loss"] = abs(row["epoch"] - 2)

        def on_step(self, run):
            if run.step == self.stop_at:
                signal.raise_signal(signal.SIGINT)

    def go(name, stop_at=0):
        return run(tmp_path / name, epochs=9, callbacks=[Worse(stop_at), train.EarlyStopping(patience=2)])

    straight = go("straight")
    with pytest.raises(train.Interrupted):
        go("stopped", 18)
    again = go("stopped")
    for result in (again, go("stopped"), go("straight")):
        assert problem.equal(result.state, straight.state)
        assert result.stopped_because == straight.stopped_because
        assert len(result.history) == 4
    params, _ = train.load_model(tmp_path / "stopped", problem.network())
    assert problem.equal(params, straight.state.params)


def test_another_run_is_refused(tmp_path):
    """The message names the field."""
    run(tmp_path, epochs=1)
    for change, named in {
        "seed": (5, "seed was 2, and is 5"),
        "batch_size": (8, "batch_size was 16, and is 8"),
    }.items():
        with pytest.raises(ValueError, match=named[1]):
            run(tmp_path, epochs=2, **{change: named[0]})
    with pytest.raises(ValueError, match="dataset was"):
        train.fit(problem.task(), problem.optimizer(), problem.points(103, 5), batch_size=16, seed=2, run_dir=tmp_path)
    with pytest.raises(train.CheckpointError, match="opt_state"):
        train.fit(problem.task(), optim.sgd(0.1), problem.points(103), batch_size=16, seed=2, run_dir=tmp_path)
    with pytest.raises(train.CheckpointError, match=r"train/params"):
        train.fit(
            problem.task(problem.network(norm=False)), problem.optimizer(), problem.points(103),
            batch_size=16, seed=2, run_dir=tmp_path,
        )  # fmt: skip


def test_a_damaged_checkpoint_costs_its_steps_only(tmp_path):
    """The newest is passed over with one warning, and the run comes to the same bits."""
    straight = run(tmp_path / "straight")
    run(tmp_path / "damaged", epochs=2)
    newest = train.latest(tmp_path / "damaged" / "checkpoints")
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    with pytest.warns(train.CheckpointWarning, match="going back to step_00000007"):
        again = run(tmp_path / "damaged")
    assert problem.equal(again.state, straight.state)
    assert (tmp_path / "damaged/metrics.jsonl").read_bytes() == (tmp_path / "straight/metrics.jsonl").read_bytes()


def test_which_checkpoints_a_run_leaves(tmp_path):
    saver = train.Checkpointer(keep_last=2, keep_best=1, every_steps=3)
    result = run(tmp_path, callbacks=[saver])
    left = list(files.steps(tmp_path / "checkpoints"))
    assert left[-2:] == [18, 21]
    assert set(left) == {18, 21, result.best["step"]}
    assert train.best_step(tmp_path / "checkpoints", "valid/loss").name == f"step_{result.best['step']:08d}"


def test_two_runs_are_the_same_bits():
    a, b = (
        train.fit(problem.task(), problem.optimizer(), problem.points(), epochs=1, batch_size=32, seed=4)
        for _ in range(2)
    )
    assert problem.equal(a.state, b.state)
    other = train.fit(problem.task(), problem.optimizer(), problem.points(), epochs=1, batch_size=32, seed=5)
    assert not np.array_equal(a.state.params["head"]["w"], other.state.params["head"]["w"])
    assert isinstance(jax.tree.leaves(a.state)[0], jax.Array)
    assert data.Loader(problem.points(), 32, seed=4).state(1, 0)["seed"] == 4
