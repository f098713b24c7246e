"""Notebooks run from the first cell to the last, and show what they say."""

import asyncio
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@every_notebook
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_a_notebook_runs(path, monkeypatch):
    """Where Jupyter runs it, in its own folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}
    )
    asyncio.run(client.async_execute())  # raises with the cell and its error


@every_notebook
def test_a_notebook_is_stored_with_what_it_shows(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    text = path.read_text("utf-8")
    assert str(ROOT.parent) not in text
    assert len(text) < 350_000  # lower the dpi of its pictures
