"""The commands end to end, in this process, on a tiny run; and once as the installed program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlkit import train
from dlkit.cli import main
from dlkit.config import load
from dlkit.train import checkpoint
from dlkit.version import __version__

pytestmark = pytest.mark.xdist_group("cli_commands")  # one worker, so that the run is made once

CONFIG = """
seed = 3
metrics = ["accuracy"]

[run]
directory = "DIRECTORY"

[data]
name = "digits"
limit = 64
valid = 40
test = 60

[model]
name = "cnn"
input = [8, 8, 1]
classes = 10
channels = [4]
norm = "batch"
dropout = 0.2

[loss]
name = "cross_entropy"

[optimizer]
name = "adam"
learning_rate = 1e-2
schedule = { name = "cosine", warmup = 0.1 }

[train]
epochs = 2
batch_size = 24
log_every = 2

[train.early_stopping]
patience = 5
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A config and the run that `dlkit train` made of it."""
    folder = tmp_path_factory.mktemp("cli")
    config = folder / "tiny.toml"
    config.write_text(CONFIG.replace("DIRECTORY", str(folder / "runs")))
    assert main(["train", str(config)]) == 0
    return config, folder / "runs" / "tiny"


@pytest.fixture
def dlkit(capsys):
    """Run a command; returns (exit code, standard output, standard error)."""

    def run(*args):
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def arrays(run: Path) -> dict[str, np.ndarray]:
    path = checkpoint.latest(run / "model")
    assert path is not None
    return checkpoint.read(path).arrays


def same(a: Path, b: Path) -> bool:
    one, two = arrays(a), arrays(b)
    equal = one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)
    return equal and (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def test_train_leaves_everything(made):
    _, run = made
    for name in ("config.toml", "metrics.jsonl", "result.json", "example.png", "learning_curves.png",
                 "confusion_matrix.png", "misclassified.png"):  # fmt: skip
        assert (run / name).stat().st_size > 100, name
    assert list((run / "tensorboard").glob("events.*"))
    assert list((run / "model").glob("step_*"))
    assert len(train.read_rows(run / "metrics.jsonl", "epoch")) == 2
    assert load(run / "config.toml").train.epochs == 2


def test_train_says_what_it_does(made, dlkit, tmp_path):
    config, _ = made
    code, out, _ = dlkit("train", config, "run.name=talk", f"run.directory={tmp_path}")
    assert code == 0
    for text in (
        f"dlkit {__version__}", "jax ", "64 / 24 = 3 updates an epoch (the last of 16), x 2 epochs = 6 updates",
        "[train.early_stopping] monitor = \"valid/loss\", patience = 5", "the weights are those after epoch",
        "64 train, 40 valid, 60 test", "conv1", "parameters", "epoch 2/2", "valid/loss", "test set, 60 examples",
        "accuracy", str(tmp_path / "talk" / "model"), f"dlkit eval {tmp_path / 'talk'}",
        f"dlkit predict {tmp_path / 'talk'} {tmp_path / 'talk' / 'example.png'}",
    ):  # fmt: skip
        assert text in out


def test_the_resolved_config_is_shown_and_is_a_config(made, dlkit, tmp_path):
    """Ask 38: printed as it is saved."""
    config, run = made
    code, out, _ = dlkit("train", config, "train.epochs=7", "--show-config", "--run-dir", tmp_path / "none")
    assert code == 0
    assert not (tmp_path / "none").exists()
    (tmp_path / "shown.toml").write_text(out)
    assert load(tmp_path / "shown.toml") == load(config, ["train.epochs=7"])
    assert dlkit("train", run, "--show-config")[1].strip() in (run / "config.toml").read_text()


def test_training_from_the_resolved_config_repeats_the_run_bit_for_bit(made, dlkit, tmp_path):
    _, run = made
    code, _, _ = dlkit("train", run / "config.toml", "--run-dir", tmp_path / "again")
    assert code == 0
    assert same(run, tmp_path / "again")
    assert dlkit("train", run / "config.toml", "seed=4", "--run-dir", tmp_path / "other")[0] == 0
    assert not same(run, tmp_path / "other")


def test_an_interrupted_run_resumes_to_the_same_bits(made, dlkit, tmp_path, monkeypatch):
    import signal

    config, run = made
    place = tmp_path / "stopped"
    on_step = train.StopOnNan.on_step

    def interrupt(self, running):
        if running.step == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train.StopOnNan, "on_step", interrupt)
    code, out, _ = dlkit("train", config, "--run-dir", place)
    assert code == 143
    again = out.strip().splitlines()[-1].split()
    assert again == ["dlkit", "train", str(config), "--run-dir", str(place)]
    assert dlkit("eval", place)[0] == 0  # from its newest checkpoint

    monkeypatch.setattr(train.StopOnNan, "on_step", on_step)
    code, out, _ = dlkit(*again[1:])
    assert code == 0
    assert "going on with it" in out
    assert same(run, place)


def test_eval(made, dlkit):
    config, run = made
    code, out, _ = dlkit("eval", run, "--json")
    values = json.loads(out)
    recorded = json.loads((run / "result.json").read_text())["test"]
    assert code == 0
    assert values["examples"] == 60
    assert {k: values[k] for k in ("loss", "accuracy")} == pytest.approx(recorded, rel=1e-6)
    code, out, _ = dlkit("eval", config, "--split", "valid")  # the config that made it
    assert code == 0
    assert "valid set, 40 examples" in out


def test_predict(made, dlkit):
    _, run = made
    code, out, _ = dlkit("predict", run, run / "example.png", run / "example.png", "--json")
    found = json.loads(out)
    assert code == 0
    assert len(found) == 2
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1)
    assert max(found[0]["probabilities"], key=found[0]["probabilities"].get) == str(found[0]["class"])
    code, text, _ = dlkit("predict", run, run / "example.png")
    assert f"example.png: {found[0]['class']}" in text
    code, text, _ = dlkit("predict", run, run / "example.png", "--invert")
    assert " %  #" in text


def test_predict_agrees_with_the_model_on_the_data(made, dlkit, tmp_path):
    from dlkit.config.assemble import assemble

    _, run = made
    parts = assemble(load(run / "config.toml"))
    params, state = train.load_model(run, parts.task.model)
    logits = train.predict(parts.task.model, params, state, parts.test["x"][:1])
    _, out, _ = dlkit("predict", run, run / "example.png", "--json")
    said = list(json.loads(out)[0]["probabilities"].values())
    exp = np.exp(logits[0] - logits[0].max())
    np.testing.assert_allclose(said, exp / exp.sum(), atol=0.02)  # a PNG holds 256 grey values


def test_summary_and_plot(made, dlkit):
    config, run = made
    code, out, _ = dlkit("summary", config, "model.channels=[6]")
    assert code == 0
    assert "conv1/w" in out
    assert "[3, 3, 1, 6]" in out
    assert "FLOPs" in out
    assert dlkit("summary", run)[1] != out
    (run / "confusion_matrix.png").unlink()
    code, out, _ = dlkit("plot", run)
    assert code == 0
    assert str(run / "confusion_matrix.png") in out.split()
    assert (run / "confusion_matrix.png").exists()


def test_a_billion_parameter_config_is_summed_up_in_two_seconds(made, dlkit):
    import time

    config, _ = made
    model = "model={name='mlp', widths=[64, 18000, 18000, 18000, 18000, 10]}"
    started = time.process_time()
    code, out, _ = dlkit("summary", config, model)
    assert time.process_time() - started < 2
    assert code == 0
    total = next(line for line in out.splitlines() if line.startswith("parameters"))
    assert int(total.split()[1].replace(",", "")) == 65 * 18000 + 3 * 18001 * 18000 + 18001 * 10


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "no.toml"], ["cannot read the config 'no.toml'"]),
        (["train", "CONFIG", "train.epoch=3"], ["train.epoch", "[train]", "'epochs'"]),
        (["train", "CONFIG", "train.epochs=x"], ["a whole number", '"x"']),
        (["train", "CONFIG", "train.platform=tpu"], ["train.platform", "tpu", "pip install"]),
        (["train", "CONFIG", "model.input=[9, 9, 1]"], ["[9, 9, 1]", "[8, 8, 1]"]),
        (["train", "CONFIG", "data.valid=0"], ["valid"]),
        (["train", "CONFIG", "data={name='arrays', path='none.npz'}"], ["none.npz"]),
        (["train"], ["CONFIG"]),
        (["trian", "CONFIG"], ["train"]),
        (["train", "CONFIG", "--no-such-option"], ["no-such-option"]),
        (["eval", "nowhere"], ["there is no run 'nowhere'", "runs/NAME"]),
        (["eval", "RUNO"], ["there is no run", "did you mean", "RUN'?"]),
        (
            ["train", "CONFIG", "loss.name=crossentropy"],
            ["loss.name: got 'crossentropy'; did you mean 'cross_"],
        ),
        (["eval", "CONFIG", "--split", "all"], ["test"]),
        (["predict", "RUN", "none.png"], ["none.png"]),
        (["predict", "RUN", "CONFIG"], ["not a PNG"]),
        (["predict", "RUN"], ["IMAGE"]),
        (["summary", "CONFIG", "--batch", "0"], ["--batch"]),
        (["plot", "CONFIG", "more"], ["more"]),
    ],
)
def test_user_errors_are_one_message_and_exit_code_2(made, dlkit, tmp_path, args, words):
    config, run = made
    names = {"CONFIG": str(config), "RUN": str(run), "RUNO": f"{run}o"}
    if args[0] == "train":
        args = [*args, "--run-dir", str(tmp_path / "r")]
    code, _, err = dlkit(*[names.get(a, a) for a in args])
    assert code == 2
    for word in words:
        assert word.replace("RUN", str(run)) in err if word.startswith("RUN") else word in err
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_other_failures_are_one_message_too(dlkit, monkeypatch):
    def fail(self):
        error = RuntimeError("something broke")
        error.add_note("in layer head")
        error.add_note("--------------------\nFor simplicity, JAX has removed its internal frames from the traceback")
        raise error

    monkeypatch.setattr("dlkit.cli.doctor.Doctor.run", fail)
    code, _, err = dlkit("doctor")
    assert code == 1
    assert "RuntimeError: something broke" in err
    assert "in layer head" in err
    assert "internal frames" not in err
    monkeypatch.setenv("DLKIT_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(["doctor"])


def test_hinge_gives_scores(made, dlkit, tmp_path):
    config, _ = made
    args = ["loss={name='multiclass_hinge'}", "model={name='linear', d_in=64, classes=10}", "train.epochs=1"]
    assert dlkit("train", config, *args, "--run-dir", tmp_path / "h")[0] == 0
    code, out, _ = dlkit("predict", tmp_path / "h", tmp_path / "h" / "example.png")
    assert code == 0
    assert "scores, not probabilities" in out


def test_arrays_of_your_own_with_a_written_out_model(made, dlkit, tmp_path):
    config, _ = made
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.savez(tmp_path / "mine.npz", x=x, y=(x @ [1.0, -2.0, 0.5])[:, None])
    layers = "[{type='Linear', d_in=3, d_out=4}, {type='Tanh'}, {type='Linear', d_in=4, d_out=1, name='head'}]"
    args = [f"data={{name='arrays', path='{tmp_path / 'mine.npz'}'}}", f"model={{name='chain', layers={layers}}}",
            "loss={name='mse'}", "metrics=['r2']", "train.platform=cpu"]  # fmt: skip
    assert dlkit("train", config, *args, "--run-dir", tmp_path / "r")[0] == 0
    assert (tmp_path / "r" / "learning_curves.png").exists()
    assert not (tmp_path / "r" / "confusion_matrix.png").exists()
    assert dlkit("eval", tmp_path / "r")[0] == 0
    assert dlkit("predict", tmp_path / "r", config)[0] == 2  # takes no pictures


def test_help_reads_well(dlkit):
    code, out, _ = dlkit("--help")
    assert code == 0
    for word in ("train", "eval", "predict", "summary", "plot", "doctor", "Exit codes"):
        assert word in out
    assert dlkit()[1] == out
    for command in ("train", "eval", "predict", "generate", "summary", "plot", "doctor"):
        code, out, _ = dlkit(command, "--help")
        assert code == 0
        assert "usage: dlkit " + command in out
        for word in ("STR", "INT", "FLOAT", "None", "(default: )", "()"):
            assert word not in out


def test_the_installed_program():
    program = Path(sys.executable).with_name("dlkit")
    if not program.exists():
        pytest.skip("dlkit is not installed as a program here")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, env=os.environ, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"dlkit {__version__}\n")
