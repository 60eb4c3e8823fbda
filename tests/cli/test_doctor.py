"""What the doctor says about recorded error texts, and about this machine."""

import pytest

from dlkit.cli import main
from dlkit.cli.doctor import diagnose, examine

RECORDED = [
    (
        "ABORTED: libtpu.so is already in use by another process probably owned by another user. "
        'Run "$ sudo lsof -w /dev/accel0" to figure out which process is using the TPU. If you still get this message, '
        'run "$ sudo rm /tmp/libtpu_lockfile".',
        "another process holds the TPU",
    ),
    (
        "Unable to initialize backend 'tpu': ABORTED: Internal error when accessing libtpu multi-process lockfile. "
        'Run "$ sudo rm /tmp/libtpu_lockfile".',
        "another process holds the TPU",
    ),
    (
        "Unable to initialize backend 'cuda': INTERNAL: no supported devices found for platform CUDA; "
        "CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
        "no GPU is visible to CUDA",
    ),
    (
        "INTERNAL: cudaGetErrorString: CUDA driver version is insufficient for CUDA runtime version",
        "the NVIDIA driver and CUDA do not work together",
    ),
    (
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.",
        "the device has no free memory",
    ),
    (
        "jaxlib version 0.4.16 is newer than and incompatible with jax version 0.4.13. Please update your jax and/or "
        "jaxlib packages.",
        "jax and jaxlib do not belong together",
    ),
    (
        "Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present.",
        "the platform that was asked for is not installed",
    ),
    ("something nobody has seen\nwith details", "something nobody has seen"),
]


@pytest.mark.parametrize(("text", "problem"), RECORDED)
def test_recorded_errors(text, problem):
    found, command = diagnose(text)
    assert problem in found
    assert command


def test_facts_of_this_machine(capsys):
    facts, problems = examine()
    named = dict(facts)
    assert {"dlkit", "python", "jax", "jaxlib", "devices", "cores", "extras"} <= named.keys()
    assert "cpu" in named["devices"]
    assert "without" in named or "sympy" in named["extras"]
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert named["jax"] in out
    assert code == (1 if problems else 0)


def test_missing_packages_are_named_with_one_command(monkeypatch, capsys):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "sklearn" else real(name, *a))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing packages: scikit-learn" in out
    assert 'pip install -e ".[train]"' in out


def test_what_only_some_need_is_no_problem(monkeypatch):
    import importlib.util

    _, problems = examine()
    real = importlib.util.find_spec
    lacking = ("tokenizers", "sympy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in lacking else real(name, *a))
    facts, lacked = examine()
    assert lacked == problems
    told = [value for name, value in facts if name == "without"]
    assert [text.split(",")[0] for text in told] == list(lacking)
    assert 'pip install -e ".[text]"' in told[0]
    assert 'pip install -e ".[labs]"' in told[1]
