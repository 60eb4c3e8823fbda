"""Ask 55: what a run writes is bounded; rows land in files."""

import io
import itertools
import json
import math
import re
import sys
import time
from types import SimpleNamespace

import pytest
from support import training as problem

from dlkit import data, train
from dlkit.train import console as module


class Clock:
    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


def fake_run(console, *, steps, epochs, log_every, seconds_a_step, monkeypatch):
    """Drive the hooks as `fit` does, with a clock of our own."""
    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", clock.perf_counter)
    run = SimpleNamespace(
        task=problem.task(), loader=data.Loader(problem.points(), 16), valid=None, run_dir=None, resumed_from=None,
        epochs=epochs, steps_per_epoch=steps // epochs, total_steps=steps, step=0, epoch=0, stopped_because=None,
        callbacks=[],
    )  # fmt: skip
    console.on_start(run)
    writes = []
    for step in range(1, steps + 1):
        clock.now += seconds_a_step
        run.step = step
        before = console.stream.tell()
        if step % log_every == 0:
            console.on_log(run, {"epoch": run.epoch + 1, "step": step, "train/loss": 1.2345678, "train/accuracy": 0.97})
        console.on_step(run)
        if step % run.steps_per_epoch == 0:
            run.epoch += 1
            console.on_epoch(run, {"epoch": run.epoch, "step": step, "train/loss": 1.0, "valid/loss": 2.0})
        if console.stream.tell() != before:
            writes.append(clock.now)
    console.on_end(run, SimpleNamespace(stopped_because=f"{epochs} epochs"))
    return writes


@pytest.mark.parametrize(("epochs", "seconds"), [(1, 0.001), (1, 1.0), (10, 0.5), (1000, 0.6)])
def test_plain_text_is_bounded(monkeypatch, epochs, seconds):
    """10,000 steps: at most 200 lines and 20,000 characters, at most 2 updates a second, no control characters."""
    console = train.Console(io.StringIO())
    writes = fake_run(
        console, steps=10_000, epochs=epochs, log_every=10, seconds_a_step=seconds, monkeypatch=monkeypatch
    )
    text = console.stream.getvalue()
    assert len(text.splitlines()) <= 200
    assert len(text) <= 20_000
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    early = writes[:-1]  # the end is always told
    assert all(b - a >= 0.5 - 1e-6 for a, b in itertools.pairwise(early))
    assert f"epoch {epochs}/{epochs}" in text
    assert "10,000/10,000" in text or "ended after 10,000 steps" in text
    if seconds >= 0.5:
        assert len(text.splitlines()) > 60  # it does tell something


def test_every_epoch_is_shown(monkeypatch):
    """Also where a log point ends it, and where epochs are shorter than the time between two lines."""
    console = train.Console(io.StringIO(), show_header=False)
    fake_run(console, steps=600, epochs=30, log_every=10, seconds_a_step=0.02, monkeypatch=monkeypatch)
    lines = console.stream.getvalue().splitlines()
    rows = [line for line in lines if "valid/loss" in line]
    assert [row.split()[1] for row in rows] == [f"{n}/30" for n in range(1, 31)]
    for line in lines:  # where an epoch ends, its row alone
        step = re.search(r"step (\d+)/600", line)
        assert step is None or int(step[1]) % 20


def test_many_epochs_are_spaced_evenly(monkeypatch):
    console = train.Console(io.StringIO(), show_header=False)
    fake_run(console, steps=1000, epochs=500, log_every=2, seconds_a_step=0.02, monkeypatch=monkeypatch)
    shown = [int(n) for n in re.findall(r"^epoch (\d+)/500 .*valid/loss", console.stream.getvalue(), re.MULTILINE)]
    assert shown[-1] == 500
    assert len(shown) <= 81
    assert {b - a for a, b in itertools.pairwise(shown[:-1])} == {7}


def test_speed_is_that_of_the_last_seconds(monkeypatch):
    """The first step takes a minute to compile: the time left is that of the others."""
    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", clock.perf_counter)
    console = train.Console(io.StringIO(), show_header=False)
    run = SimpleNamespace(step=0, total_steps=1000, epochs=1, epoch=0, stopped_because=None)
    console.on_start(run)
    clock.now += 60.0
    for run.step in range(1, 102):
        clock.now += 0.1
        console.on_step(run)
    assert "  10 steps/s  1:30 left" in console.line(run)
    for run.step in range(102, 202):  # and they may become slower
        clock.now += 0.2
        console.on_step(run)
    assert "  5 steps/s  2:40 left" in console.line(run)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_rewrites_one_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    console = train.Console(Terminal(), show_header=False)
    writes = fake_run(console, steps=10_000, epochs=1, log_every=10, seconds_a_step=0.01, monkeypatch=monkeypatch)
    text = console.stream.getvalue()
    assert "\x1b[2K" in text  # erase the line
    assert "steps/s" in text
    assert len(writes) <= 2 * 100 + 5
    assert text.count("\n") < 10


