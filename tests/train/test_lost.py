"""A run that is lost to NaN: what it says, what it leaves, and that its files are JSON."""

import json
import math

import numpy as np
import pytest
from support import training as problem

from dlkit import data, losses, nn, optim, train


def refuse(word):
    raise AssertionError(f"bare {word} in JSON")


def strict_json(folder):
    for path in (*folder.rglob("manifest.json"), *folder.rglob("*.jsonl")):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse)


class Poison(train.Callback):
    """Make the parameters NaN after two epochs."""

    def on_epoch(self, run, row):
        if run.epoch == 2:
            run.state = run.state._replace(params={k: v * math.nan for k, v in run.state.params.items()})


@pytest.mark.parametrize("restore_best", [True, False])
def test_the_model_is_written_where_what_is_returned_is_finite(tmp_path, restore_best):
    task, ds = train.Task(nn.Linear(4, 3), losses.cross_entropy), problem.points(16)
    stopping = train.EarlyStopping("train/loss", restore_best=restore_best)
    result = train.fit(
        task,
        optim.sgd(0.1),
        ds,
        epochs=5,
        batch_size=8,
        run_dir=tmp_path,
        callbacks=[stopping, Poison(), train.StopOnNan()],
    )
    assert result.stopped_because == "train/loss (nan) is not finite, first in step 5"
    assert (tmp_path / "model").is_dir() == restore_best
    if restore_best:
        params, _ = train.load_model(tmp_path, task.model)
        np.testing.assert_array_equal(params["w"], result.state.params["w"])
        assert np.isfinite(params["w"]).all()
    strict_json(tmp_path)


def test_numbers_that_are_not_finite_come_back(tmp_path):
    held = {"row": {"a": math.nan, "b": [-math.inf, 1.0]}, "c": None}
    path = train.save(tmp_path, 1, {"w": np.ones(1)}, held)
    strict_json(tmp_path)
    got = train.restore(path, {"w": np.ones(1)})[1]
    assert math.isnan(got["row"].pop("a"))
    assert got == {"row": {"b": [-math.inf, 1.0]}, "c": None}


def test_a_saved_run_without_the_callback(tmp_path):
    """Its history, with NaN in it, is saved and read again."""
    ds = data.Arrays(x=np.full((4, 4), np.inf, np.float32), y=np.zeros(4, np.int32))
    task = train.Task(nn.Linear(4, 3), losses.cross_entropy)
    with pytest.warns(UserWarning, match="after epoch 1"):
        train.fit(task, optim.sgd(0.1), ds, epochs=1, run_dir=tmp_path)
    strict_json(tmp_path)
    again = train.fit(task, optim.sgd(0.1), ds, epochs=1, run_dir=tmp_path)
    assert math.isnan(again.history[0]["train/loss"])
