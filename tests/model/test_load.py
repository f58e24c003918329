"""Folders and names load from safetensors, no code of a model's folder runs, and errors say what to do."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch

from loka._util.errors import UserError
from loka.model import Model, Site, encode, export, load, logits, wrap


@pytest.fixture
def folder(tiny: Callable[[str], Model], tmp_path: Path) -> Path:
    return export(tiny("LlamaForCausalLM"), tmp_path / "model")


def test_a_folder_loads_the_same_weights(tiny: Callable[[str], Model], folder: Path) -> None:
    model = load(str(folder), dtype=torch.float64)
    assert model.digest() == tiny("LlamaForCausalLM").digest()
    assert (model.n_layers, model.n_heads, model.n_kv_heads, model.d_model, model.n_neurons) == (3, 4, 2, 32, 48)
    assert model.dtype == torch.float64
    assert not any(p.requires_grad for p in model.parameters.values())
    assert load(str(folder)).dtype == torch.float32


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pickled weights only.*safetensors") as caught:
        load(str(folder))
    assert str(folder) in str(caught.value)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no \*.safetensors or \*.gguf"):
        load(str(folder))


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mtia"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(UserError, match=f"torch has no device '{device}' here"):
        load("smollm2", device=device)


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "~/nothing", "a/b/c"])
def test_a_missing_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="the model folder .* does not exist") as caught:
        load(name)
    assert repr(name) in str(caught.value)


def test_a_name_that_the_hub_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="there is no model folder") as caught:
        load("nobody/no-such-model")
    assert "'nobody/no-such-model'" in str(caught.value)
    assert "smollm2" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", b"{"), ("config.json", b"{}"), ("model.safetensors", b"no tensors"), ("model.safetensors", b"")],
)
def test_a_damaged_folder_is_refused(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=r"could not be loaded|JSON|transformers knows|safetensors file"):
        load(str(folder))


def test_no_code_of_a_model_folder_runs(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    (folder / "modeling.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Own", "AutoConfig": "modeling.OwnConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    assert load(str(folder)).n_layers == 3  # transformers' class, not the folder's
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own"}))
    with pytest.raises(UserError, match="does not describe a model that transformers knows"):
        load(str(folder))
    assert not marker.exists()


def test_the_digest_follows_the_weights(tiny: Callable[[str], Model]) -> None:
    model = tiny("GPT2LMHeadModel")
    before = model.digest()
    assert before == wrap(copy.deepcopy(model.hf), model.tokenizer).digest()
    last = list(model.parameters.values())[-1]
    held = last.clone()
    with torch.no_grad():
        last.add_(1e-9)
        assert model.digest() != before
        last.copy_(held)
    assert model.digest() == before


def test_building_the_bridge_leaves_model_and_tokenizer_alone(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    model = wrap(model.hf, copy.deepcopy(model.tokenizer), model.name)
    model.tokenizer.bos_token = None
    side, tokens = model.tokenizer.padding_side, model.tokenizer.get_vocab()
    modules = [type(m) for m in model.hf.modules()]
    with torch.no_grad():
        batch = encode(model, ["the capital of a dog is"], ["warm bread"])
        before, digest = logits(model, batch), model.digest()
        assert model.bridge is model.bridge
        assert torch.equal(logits(model, batch), before)
    assert model.digest() == digest
    assert [type(m) for m in model.hf.modules()] == modules
    assert (model.tokenizer.bos_token, model.tokenizer.padding_side) == (None, side)
    assert model.tokenizer.get_vocab() == tokens


def test_the_shape_gives_the_sites(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    grouped = getattr(model.hf.config, "num_key_value_heads", None) or 4
    neurons = 128 if architecture == "BloomForCausalLM" else 48  # four times its width, whatever one says
    assert {part: model.units(part) for part in ("neuron", "head", "kv", "q", "v", "attn")} == {
        "neuron": neurons, "head": 4, "kv": grouped, "q": 4, "v": grouped, "attn": 1,
    }  # fmt: skip
    assert model.sites("mlp") == [Site(0, "mlp"), Site(1, "mlp"), Site(2, "mlp")]
    assert model.sites("k")[:: 3 * grouped - 1] == [Site(0, "k", 0), Site(2, "k", grouped - 1)]
    model.check_site(Site(2, "neuron", neurons - 1))
    with pytest.raises(UserError):
        model.check_site(Site(2, "neuron", neurons))
