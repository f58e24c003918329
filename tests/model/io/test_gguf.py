"""Transformers reads the GGUF files that are written here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from loka._util.errors import UserError
from loka.model import Edit, Model, Site, encode, export_gguf, logits, slices, wrap

Make = Callable[[str], Model]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def bytes_and_pairs(size: int) -> PreTrainedTokenizerFast:
    """All bytes, a few merges, and the special tokens."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    words = ["<pad>", "<bos>", "<eos>", *ALPHABET, *(a + b for a, b in merges)]
    assert len(words) <= size
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def spelled(model: Model) -> Model:
    """The model with a vocabulary of bytes and pairs."""
    model.hf.resize_token_embeddings(262, mean_resizing=False)
    return wrap(model.hf.float(), bytes_and_pairs(262), model.name)


@pytest.mark.parametrize("architecture_", ["LlamaForCausalLM", "MistralForCausalLM"])
@pytest.mark.parametrize("edited", [False, True])
def test_transformers_reads_the_same_logits_and_tokens(
    architecture_: str, edited: bool, tiny: Make, tmp_path: Path
) -> None:
    model = spelled(tiny(architecture_))
    where = slices(model, [Site(0, "head", 1), Site(1, "kv", 0), Site(1, "neuron", 3)])
    edit = Edit(tuple(where), tuple(torch.randn(w.read(model.parameters[w.name]).shape) for w in where), model.digest())
    path = export_gguf(model, tmp_path / "model.gguf", edit=edit if edited else None)
    batch = encode(model, ["the other day", "is it"], ["the end", "so"])
    with torch.no_grad():
        plain = logits(model, batch)
        if edited:
            with edit.applied(model):
                wanted = logits(model, batch)
            assert not torch.allclose(wanted, plain, atol=1e-2)
        else:
            wanted = plain
        hf = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
        again = wrap(hf.to(model.device), model.tokenizer, "again")
        assert torch.allclose(logits(again, batch), wanted, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    text = "so the end is there"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == model.tokenizer(text)["input_ids"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_models_and_files_that_do_not_fit_are_refused(tiny: Make, tmp_path: Path) -> None:
    for model, name, words in (
        (tiny("GPT2LMHeadModel"), "a.gguf", "has the architecture 'gpt2'; LOKA writes GGUF for llama, mistral"),
        (tiny("LlamaForCausalLM"), "a.gguf", "is of the kind WordLevel; LOKA writes GGUF for byte-pair encodings"),
        (spelled(tiny("LlamaForCausalLM")), "a.bin", "does not end in .gguf; name a new file"),
    ):
        with pytest.raises(UserError, match=words):
            export_gguf(model, tmp_path / name)
    assert not list(tmp_path.iterdir())