def test_the_line_stays_alive_where_epochs_are_short(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    console = train.Console(Terminal(), show_header=False)
    fake_run(console, steps=600, epochs=30, log_every=20, seconds_a_step=0.02, monkeypatch=monkeypatch)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", console.stream.getvalue())  # without colours
    lines = re.findall(r"step (\d+)/600 .*? (\S+) steps/s +(\S+) left", text)
    assert len({step for step, *_ in lines}) > 20
    assert {speed for _, speed, _ in lines[-20:]} == {"50"}
    assert lines[-1][2] == "0:00"


def test_header_and_lines_of_a_real_run():
    stream = io.StringIO()
    train.fit(
        problem.task(), problem.optimizer(), problem.points(103), valid=problem.points(30, 1), epochs=2, batch_size=16,
        callbacks=[train.Console(stream)],
    )  # fmt: skip
    text = stream.getvalue()
    assert "1 x cpu (cpu)" in text
    assert "dlkit" in text.split("versions")[1].splitlines()[0]
    assert "103 examples, validated on 30" in text
    assert "16 examples each: 7 steps an epoch, the last of 7" in text
    assert "14: 2 epochs" in text
    assert re.search(r"head/w +\[8, 3\] +float32 +24", text)
    assert "epoch 2/2  loss " in text
    assert "valid/accuracy" in text
    assert "ended after 14 steps" in text
    assert "the weights are" not in text


def test_the_end_says_whose_weights_there_are():
    class Scripted(train.Callback):
        def on_epoch(self, run, row):
            row["valid/loss"] = [3.0, 1.25, 2.0][row["epoch"] - 1]

    stream = io.StringIO()
    stopping = train.EarlyStopping(patience=5)
    callbacks = [Scripted(), stopping, train.Console(stream, show_header=False)]
    train.fit(problem.task(), problem.optimizer(), problem.points(20), epochs=3, batch_size=20, callbacks=callbacks)
    assert stopping.restored_epoch == 2
    assert stream.getvalue().endswith("3 epochs\nthe weights are those after epoch 2, the best (valid/loss 1.25)\n")


def test_progress_line():
    console = train.Console(io.StringIO(), show_header=False)
    run = SimpleNamespace(step=50, total_steps=150, epochs=3, epoch=0, stopped_because=None)
    console._row = {"step": 50, "train/loss": 0.5, "train/accuracy": 0.9}
    assert console.line(run).endswith("? steps/s  ? left")  # before the first step
    console._marks.append((time.perf_counter() - 10.0, 0))
    assert console.line(run) == "epoch 1/3  step 50/150  loss 0.5  accuracy 90.00 %  5 steps/s  0:20 left"
    assert module.clock(3725.0) == "1:02:05"


def test_missing_rich_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[train\]"'):
        train.Console(Terminal(), show_header=False).on_start(SimpleNamespace(step=0))


def test_json_lines(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    log = train.JsonLines(path, times=True)
    train.fit(
        problem.task(), problem.optimizer(), problem.points(), epochs=2, batch_size=16, log_every=3, callbacks=[log]
    )
    rows = train.read_rows(path)
    assert [(r["kind"], r["step"]) for r in rows] == [
        ("steps", 3), ("steps", 6), ("epoch", 7), ("steps", 9), ("steps", 12), ("epoch", 14),
    ]  # fmt: skip
    assert rows[1]["time/steps_per_second"] > 0
    assert len(train.read_rows(path, "epoch")) == 2
    with open(path, "a") as handle:
        handle.write('{"kind": "steps", "cut')
    assert len(train.read_rows(path)) == 6


def test_json_lines_are_strict_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    log = train.JsonLines(path)
    run = SimpleNamespace(step=0, run_dir=None)
    log.on_start(run)
    log.on_log(run, {"step": 1, "a": math.nan, "b": -math.inf, "c": [1.0, math.inf]})
    log.on_close(run)

    def refuse(word):
        raise AssertionError(word)

    assert json.loads(path.read_text(), parse_constant=refuse) == {
        "kind": "steps",
        "step": 1,
        "a": "nan",
        "b": "-inf",
        "c": [1.0, "inf"],
    }
    assert math.isnan(train.read_rows(path)[0]["a"])


def test_tensorboard_events(tmp_path):
    reader = pytest.importorskip("tensorboardX.proto.event_pb2")
    records = pytest.importorskip("tensorboardX.record_writer")
    train.fit(
        problem.task(), problem.optimizer(), problem.points(), epochs=2, batch_size=16, log_every=3,
        callbacks=[train.TensorBoard(tmp_path)],
    )  # fmt: skip
    assert records
    (file,) = tmp_path.iterdir()
    raw, found = file.read_bytes(), {}
    while raw:  # length, its checksum, the event, its checksum
        length = int.from_bytes(raw[:8], "little")
        event = reader.Event.FromString(raw[12 : 12 + length])
        raw = raw[12 + length + 4 :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
    assert found["steps/train/loss"] == [3, 6, 9, 12]
    assert found["epoch/train/accuracy"] == [7, 14]
