"""Transformers reads the GGUF files that are written here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from loka._util.errors import UserError
from loka.model import Edit, Model, Site, encode, export_gguf, load, logits, slices, wrap

Make = Callable[[str], Model]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("12", "3"), ("123", "4"), ("'", "S"), ("n", "'")]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
RAW = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITS = {
    "gpt-2": BYTES,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), RAW]),
}
TEXTS = ["so the end is there", "  two  spaces\n\n\tand 東京, naïve\r\n", "it'S 1234x then'S", "<eos> the<bos>"]


def bytes_and_pairs(split: Any = BYTES, frame: str = "$A", **options: Any) -> PreTrainedTokenizerFast:
    """All bytes, a few merges, and the special tokens; `frame` says what stands around a text."""
    words = ["<pad>", "<bos>", "<eos>", *ALPHABET, *(a + b for a, b in MERGES)]
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, MERGES, **options))
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
    ids = [("<bos>", 1), ("<eos>", 2), ("<pad>", 0)]
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, pair="$A $B", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def small(kind: str = "LlamaForCausalLM", tokenizer: Any = None, **changes: Any) -> Model:
    """A tiny random model with a vocabulary of bytes and pairs."""
    tokenizer = tokenizer or bytes_and_pairs()
    of = getattr(transformers, kind)
    sizes: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 272, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        hf = of(of.config_class(**sizes | changes))
        for p in hf.parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=0.2)
    return wrap(hf, tokenizer, kind)


def reloaded(path: Path) -> Model:
    hf = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return wrap(hf, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name), "again")


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("LlamaForCausalLM", {}),
        ("LlamaForCausalLM", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
        ("LlamaForCausalLM", {"head_dim": 12, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
        ("MistralForCausalLM", {"sliding_window": None}),
        ("MistralForCausalLM", {"sliding_window": 64}),
    ],
    ids=["plain", "tied", "heads and base", "Mistral", "window"],
)
def test_transformers_reads_the_same_logits(kind: str, changes: dict[str, Any], edited: bool, tmp_path: Path) -> None:
    model = small(kind, **changes)
    where = slices(model, [Site(0, "head", 1), Site(1, "kv", 0), Site(1, "neuron", 3)])
    edit = Edit(tuple(where), tuple(torch.randn(w.read(model.parameters[w.name]).shape) for w in where), model.digest())
    path = export_gguf(model, tmp_path / "model.gguf", edit=edit if edited else None)
    batch = encode(model, ["the other day", "is it"], ["the end", "so"])
    with torch.no_grad():
        plain = wanted = logits(model, batch)
        if edited:
            with edit.applied(model):
                wanted = logits(model, batch)
            assert not torch.allclose(wanted, plain, atol=1e-2)
        assert torch.allclose(logits(reloaded(path), batch), wanted, atol=1e-4)
    context = gguf.GGUFReader(path).fields["llama.context_length"].contents()
    assert context == (changes.get("sliding_window") or model.hf.config.max_position_embeddings)
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("frame", ["$A", "<bos> $A", "$A <eos>", "<bos> $A <eos>"])
def test_transformers_reads_the_same_tokens(split: str, frame: str, tmp_path: Path) -> None:
    model = small(tokenizer=bytes_and_pairs(SPLITS[split], frame, ignore_merges=split == "llama-bpe"))
    path = export_gguf(model, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(path).fields
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    assert fields["tokenizer.ggml.pre"].contents() == split
    assert fields["tokenizer.ggml.add_bos_token"].contents() == ("<bos>" in frame)
    assert fields["tokenizer.ggml.add_eos_token"].contents() == ("<eos>" in frame)
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in TEXTS:
        if split == "smollm" and "1234" in text:  # transformers does not know that this name keeps digits apart
            continue
        assert again(text)["input_ids"] == model.tokenizer(text)["input_ids"], text
    for kind in ("bos", "eos", "pad"):
        assert getattr(again, f"{kind}_token_id") == getattr(model.tokenizer, f"{kind}_token_id")


LLAMA_31 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "is a GPT2LMHeadModel, not one of": {"kind": "GPT2LMHeadModel"},
    "has the activation 'gelu'": {"hidden_act": "gelu"},
    r"has biases \(model.layers.0.self_attn.q_proj.bias\)": {"attention_bias": True},
    r"has biases \(model.layers.0.mlp.gate_proj.bias\)": {"mlp_bias": True},
    r"scales its rotary positions \(llama3\)": {"rope_parameters": LLAMA_31},
    r"scales its rotary positions \(dynamic\)": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    },
}


@pytest.mark.parametrize("reason", MODELS)
def test_models_that_the_file_cannot_hold_are_refused(reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        export_gguf(small(**MODELS[reason]), tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


def sentencepiece() -> PreTrainedTokenizerFast:
    """Pairs of characters, with spaces as marks and bytes for what is unknown, as Llama 2 has them."""
    words = {"<unk>": 0, **{f"<0x{i:02X}>": i + 1 for i in range(256)}, "▁": 257, "a": 258, "▁a": 259}
    tokenizer = Tokenizer(models.BPE(words, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")


def normalized() -> PreTrainedTokenizerFast:
    tokenizer = bytes_and_pairs()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def added(**options: bool) -> PreTrainedTokenizerFast:
    tokenizer = bytes_and_pairs()
    tokenizer.add_tokens([transformers.AddedToken("<mask>", **options)])
    return tokenizer


def beyond() -> PreTrainedTokenizerFast:
    """A token that no text of the model's has, and whose id is one after its last."""
    tokenizer = bytes_and_pairs()
    tokenizer.add_tokens([f"<more {n}>" for n in range(272 - len(tokenizer) + 1)])
    return tokenizer


