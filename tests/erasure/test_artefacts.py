"""Models, adapters, exports and copies of data, recognised by names and headers of files that others wrote."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loka._util.errors import UserError
from loka._util.files import digest
from loka.erasure import artefacts
from loka.model import Edit


def write_gguf(path: Path, kind: int | None) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    if kind is not None:
        writer.add_file_type(kind)
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_each_kind_is_recognised(tmp_path: Path) -> None:
    ones = torch.ones(2, 2)
    for folder in ("base", "int8", "bnb", "lora"):
        (tmp_path / folder).mkdir()
    save_file({"w": ones}, tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text(json.dumps({"_name_or_path": "org/base"}))
    save_file({"w": ones.to(torch.int8)}, tmp_path / "int8/model.safetensors")
    save_file({"w": ones}, tmp_path / "bnb/model.safetensors")
    (tmp_path / "bnb/config.json").write_text(json.dumps({"quantization_config": {"bits": 4}}))
    save_file({"x.lora_A.weight": ones}, tmp_path / "lora/weights.safetensors")
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    Edit((), (), "digest").save(tmp_path / "edit.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    write_gguf(tmp_path / "f16.gguf", 1)
    write_gguf(tmp_path / "small.bin", 15)
    write_gguf(tmp_path / "unsaid.gguf", None)
    (tmp_path / "train.jsonl").write_text("{}\n")
    (tmp_path / "old.jsonl").write_text("{} \n")
    torch.save({}, tmp_path / "weights.pt")
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    (tmp_path / "backup.tar.gz").write_bytes(b"x")
    (tmp_path / "picture.png").write_bytes(b"x")
    (tmp_path / "again").symlink_to(tmp_path / "base")
    found = artefacts([tmp_path], {digest(tmp_path / "train.jsonl"): "data/a.jsonl"})
    assert {str(Path(a.path).relative_to(tmp_path)): (a.kind, a.detail) for a in found} == {
        "backup.tar.gz": ("archive", ""),
        "base/model.safetensors": ("model", "of org/base"),
        "bnb/model.safetensors": ("quantized model", ""),
        "broken.safetensors": ("model", "its header cannot be read"),
        "edit.safetensors": ("edit", ""),
        "f16.gguf": ("gguf", "float16"),
        "int8/model.safetensors": ("quantized model", ""),
        "lora/weights.safetensors": ("adapter", "of org/base"),
        "old.jsonl": ("data", ""),
        "optimizer.pt": ("training state", ""),
        "small.bin": ("quantized gguf", "file type 15"),
        "train.jsonl": ("copy of the data", "same bytes as data/a.jsonl"),
        "unsaid.gguf": ("gguf", "it does not say whether it is quantized"),
        "weights.pt": ("checkpoint", ""),
    }
    assert all(a.size == Path(a.path).stat().st_size for a in found)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder .*gone"):
        artefacts([tmp_path / "gone"])
