"""House rules that a machine can check: what is imported, what is never called, how long a file is."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "dlkit").rglob("*.py"))

# Modules and calls that can run code found in data. Two files of `testing` pickle definitions of their own making.
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "joblib", "cloudpickle", "dill", "jax._src", "jax.core"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "import_module", "extractall", "compile_command"}
ALLOWED = {("testing/properties.py", "pickle"), ("testing/transforms.py", "pickle")}


def offences(path: Path) -> list[str]:
    name, found = path.relative_to(ROOT / "dlkit").as_posix(), []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        bad = [m for m in modules if any(m == b or m.startswith(f"{b}.") for b in FORBIDDEN_MODULES)]
        found += [f"{name}:{node.lineno} imports {module}" for module in bad]
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            bare = isinstance(node.func, ast.Name) or called in ("import_module", "extractall")
            if called in FORBIDDEN_CALLS and bare:
                found.append(f"{name}:{node.lineno} calls {called}")
            for keyword in node.keywords:
                unsafe = keyword.arg in ("allow_pickle", "shell") and getattr(keyword.value, "value", None) is not False
                if unsafe:
                    found.append(f"{name}:{node.lineno} passes {keyword.arg}")
    return [f for f in found if not any(f.startswith(file) and what in f for file, what in ALLOWED)]


def test_nothing_can_run_code_from_data():
    assert [line for path in FILES for line in offences(path)] == []


def test_the_scan_sees_what_it_looks_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    bad = tmp_path / "dlkit" / "bad.py"
    bad.parent.mkdir()
    bad.write_text(
        "import pickle\nfrom jax._src import core\neval('1')\nimportlib.import_module(name)\n"
        "np.load(p, allow_pickle=True)\nre.compile('x')\nnp.load(p, allow_pickle=False)\nmodel.eval()\n"
    )
    assert len(offences(bad)) == 5


def test_files_keep_to_one_idea():
    long = {p.relative_to(ROOT).as_posix(): n for p in FILES if (n := len(p.read_text().splitlines())) > 330}
    assert not long, f"above the budget of about 300 lines: {long}"


LIGHT = """
import sys, jax, numpy, jax.numpy
before = set(sys.modules)
import dlkit
assert not {"dlkit.nn", "dlkit.optim"} & set(sys.modules), "import dlkit alone loads a subpackage"
from dlkit import *
new = {m.split(".")[0] for m in set(sys.modules)} - {m.split(".")[0] for m in before}
print(sorted(new - set(sys.stdlib_module_names)))
"""


def test_import_brings_in_nothing_heavy():
    """Beyond `import jax`: itself, jaxtyping and safetensors (and what jaxtyping needs)."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, env=env)
    assert set(ast.literal_eval(run.stdout)) <= {
        "dlkit",
        "jaxtyping",
        "safetensors",
        "wadler_lindig",
        "_safetensors_rust",
    }


def test_imports_go_one_way():
    pytest.importorskip("importlinter")
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


def test_version_is_said_once():
    import dlkit

    assert dlkit.__version__ in (ROOT / "dlkit" / "version.py").read_text()
