"""The notebooks of examples/: they run, and carry no output of an earlier run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def said(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What each cell printed, by the cell's name."""
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_output_is_kept(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)
    assert path.stat().st_size < 20_000


def test_twenty_images_become_a_classifier(tmp_path, monkeypatch):
    """The whole notebook, with one epoch in the place of thirty."""
    notebook = nbformat.read(ROOT / "examples/adapt_your_photos.ipynb", as_version=4)
    settings = next(cell for cell in notebook.cells if cell.id == "settings")
    assert settings.source.startswith("epochs = 30")
    settings.source = "epochs = 1"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    answers = said(notebook)
    assert "of 20 right" in answers["count"] and answers["predict"].count("new-") == 4
    (out,) = tmp_path.glob("*/adapted")
    assert (out / "crops.png").is_file() and "epoch 1/1" in answers["train"]
