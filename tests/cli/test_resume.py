"""What `dlkit train` does where a run is already: goes on, refuses, says that it has ended, clears away."""

import json
import shutil

import pytest

from dlkit import train
from dlkit.cli import main
from dlkit.config import load, parse

pytestmark = pytest.mark.xdist_group("cli_resume")  # one worker, so that the run is made once

CONFIG = """
metrics = ["accuracy"]
data = {name = "digits", limit = 64, valid = 40, test = 60}
model = {name = "linear", d_in = 64, classes = 10}
loss = {name = "cross_entropy"}
optimizer = {name = "sgd", learning_rate = 0.1}
train = {epochs = 2, batch_size = 32, tensorboard = false, plots = false}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A config and the run that `dlkit train` made of it."""
    folder = tmp_path_factory.mktemp("resume")
    config = folder / "tiny.toml"
    config.write_text(CONFIG)
    assert main(["train", str(config), "--run-dir", str(folder / "tiny")]) == 0
    return config, folder / "tiny"


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run."""
    return shutil.copytree(made[1], tmp_path / "r")


@pytest.fixture
def dlkit(capsys, made):
    """Train in a directory; returns (exit code, standard output, standard error)."""

    def go(folder, *args):
        capsys.readouterr()
        code = main(["train", str(made[0]), *args, "--run-dir", str(folder)])
        return code, *capsys.readouterr()

    return go


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_is_shown_again(dlkit, run):
    before = contents(run)
    code, out, _ = dlkit(run)
    assert code == 0
    assert "has ended: 2 of 2 epochs trained; nothing to train" in out
    assert "going on with it" not in out
    assert "accuracy" in out
    after = contents(run)
    after.pop("example.png", None)
    before.pop("example.png", None)
    assert after == before
    code, out, _ = dlkit(run, "train.epochs=1", "train.log_every=7")  # nothing is trained with these
    assert code == 0
    assert load(run / "config.toml").train.log_every == 20
    assert contents(run)["config.toml"] == before["config.toml"]


def test_more_epochs_go_on_and_the_config_says_so(dlkit, run):
    assert "repeats it" in (run / "config.toml").read_text()
    code, out, _ = dlkit(run, "train.epochs=3")
    assert code == 0
    assert "going on with it" in out
    assert "train.epochs: 2 -> 3" in out.split("going on")[0]  # the header shows what the command line changes
    assert len(train.read_rows(run / "metrics.jsonl", "epoch")) == 3
    text = (run / "config.toml").read_text()
    assert "repeats it" not in text
    assert "#   train.epochs: 2 -> 3" in text
    assert parse(text).train.epochs == 3
    following = out.strip().splitlines()[-1].split()
    assert following[-2:] == ["train.epochs=6", "run.name=longer"]
    assert sum(word.startswith("train.epochs=") for word in following) == 1


@pytest.mark.parametrize("change", ["optimizer.learning_rate=0.5", "seed=1", "metrics=[]", "loss.label_smoothing=0.1"])
def test_settings_that_were_not_trained_are_refused(dlkit, run, change):
    before = contents(run)
    code, out, err = dlkit(run, change, "train.epochs=3")
    assert code == 2
    for word in (change.split("=")[0], "->", "--restart", "run.name=other"):
        assert word in err
    assert "train.epochs" not in err  # this one may change
    assert "test set" not in out
    assert contents(run) == before


def test_restart_validates_first_and_removes_a_run_only(dlkit, run, tmp_path):
    (run / "model" / "notes.txt").write_text("mine")
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "notes.txt").write_text("mine")
    before = contents(run)
    assert dlkit(run, "data={name='arrays', path='none.npz'}", "--restart")[0] == 2
    assert dlkit(run, "loss={name='binary_cross_entropy'}", "--restart")[0] == 2
    assert contents(run) == before
    code, out, _ = dlkit(run, "seed=5", "train.epochs=1", "--restart")
    assert code == 0
    assert "There is a run" not in out
    assert len(train.read_rows(run / "metrics.jsonl", "epoch")) == 1
    assert load(run / "config.toml").seed == 5
    assert "repeats it" in (run / "config.toml").read_text()
    assert (run / "model" / "notes.txt").read_text() == (run / "tensorboard" / "notes.txt").read_text() == "mine"

    other = tmp_path / "project"
    (other / "model").mkdir(parents=True)
    (other / "model" / "step_1").write_text("mine")
    (other / "config.toml").write_text("title = 'mine'\n")
    before = contents(other)
    code, _, err = dlkit(other, "--restart")
    assert code == 2
    assert "is none" in err
    assert contents(other) == before


def test_names_of_files_and_folders_do_not_become_names_of_runs(made, tmp_path, monkeypatch, capsys):
    config, _ = made
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my config.toml").write_text(config.read_text())
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["train", "../my config.toml", "--run-dir", ".", "train.epochs=1"]) == 0
    assert load("config.toml").run.name is None
    assert main(["eval", "."]) == 0
    assert main(["train", "config.toml"]) == 0  # the run's own config means the run
    assert not (here / "runs").exists()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "my config.toml", "train.epochs=1"]) == 0
    capsys.readouterr()
    assert main(["eval", "my config.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "runs/my config"
    assert main(["train", "runs/my config", "train.epochs=1", "run.name=other"]) == 0
    assert (tmp_path / "runs" / "other" / "config.toml").is_file()


def test_a_run_that_is_lost_to_nan_failed(dlkit, tmp_path):
    code, out, _ = dlkit(tmp_path / "r", "loss={name='mse'}", "metrics=[]", "optimizer.learning_rate=1e30",
                         "model={name='linear', d_in=64, classes=1}", *_numbers(tmp_path))  # fmt: skip
    assert code == 1
    assert "stopped: " in out
    assert "not finite" in out
    assert "checkpoint" in out.split("stopped: ")[1]
    for word in ("test set", "saved\n", "next"):
        assert word not in out.split("stopped: ")[1]
    assert not (tmp_path / "r" / "result.json").exists()


def _numbers(folder):
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(folder / "n.npz", x=rng.normal(size=(64, 64)), y=rng.normal(size=(64, 1)))
    return [f"data={{name='arrays', path='{folder / 'n.npz'}'}}"]


def test_a_run_that_stopped_early_says_why_nothing_is_trained(dlkit, tmp_path):
    stopping = ["train.early_stopping={patience=1, min_delta=100.0}"]
    assert dlkit(tmp_path / "r", *stopping, "train.epochs=4")[0] == 0
    code, out, _ = dlkit(tmp_path / "r", *stopping, "train.epochs=80")
    assert code == 0
    for word in ("has ended: early stopping", "nothing to train", "run.name=longer"):
        assert word in out
    assert "going on with it" not in out
    assert load(tmp_path / "r" / "config.toml").train.epochs == 4
