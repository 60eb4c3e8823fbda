"""Every notebook runs from top to bottom, its own assertions hold, and it is committed with its outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.resources["metadata"] = {"path": str(path.parent)}
    client.execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_committed_with_its_outputs(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code[0].source.splitlines()[-1].startswith("%pip install -q ")
    assert sum(cell.source.count("assert ") for cell in code) >= 5, "claims are asserted"
    figures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert figures, "a notebook shows at least one figure"
    assert all(cell.execution_count for cell in code), "run it from top to bottom before committing"
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["01_first_network", "02_training_with_fit"]
