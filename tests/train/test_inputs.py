"""What `fit` is given: errors that name the argument, and one run in a directory at a time."""

import inspect
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import training as problem

from dlkit import data, losses, metrics, nn, optim, train

# As a user calls them: in the tests an import hook checks the annotations, too, and would speak first.
fit, evaluate = inspect.unwrap(train.fit), inspect.unwrap(train.evaluate)

X, Y = np.zeros((5, 4), np.float32), np.zeros(5, np.int32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X, "y": Y}, r"expected data\.Arrays, got dict: data\.Arrays\(\*\*fields\)"),
        ((X, Y), r"expected data\.Arrays, got tuple: data\.Arrays\(x=x, y=y\)"),
        (X, r"expected data\.Arrays, got ndarray"),
    ],
)
def test_a_dict_is_no_dataset(given, message):
    """Its length is the number of its fields: a run on 2 examples would not be seen."""
    task, optimizer = problem.task(), problem.optimizer()
    with pytest.raises(TypeError, match=f"train: {message}"):
        fit(task, optimizer, given)
    with pytest.raises(TypeError, match=f"valid: {message}"):
        fit(task, optimizer, problem.points(8), valid=given)
    with pytest.raises(TypeError, match=f"dataset: {message}"):
        evaluate(task, {}, {}, given)
    with pytest.raises(TypeError, match=message):
        inspect.unwrap(data.Loader.__init__)(object.__new__(data.Loader), given, 2)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "log_every", "max_steps", "eval_batch_size"])
def test_numbers_are_whole_and_positive(name):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, got 1.5"):
        fit(problem.task(), problem.optimizer(), problem.points(8), **{name: 1.5})
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        fit(problem.task(), problem.optimizer(), problem.points(8), **{name: 0})


@pytest.mark.parametrize(
    ("optimizer", "fix"),
    [(0.1, r"optim\.adam\(0\.1\)"), (optim.cosine_decay_schedule(0.1, 9), r"adam\(schedule\)"), (None, "adam")],
)
def test_a_rate_is_no_optimizer(optimizer, fix):
    with pytest.raises(TypeError, match=rf"optimizer: expected one of dlkit\.optim or of optax, got .*{fix}"):
        fit(problem.task(), optimizer, problem.points(8))


def test_a_run_dir_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(NotADirectoryError, match=r"run_dir .*run is a file"):
        fit(problem.task(), problem.optimizer(), problem.points(8), run_dir=tmp_path / "run")


HOLD = """
import pathlib, sys, time
from dlkit.train.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_one_run_in_a_directory_at_a_time(tmp_path):
    """The second is refused, with the holder's process id, and touches nothing; a kill sets the directory free."""
    task, optimizer, ds = problem.task(), optim.sgd(0.1), problem.points(8)
    half = tmp_path / "checkpoints" / ".tmp_step_00000001_00000000"  # what the other is just writing
    half.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"in use by the process with pid {other.pid}:"):
            fit(task, optimizer, ds, epochs=1, run_dir=tmp_path)
        assert half.is_dir()
        other.send_signal(signal.SIGKILL)
    assert fit(task, optimizer, ds, epochs=1, run_dir=tmp_path).stopped_because == "1 epoch"
    assert fit(task, optimizer, ds, epochs=2, run_dir=tmp_path).stopped_because == "2 epochs"  # released at the end

    class Nested(train.Callback):
        def on_step(self, run):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
            with pytest.raises(BlockingIOError, match=str(os.getpid())):
                fit(task, optimizer, ds, epochs=9, run_dir=tmp_path)

    fit(task, optimizer, ds, epochs=3, run_dir=tmp_path, callbacks=[Nested()])


class Broken(metrics.Accuracy):
    def measure(self, outputs, targets, weight=None):
        raise ValueError("no such thing")


def test_errors_of_loss_and_metrics_name_them():
    batch, model = problem.batch(), problem.network(dropout=0.0, norm=False)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="no such thing") as caught:
        problem.task(model, metrics={"mine": Broken()}).loss_fn(params, {}, batch, nn.EVAL)
    assert "in metric 'mine'" in caught.value.__notes__
    with pytest.raises(TypeError, match="the loss returned None: expected an array with one value an example"):
        train.Task(model, lambda outputs, targets: None).loss_fn(params, {}, batch, nn.EVAL)
    with pytest.raises(ValueError, match=r"the loss returned shape \[\] for a batch of 8 .*leave the mean to the task"):
        train.Task(model, lambda outputs, targets: jnp.mean(outputs)).loss_fn(params, {}, batch, nn.EVAL)


def test_one_warning_a_run():
    """Three epochs whose loss is not finite."""
    task = train.Task(nn.Linear(4, 3), losses.cross_entropy)
    ds = data.Arrays(x=np.full((4, 4), np.inf, np.float32), y=np.zeros(4, np.int32))
    with pytest.warns(UserWarning, match="after epoch 1") as caught:
        train.fit(task, optim.sgd(0.1), ds, epochs=3)
    assert len(caught) == 1
