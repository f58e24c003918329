"""The notebooks run from top to bottom with a small budget and on the small model, or they take minutes."""

import os
from pathlib import Path

import nbformat
import pytest
import torch
import transformers
from nbclient import NotebookClient
from transformers import AutoTokenizer, LlamaForCausalLM

from loka.model import Model, wrap
from loka.model.io.export import export
from loka.model.io.fetch import embedded

WRITES = {
    "00_first_edit": ["capitals.safetensors"],
    "01_locate": ["capitals.parquet"],
    "02_ablate": ["elements.safetensors"],
    "03_verify": ["world.txt", "world.yaml"],
}
ON_SMALL = ("00_first_edit", "01_locate", "02_ablate")  # the others make their own
ON_RANDOM = ("06_circuits",)  # its prompts are English, which only a large model knows
EXTRA = {"04_erasure": "cryptography"}  # of `loka[erasure]`
SYMBOLS = {"forget": {"symbol": 10}, "twins": {"symbol": ["Onum", "Alum"]}}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALL = """
import functools, loka
load, case = (functools.partial(of, path) for of, path in ((loka.load, {!r}), (loka.case, {!r})))
loka.load, loka.case = lambda name: load(), lambda name: case()
"""
RANDOM = """
import functools, loka
from loka.knowledge import CaseSpec
load = functools.partial(loka.load, {!r})
loka.load, CaseSpec.on = lambda name: load(), lambda spec, model: spec.whole()
"""


def random_model(folder: Path) -> Path:
    """A model of two layers with the tokens of the embedded one, which knows nothing."""
    config = transformers.LlamaConfig(
        vocab_size=49_152, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.5, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    hf, tokenizer = LlamaForCausalLM(config), AutoTokenizer.from_pretrained(embedded())
    return export(wrap(hf, tokenizer, "random"), folder)


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
    if path.stem in ON_RANDOM:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(RANDOM.format(str(random_model(tmp_path / "random")))))
    work = tmp_path / "work"
    work.mkdir()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(work)}}).execute()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures, "the notebook shows no figure"
    assert sorted(os.listdir(work)) == WRITES.get(path.stem, [])
