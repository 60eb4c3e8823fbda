"""What the README and the docs show runs, names only what exists, and leaves no public name out."""

import dataclasses
import importlib
import inspect
import json
import os
import re
import sys
import types
import typing
from pathlib import Path

import jax
import matplotlib
import pytest

from dlkit.config.schema import Cifar10, Train

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PACKAGES = ["functional", "nn", "optim", "losses", "metrics", "data", "models", "io", "train", "inspect", "autodiff"]
PACKAGES += ["testing", "curvature", "generalization"]


def blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page with their line numbers, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text[: m.start(1)].count("\n") + 1, m.group(1)) for m in found]


# Pages that take seconds: `.ci/run` runs them, and `pytest -m "" tests/test_docs.py`.
LONG = ("autodiff", "curvature", "generalization", "language", "models", "preconditioners", "seeing", "zeroth_order")


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.thorough if p.stem in LONG else (), id=p.name) for p in PAGES if blocks(p)],
)
def test_python_blocks_run(page, tmp_path, monkeypatch, unchecked):
    """The blocks of a page run in order in one namespace, in an empty directory, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    module = types.ModuleType("page")  # a module of its own, so that what the page defines can be pickled
    monkeypatch.setitem(sys.modules, "page", module)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for line, source in blocks(page):
            exec(compile("\n" * line + source, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_exist(page):
    """`nn.Linear` in a page is an attribute of dlkit.nn."""
    text = page.read_text(encoding="utf-8")
    for package, name in set(re.findall(rf"\b({'|'.join(PACKAGES)})\.([A-Za-z_]\w*)", text)):
        prefixes = re.findall(rf"(\S*)\b{package}\.{name}\b", text)
        keys = {"train": Train, "data": Cifar10}.get(package)
        if keys is not None and name in keys.model_fields:
            continue  # a key of a config: train.epochs=3
        if name in ("py", "md", "toml", "json", "jsonl") or all(
            re.search(r"[\w.]\.$", p) and "dlkit." not in p for p in prefixes
        ):
            continue  # a file, or another library's: torch.nn.Linear
        module = importlib.import_module(f"dlkit.{package}")
        assert hasattr(module, name) or _submodule(package, name), f"{page.name} names {package}.{name}"


def _submodule(package: str, name: str) -> bool:
    return (ROOT / "dlkit" / package / f"{name}.py").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package):
    """It is in `__all__`, has a docstring of its own, and a page of the docs shows it."""
    module = importlib.import_module(f"dlkit.{package}")
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = []
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.ismodule(thing):
            continue
        generated = dataclasses.is_dataclass(thing) and (thing.__doc__ or "").startswith(f"{name}(")
        alias = typing.get_origin(thing) is not None  # of a type: its page says what it is
        if (callable(thing) or inspect.isclass(thing)) and not alias and (not inspect.getdoc(thing) or generated):
            missing.append(f"{name}: no docstring")
        if not re.search(rf"\b{re.escape(name)}\b", text):
            missing.append(f"{name}: on no page of docs/ or README.md")
    assert not missing, f"dlkit.{package}: " + "; ".join(missing)


def test_the_table_of_the_lectures_names_what_exists():
    """Paths in backticks are files, `file.py::test` is in it, the `#heading` of a notebook is one of its own."""
    page = ROOT / "docs" / "seeds.md"
    text, wrong = page.read_text(encoding="utf-8"), []
    named = set(re.findall(r"`((?:tests|configs|docs|benchmarks|notebooks|dlkit)/[^`\s]*)`", text))
    assert len(named) > 40
    for name in named:
        path, _, test = name.partition("::")
        if not (ROOT / path).exists():
            wrong.append(f"{path} is not there")
        elif test and not re.search(rf"^def {re.escape(test)}\b", (ROOT / path).read_text(), re.MULTILINE):
            wrong.append(f"{path} has no {test}")
    for target, anchor in re.findall(r"\]\(([^)#]+\.ipynb)#([^)]+)\)", text):
        cells = json.loads((page.parent / target).read_text(encoding="utf-8"))["cells"]
        lines = [
            line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).split("\n")
        ]
        headings = {line.lstrip("# ").replace(" ", "-") for line in lines if line.startswith("#")}
        if anchor not in headings:
            wrong.append(f"{target} has no heading {anchor!r}: {sorted(headings)}")
    assert not wrong, "; ".join(wrong)


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert os.path.exists(page.parent / target), f"{page.name} links to {target}, which is not there"
