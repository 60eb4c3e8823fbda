"""Notebooks run from top to bottom, their own assertions hold, and they are committed with their outputs.

Plain `pytest` runs the first; `pytest -n 0 --notebooks tests/test_notebooks.py` runs them all, as `.ci/run` does.
"""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, request):
    first = path == NOTEBOOKS[0]
    if not first and not request.config.getoption("--notebooks"):
        pytest.skip("--notebooks runs them all")
    notebook = nbformat.read(path, as_version=4)
    if not first:  # the first one's install cell has run, and the others' is the same
        install = notebook.cells[1]
        install.source = install.source.replace("%pip", "# %pip")
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
    outputs = [o for cell in code for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert path.stat().st_size < 400 * 1024, "fewer or smaller figures, or PNGs with a palette"


def test_the_install_cells_are_one(tmp_path, monkeypatch):
    """And what they do before installing: find the clone around or beside the notebook, else say what to do."""
    cells = {nbformat.read(path, as_version=4).cells[1].source for path in NOTEBOOKS}
    assert len(cells) == 1
    source = cells.pop().rsplit("\n", 1)[0]
    (tmp_path / "content" / "any_name" / "dlkit").mkdir(parents=True)
    (tmp_path / "content" / "any_name" / "notebooks").mkdir()
    monkeypatch.setattr("sys.path", [])
    monkeypatch.chdir(tmp_path / "content")
    with pytest.raises(AssertionError, match="git clone"):
        exec(source, {})  # noqa: S102
    (tmp_path / "content" / "any_name" / "dlkit" / "version.py").touch()
    for place in ("content", "content/any_name/notebooks"):
        monkeypatch.chdir(tmp_path / place)
        names: dict[str, object] = {}
        exec(source, names)  # noqa: S102
        assert names["clone"] == str(tmp_path / "content" / "any_name")


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{n:02}" for n in range(1, 19) if n != 17]
