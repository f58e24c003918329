"""An export is an ordinary model: transformers alone gives the same logits, with the edit."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loka import ablate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.model import Model, Site, encode, export, load, logits, wrap


def test_the_edited_model_reloads_in_transformers_alone(
    tiny: Callable[[str], Model], architecture: str, planted_case: Case, tmp_path: Path
) -> None:
    model = tiny(architecture)
    batch = encode(model, ["the capital of a dog is"], ["warm bread"])
    edit = ablate.zero(model, planted_case, [Site(0, "neuron", 2), Site(1, "head", 1)])
    digest = model.digest()
    with torch.no_grad():
        original = logits(model, batch)
        with edit.applied(model):
            wanted = logits(model, batch)
    assert (wanted - original).abs().max() > 1e-3
    for name, change, said in (("plain", None, original), ("edited", edit, wanted)):
        folder = export(model, tmp_path / name, edit=change)
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, use_safetensors=True).to(model.device)
        with torch.no_grad():
            out = hf(**batch.inputs(), use_cache=False, logits_to_keep=batch.keep + 1).logits[:, :-1]
        near = 1e-6 if architecture == "GPTJForCausalLM" else 0  # its angles are made in the precision that is loading
        torch.testing.assert_close(out, said, rtol=0, atol=near)
        assert not list(folder.glob("*.bin"))
    assert model.digest() == digest


def test_the_tokenizer_is_exported_too(tiny: Callable[[str], Model], tmp_path: Path) -> None:
    model, text = tiny("LlamaForCausalLM"), "the capital of a dog is warm bread"
    again = AutoTokenizer.from_pretrained(export(model, tmp_path / "model"))
    assert again(text)["input_ids"] == model.tokenizer(text)["input_ids"]
    assert (again.bos_token, again.pad_token) == ("<bos>", "<pad>")


def test_a_tokenizer_without_a_pad_token_stays_so(tiny: Callable[[str], Model], tmp_path: Path) -> None:
    """The user's tokenizer is not changed, and padding does not change a number."""
    model = tiny("LlamaForCausalLM")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.pad_token = None
    bare = wrap(model.hf, tokenizer, "bare")
    assert bare.bridge is not None
    prompts, answers = ["the capital of a dog is", "a dog"], ["warm bread", "likes"]
    for rows in (slice(0, 1), slice(1, 2)):
        alone = logits(bare, encode(bare, prompts[rows], answers[rows]))[0, -1]
        torch.testing.assert_close(logits(bare, encode(bare, prompts, answers))[rows][0, -1], alone, atol=1e-12, rtol=0)
    folder = export(bare, tmp_path / "model")
    assert tokenizer.pad_token is None
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    assert load(str(folder)).tokenizer.pad_token is None


def test_a_model_whose_bridge_was_built_exports_too(tiny: Callable[[str], Model], tmp_path: Path) -> None:
    model = tiny("GPT2LMHeadModel")
    assert model.bridge is not None
    folder = export(model, tmp_path / "model")
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).to(model.device)
    assert all(torch.equal(p, model.parameters[n]) for n, p in hf.named_parameters())


def test_a_target_that_is_not_empty_is_refused_and_left_alone(tiny: Callable[[str], Model], tmp_path: Path) -> None:
    model = tiny("LlamaForCausalLM")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UserError, match="is not empty; name a new folder"):
            export(model, tmp_path / name)
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_an_empty_folder_is_accepted_and_a_failure_leaves_nothing(
    tiny: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("LlamaForCausalLM")
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="broke"):
        patch.setattr(model.tokenizer, "save_pretrained", lambda _: (_ for _ in ()).throw(RuntimeError("broke")))
        export(model, tmp_path / "empty")
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]
    assert (export(model, tmp_path / "empty") / "model.safetensors").exists()
