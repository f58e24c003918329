"""Mangled model folders and adapters: refused, or loaded as what the digest tells apart from the original."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from loka._util.errors import LokaError
from loka.model import Edit, Model, encode, export, export_adapter, load, logits, read_adapter, wrap
from loka.model.edit.factors import Factors
from loka.model.ends import end_ids
from loka.model.tokens import chat

from .conftest import Kind, attack, mangle

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "the", "of", "a", "capital", "sea", "is"]
CHAT = "{% for m in messages %}<bos> {{ m['role'] }} {{ m['content'] }} <eos>{% endfor %}"
loading = importlib.import_module("loka.model.load")  # `loka.model.load` is the function


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one narrow layer and ten words, which loads in milliseconds."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.3, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config)
    return export(wrap(hf, tokenizer), tmp_path_factory.mktemp("fuzz") / "model")


# Of what `load` does, the parts that a change of the file cannot concern. They give what they gave before, which saves
# most of the time.
WEIGHTS, TOKENIZER, PROBES = "weights", "tokenizer", "probes"
APART: dict[str, tuple[str, ...]] = {
    "config.json": (),
    "model.safetensors": (TOKENIZER,),
    "model.safetensors.index.json": (TOKENIZER, PROBES),
    "generation_config.json": (TOKENIZER, PROBES),
    "tokenizer_config.json": (WEIGHTS, PROBES),
    "tokenizer.json": (WEIGHTS, PROBES),
    "chat_template.jinja": (WEIGHTS, PROBES),
}


def keep(patch: pytest.MonkeyPatch, right: Model, part: str) -> None:
    """Let a part of `load` give what it gave for the whole folder."""
    if part == WEIGHTS:
        patch.setattr(loading, "check_folder", lambda _: {})
        patch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: (right.hf, {}))
    elif part == TOKENIZER:
        patch.setattr(loading.AutoTokenizer, "from_pretrained", lambda *_, **__: right.tokenizer)
    else:
        patch.setattr(loading, "check_causal", lambda *_: None)
        patch.setattr(loading, "examine", lambda *_: right.anatomy)


def told_apart(found: Model, right: Model) -> bool:
    """Whether two models have different digests, or say and read the same; what is refused says nothing."""
    if found.digest() != right.digest():
        return True
    texts = ["the capital of a sea is <eos> sea", "a"]
    try:
        said = [
            [
                logits(m, encode(m, texts, ["sea", "the"])).tolist(), m.tokenizer(texts)["input_ids"],
                m.tokenizer.batch_decode([[1, 4, 7, 3, 9]]), sorted(set(end_ids(m.hf, m.tokenizer))), m.start_id,
                chat(m, "a sea"),
            ]
            for m in (found, right)
        ]  # fmt: skip
    except LokaError:
        return True
    return said[0] == said[1]


@pytest.mark.parametrize("name", APART)
def test_model_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / name
    if name.endswith(".index.json"):
        (path.parent / "model.safetensors").rename(path.parent / "part.safetensors")
        path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map(path.with_name("part.safetensors"))}))
    right = load(str(path.parent))
    for part in APART[name]:
        keep(monkeypatch, right, part)
    ways = mangle.TENSORS if name.endswith(".safetensors") else mangle.JSON
    attack(Kind(path, lambda p: load(str(p.parent)), ways, told_apart))


def weight_map(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: path.name for name in header if name != "__metadata__"}


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters(planted: Model, tmp_path: Path, name: str) -> None:
    weight = next(n for n in planted.parameters if n.endswith("mlp.down_proj.weight"))
    rows, columns = planted.parameters[weight].shape
    edit = Edit((), (), planted.digest(), factors=(Factors(weight, torch.ones(rows, 1), torch.ones(1, columns)),))
    folder = export_adapter(planted, edit, tmp_path / "adapter")
    ways = mangle.TENSORS if name.endswith(".safetensors") else mangle.JSON
    attack(Kind(folder / name, lambda p: read_adapter(planted, p.parent), ways))
