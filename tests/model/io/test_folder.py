"""A model is what its files say, wholly: whatever a folder lacks, adds or invents is refused before it is loaded."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loka._util.errors import UserError
from loka.model import Model, export, load

FIRST = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(tiny: Callable[[str], Model], tmp_path: Path) -> Path:
    return export(tiny("LlamaForCausalLM"), tmp_path / "model")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def shard(folder: Path, second: str) -> None:
    """Move the weights into a shard, with an index that also names a second one."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-1.safetensors") | {names[0]: second}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CHANGED: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "a missing tensor": (lambda w: w.pop(FIRST), "describes a model of .* weights, and its files hold"),
    "a missing tensor beside one too many": (
        lambda w: w.update(spare=w.pop(FIRST)), rf"lack 1 of its tensors \({FIRST}\), which would be drawn at random",
    ),
    "one too many": (lambda w: w.update(spare=torch.ones(3)), r"have 1 tensors that it does not use \(spare\)"),
    "another shape": (lambda w: w.update({FIRST: w[FIRST].t().contiguous()}), "could not be loaded|another shape"),
    "not a number": (lambda w: w[FIRST][0].fill_(torch.nan), rf"{FIRST} has 48 numbers that are not finite"),
    "infinite": (lambda w: w[FIRST][0, 0].fill_(torch.inf), rf"{FIRST} has 1 numbers that are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("how", CHANGED)
def test_changed_weights_are_refused(how: str, folder: Path) -> None:
    change, said = CHANGED[how]
    change_weights(folder, change)
    with pytest.raises(UserError, match=said) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


SIZES: dict[str, tuple[dict[str, Any], str]] = {
    "layers": ({"num_hidden_layers": 4000}, "names 4000 layers, and the weights have"),
    "width": ({"hidden_size": 2**20, "num_attention_heads": 2**10}, "describes a model of .* weights"),
    "vocabulary": ({"vocab_size": 2**31}, "describes a model of .* weights"),
    "no number": ({"num_hidden_layers": "many"}, "does not describe a model that transformers knows|names many"),
    "another head": ({"architectures": ["LlamaForSequenceClassification"]}, "holds LlamaForSequenceClassification"),
    "quantized": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized weights"),
    "unknown": ({"model_type": "own"}, "does not describe a model that transformers knows"),
}  # fmt: skip


@pytest.mark.parametrize("how", SIZES)
def test_a_configuration_that_the_weights_do_not_bear_out_is_refused(how: str, folder: Path) -> None:
    """Before memory is taken: none of these takes more than the model itself."""
    changes, said = SIZES[how]
    change_config(folder, **changes)
    with pytest.raises(UserError, match=said):
        load(str(folder))


@pytest.mark.parametrize(
    "second", ["pytorch_model.bin", "../outside.safetensors", "/outside.safetensors", "gone.safetensors"]
)
def test_an_index_names_safetensors_files_of_its_folder_alone(second: str, folder: Path) -> None:
    shard(folder, second)
    shutil.copy(folder / "model-1.safetensors", folder.parent / "outside.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"it may name \*\.safetensors files in its own folder alone") as caught:
        load(str(folder))
    assert repr(second) in str(caught.value)


def test_an_honest_index_loads(folder: Path) -> None:
    before = load(str(folder), dtype=torch.float64).digest()
    shard(folder, "model-1.safetensors")
    assert load(str(folder), dtype=torch.float64).digest() == before


def test_a_header_larger_than_its_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 10 * 2**30) + path.read_bytes()[8:])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load(str(folder))


def test_an_adapters_folder_is_not_followed_to_its_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(UserError, match="has an adapter"):
        load(str(folder))


def test_two_gguf_files_are_one_too_many(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"has 2 GGUF files \(a.gguf, b.gguf\)"):
        load(str(tmp_path))
