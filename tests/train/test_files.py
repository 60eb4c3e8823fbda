"""Directories that are whole or absent: killed writers, failing calls, full disks, damaged bytes."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import train
from dlkit.train import files

PATH = Path(files.__file__)

# The writer imports the module by its path, so that no test waits for JAX.
WRITER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
folder, step = sys.argv[2], max(files.steps(sys.argv[2]), default=0) + 1
print("ready", flush=True)
while True:
    content = {name: bytes([(step + i) % 251]) * 200_000 for i, name in enumerate(("a.bin", "b.bin"))}
    files.write_step(folder, step, content, {"metadata": {"n": step}})
    if step % 5 == 0:  # the same step again: it is replaced
        files.write_step(folder, step, content, {"metadata": {"n": step}})
    print(step, flush=True)
    for old in sorted(files.steps(folder))[:-3]:
        files.remove_step(files.steps(folder)[old])
    step += 1
"""


def check(folder, least):
    """Every step that is listed is whole, and the newest is not older than what was reported as saved."""
    found = files.steps(folder)
    for step, path in found.items():
        manifest, contents = files.read_step(path)
        assert manifest["metadata"] == {"n": step}
        assert contents["a.bin"] == bytes([step % 251]) * 200_000
    assert max(found, default=0) >= least
    return max(found, default=0)


def test_killed_at_any_moment(tmp_path):
    """Twelve SIGKILLs at seeded random moments of a process that writes, replaces and removes steps."""
    rng, reported, leftovers = random.Random(0), 0, 0
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(PATH), str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 0.12))
            writer.send_signal(signal.SIGKILL)
            lines = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        reported = max([reported, *map(int, lines)])
        reported = check(tmp_path, reported)
        leftovers += any(name.startswith(".") for name in os.listdir(tmp_path))
    assert reported > 12
    files.write_step(tmp_path, reported + 1, {"a.bin": b"x", "b.bin": b"y"}, {"metadata": {}})
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    print(f"12 kills, {reported} steps, {leftovers} times something was left over")  # noqa: T201


class FaultyOs:
    """`os`, whose n-th call that changes the disk fails."""

    CHANGES = ("open", "write", "fsync", "close", "rename", "mkdir", "unlink", "rmdir")

    def __init__(self, fail_at):
        self.calls, self.fail_at, self.failed = 0, fail_at, None

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.CHANGES:
            return real

        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == self.fail_at:
                self.failed = name
                if name == "close":
                    real(*args, **kwargs)  # the handle is gone even where close reports an error
                raise OSError(5, "Input/output error", str(args[0]))
            return real(*args, **kwargs)

        return call


@pytest.mark.filterwarnings("ignore::dlkit.train.CheckpointWarning")
def test_failing_at_every_call(tmp_path, monkeypatch):
    """Fail the first call that touches the disk, then the second, ... until a save needs fewer."""
    content = {"a.bin": b"a" * 1000, "b.bin": b"b" * 10}
    seen = set()
    for n in range(1, 200):
        folder = tmp_path / str(n)
        for step in (1, 2, 3):
            files.write_step(folder, step, content, {"metadata": {"n": step}})
        faulty = FaultyOs(n)
        monkeypatch.setattr(files, "os", faulty)
        saved, errors = [], {}
        for step in (3, 4):  # one that replaces, and a new one
            try:
                files.write_step(folder, step, content, {"metadata": {"n": step, "again": True}})
                saved.append(step)
            except files.CheckpointError as error:
                errors[step] = str(error)
        files.remove_step(files.steps(folder)[1])
        monkeypatch.undo()
        for step, error in errors.items():
            assert re.search(rf"saving step {step} in {folder} failed: \[Errno 5\] Input/output error", error)
        found = files.steps(folder)
        for path in found.values():
            files.read_step(path)
        assert {2, 3, *saved} <= found.keys()
        for step in saved:
            assert files.read_step(found[step])[0]["metadata"] == {"n": step, "again": True}
        files.write_step(folder, 9, content, {"metadata": {}})
        assert [name for name in os.listdir(folder) if name.startswith(".")] == []
        if faulty.failed is None:
            break
        seen.add(faulty.failed)
    assert faulty.failed is None
    assert seen == set(FaultyOs.CHANGES)
    assert n > 30