PUNCTUATED = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), BYTES])
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "is a SentencePiece vocabulary": sentencepiece,
    "rewrites text by NFC": normalized,
    "splits text by Punctuation and ByteLevel": lambda: bytes_and_pairs(PUNCTUATED),
    "splits text by Split and ByteLevel": lambda: bytes_and_pairs(SPLITS["llama-bpe"]),  # merges are not ignored
    "puts other tokens than BOS and EOS": lambda: bytes_and_pairs(BYTES, "<pad> $A"),
    "has the token 272, beyond the model's 272, and LOKA cannot write that as GGUF": beyond,
    "matches its token '<mask>' together": lambda: added(lstrip=True),
}


@pytest.mark.parametrize("reason", TOKENIZERS)
def test_tokenizers_that_the_file_cannot_hold_are_refused(reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"tokenizer of LlamaForCausalLM {reason}"):
        export_gguf(small(tokenizer=TOKENIZERS[reason]()), tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_user_gives_is_written(tmp_path: Path) -> None:
    path = export_gguf(small(tokenizer=bytes_and_pairs(PUNCTUATED)), tmp_path / "a.gguf", pre="falcon")
    assert gguf.GGUFReader(path).fields["tokenizer.ggml.pre"].contents() == "falcon"


def test_other_tokenizers_and_files_are_refused(tiny: Make, tmp_path: Path) -> None:
    for model, name, words in (
        (tiny("LlamaForCausalLM"), "a.gguf", "is of the kind WordLevel, and LOKA cannot write that as GGUF"),
        (small(), "a.bin", "does not end in .gguf; name a new file"),
    ):
        with pytest.raises(UserError, match=words):
            export_gguf(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lost", ["rope_freqs.weight", "blk.0.attn_q.bias", "llama.rope.scaling.type"])
def test_a_file_of_which_transformers_drops_a_part_is_not_loaded(lost: str, tmp_path: Path) -> None:
    """The same file without that part loads."""
    whole = export_gguf(small(), tmp_path / "whole" / "model.gguf")
    assert load(str(whole.parent)).n_layers == 3
    reader, folder = gguf.GGUFReader(whole), tmp_path / "more"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    if lost.endswith("type"):
        writer.add_string(lost, "linear")
    else:
        writer.add_tensor(lost, torch.ones(32).numpy())
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match=f"has {lost}, which transformers does not read"):
        load(str(folder))
