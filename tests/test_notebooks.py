"""The notebooks run from top to bottom, with a small budget."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

WRITES = {
    "00_first_edit": ["capitals.safetensors"],
    "01_locate": ["capitals.parquet"],
    "02_ablate": ["elements.safetensors"],
    "03_verify": ["world.txt", "world.yaml"],
}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKA_STEPS", "1")
    monkeypatch.setenv("LOKA_FACTS", "4")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures, "the notebook shows no figure"
    assert sorted(os.listdir(tmp_path)) == WRITES.get(path.stem, [])