def test_disk_full(tmp_path):
    """A limit on the size of files stands for a disk without space: reported, earlier steps whole, later saves work."""
    files.write_step(tmp_path, 1, {"a.bin": b"a" * 1000}, {"metadata": {"n": 1}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(train.CheckpointError, match=r"saving step 2 in .* failed: \[Errno 27\]"):
            files.write_step(tmp_path, 2, {"a.bin": b"a" * 200_000}, {"metadata": {"n": 2}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(files.steps(tmp_path)) == [1]
    assert os.listdir(tmp_path) == ["step_00000001"]
    files.write_step(tmp_path, 2, {"a.bin": b"a" * 200_000}, {"metadata": {"n": 2}})
    files.read_step(files.steps(tmp_path)[2])


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def zero_page(path, rng):
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    content[at : at + 64] = bytes(b ^ 0xFF for b in content[at : at + 64])
    path.write_bytes(content)


def truncate(path, rng):
    os.truncate(path, rng.randrange(path.stat().st_size))


def grow(path, rng):
    with open(path, "ab") as handle:
        handle.write(b"\0" * rng.randrange(1, 9))


DAMAGES = {
    "flip": flip,
    "overwrite": zero_page,
    "truncate": truncate,
    "grow": grow,
    "empty": lambda path, rng: os.truncate(path, 0),
    "delete": lambda path, rng: path.unlink(),
    "extra": lambda path, rng: path.with_name(f"extra{rng.randrange(99)}").write_bytes(b""),
    "swap": lambda path, rng: path.write_bytes((path.parent.parent / "step_00000001" / path.name).read_bytes()),
}


def test_every_damage_is_seen_and_the_step_before_is_taken(tmp_path):
    """Damage to each file in eight ways, 64 cases: none silent; the newest whole step is found, with one warning."""
    template = {"w": jnp.zeros((64, 8)), "b": jnp.zeros(3)}
    for step in (1, 2):
        train.save(tmp_path, step, {"w": jnp.full((64, 8), float(step)), "b": jnp.ones(3)}, {"n": step})
    whole = {p.name: p.read_bytes() for p in (tmp_path / "step_00000002").iterdir()}
    rng, cases = random.Random(1), 0
    for name, damage in DAMAGES.items():
        for file in whole:
            for _ in range(4):
                damage(tmp_path / "step_00000002" / file, rng)
                with pytest.raises(train.CheckpointError, match="step_00000002"):
                    train.restore(tmp_path / "step_00000002", template)
                with pytest.warns(train.CheckpointWarning, match="going back to step_00000001") as warned:
                    assert train.latest(tmp_path) == tmp_path / "step_00000001"
                assert len(warned) == 1
                assert name in ("delete", "extra") or file in str(warned[0].message)
                for path in (tmp_path / "step_00000002").iterdir():
                    path.unlink()
                for other, content in whole.items():
                    (tmp_path / "step_00000002" / other).write_bytes(content)
                cases += 1
    assert cases == 64
    tree, about = train.restore(train.latest(tmp_path), template)
    assert about == {"n": 2}
    assert float(tree["w"][0, 0]) == 2.0
    for path in tmp_path.glob("step_*"):
        flip(path / "state.safetensors", rng)
    with pytest.raises(train.CheckpointError, match="none of the 2 checkpoints") as caught:
        train.latest(tmp_path)
    assert len(str(caught.value).splitlines()) < 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000001", "step_00000002"]  # nothing was deleted


def test_a_step_being_replaced_is_still_there(tmp_path):
    """What a kill between the two renames of a replacement leaves: the old one counts, and is put back."""
    files.write_step(tmp_path, 7, {"a.bin": b"old"}, {"metadata": {}})
    os.rename(tmp_path / "step_00000007", tmp_path / ".replaced_step_00000007")
    assert files.read_step(files.steps(tmp_path)[7])[1] == {"a.bin": b"old"}
    files.write_step(tmp_path, 8, {"a.bin": b"new"}, {"metadata": {}})
    assert sorted(os.listdir(tmp_path)) == ["step_00000007", "step_00000008"]


def test_strange_places(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "step_00000001").mkdir()
    for path, message in {
        tmp_path / "file": "is a file",
        tmp_path / "nothing": "does not exist",
        tmp_path / "step_00000001": "manifest.json in .* cannot be read",
    }.items():
        with pytest.raises(train.CheckpointError, match=message):
            train.read(path)
    with pytest.raises(train.CheckpointError, match="saving step 3"):
        train.save(tmp_path / "file", 3, {"w": jnp.ones(1)})
    assert train.latest(tmp_path / "nothing") is None


def test_the_manifest_cannot_lead_outside(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    path = files.write_step(tmp_path / "run", 1, {"a.bin": b"a"}, {"metadata": {}})
    manifest = json.loads((path / "manifest.json").read_text())
    inner = manifest["manifest"]
    inner["files"]["../../secret"] = {"bytes": 1, "sha256": files.hashlib.sha256(b"x").hexdigest()}
    digest = files.hashlib.sha256(files.canonical(inner)).hexdigest()
    (path / "manifest.json").write_bytes(files.canonical({"manifest": inner, "sha256": digest}))
    with pytest.raises(train.CheckpointError, match="no plain name"):
        files.read_step(path)


def test_the_writer_needs_no_jax():
    code = WRITER.split("folder, step")[0] + "print([name for name in ('jax', 'numpy') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code, str(PATH)], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_numpy_alone_reads_a_checkpoint(tmp_path):
    """Ask 29: the layout is plain. Eight bytes of length, a JSON header, the numbers."""
    path = train.save(tmp_path, 3, {"layer": {"w": jnp.arange(6.0).reshape(2, 3)}, "b": jnp.ones(2, jnp.bfloat16)})
    raw = (path / "state.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    entry = header["layer/w"]
    begin, end = entry["data_offsets"]
    assert entry["dtype"] == "F32"
    np.testing.assert_array_equal(
        np.frombuffer(body[begin:end], "<f4").reshape(entry["shape"]), np.arange(6.0).reshape(2, 3)
    )
