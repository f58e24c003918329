"""The notebooks run from top to bottom with a small budget and on the small model, or they take minutes."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from loka.model import Model
from loka.model.io.export import export

WRITES = {
    "00_first_edit": ["capitals.safetensors"],
    "01_locate": ["capitals.parquet"],
    "02_ablate": ["elements.safetensors"],
    "03_verify": ["world.txt", "world.yaml"],
}
ON_SMALL = ("00_first_edit", "01_locate", "02_ablate")  # the others make their own
EXTRA = {"04_erasure": "cryptography"}  # of `loka[erasure]`
SYMBOLS = {"forget": {"symbol": 10}, "twins": {"symbol": ["Onum", "Alum"]}}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALL = """
import functools, loka
load, case = (functools.partial(of, path) for of, path in ((loka.load, {!r}), (loka.case, {!r})))
loka.load, loka.case = lambda name: load(), lambda name: case()
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Model, files) -> None:
    if path.stem in EXTRA:
        pytest.importorskip(EXTRA[path.stem], reason='needs the extra erasure: pip install "loka[erasure]"')
    monkeypatch.setenv("LOKA_STEPS", "1")
    monkeypatch.setenv("LOKA_FACTS", "4")
    notebook = nbformat.read(path, as_version=4)
    if path.stem in ON_SMALL:
        about = SYMBOLS if path.stem == "02_ablate" else {}
        small = export(planted, tmp_path / "small"), files.write(tmp_path / "case", **about)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(SMALL.format(*map(str, small))))
    work = tmp_path / "work"
    work.mkdir()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(work)}}).execute()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures, "the notebook shows no figure"
    assert sorted(os.listdir(work)) == WRITES.get(path.stem, [])
