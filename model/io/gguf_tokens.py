"""A tokenizer as GGUF describes it: byte-level pairs, and llama.cpp's name for how it splits text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gguf

from ..._util.errors import UserError

if TYPE_CHECKING:
    from ..load import Model

_BYTES = {"type": "ByteLevel", "add_prefix_space": False}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """A way to split text: llama.cpp's name, the steps of the tokenizer, and whether whole words need no merges."""

    name: str
    steps: tuple[dict[str, Any], ...]
    ignore_merges: bool


PRE_TOKENIZERS = (
    PreTokenizer("gpt-2", (_BYTES | {"use_regex": True},), False),
    PreTokenizer("smollm", ({"type": "Digits", "individual_digits": True}, _BYTES | {"use_regex": True}), False),
    PreTokenizer(
        "llama-bpe",
        (
            {"type": "Split", "pattern": {"Regex": _LLAMA_3}, "behavior": "Isolated", "invert": False},
            _BYTES | {"use_regex": False},
        ),
        True,
    ),
)


@dataclass(frozen=True)
class GgufTokens:
    """The fields of a GGUF file that describe a tokenizer.

    `tokens` and `types` are by id; `special` has the ids of `bos`, `eos`, `pad` and `unk` where there are such.
    """

    pre: str
    tokens: list[str]
    types: list[gguf.TokenType]
    merges: list[str]
    special: dict[str, int]
    adds_bos: bool
    adds_eos: bool
    template: Any


def gguf_tokens(model: Model, pre: str | None = None) -> GgufTokens:
    """What GGUF says of a model's tokenizer; `pre` names how it splits text, where LOKA does not know.

    Raises:
        UserError: a tokenizer that would read text differently from such a file.
    """
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal(model, "is not a fast one")
    description = json.loads(backend.to_str())
    bpe, added = description["model"], {t["id"]: t for t in description.get("added_tokens", [])}
    _check_pairs(model, description)
    vocabulary = {i: token for token, i in bpe["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    size = model.hf.config.vocab_size
    if max(vocabulary) >= size:
        raise _refusal(model, f"has the token {max(vocabulary)}, beyond the model's {size}")
    for token in added.values():
        if any(token[flag] for flag in ("single_word", "lstrip", "rstrip")):
            raise _refusal(model, f"matches its token {token['content']!r} together with what stands around it")
    kinds = gguf.TokenType
    types = [
        kinds.UNUSED if i not in vocabulary else kinds.NORMAL if i not in added
        else kinds.CONTROL if added[i]["special"] else kinds.USER_DEFINED
        for i in range(size)
    ]  # fmt: skip
    adds_bos, adds_eos = _frame(model)
    ids = {kind: getattr(model.tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad", "unk")}
    return GgufTokens(
        pre=pre or _pre_tokenizer(model, description),
        tokens=[vocabulary.get(i, f"[PAD{i}]") for i in range(size)],
        types=types,
        merges=[m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]],
        special={kind: i for kind, i in ids.items() if isinstance(i, int)},
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        template=_template(model),
    )


def _check_pairs(model: Model, description: dict[str, Any]) -> None:
    """Refuse everything but pairs of bytes, read as they are written."""
    bpe, normalizer = description["model"], description.get("normalizer")
    if bpe["type"] != "BPE":
        raise _refusal(model, f"is of the kind {bpe['type']}")
    if bpe.get("byte_fallback") or "ByteLevel" not in {s["type"] for s in _steps(description)}:
        raise _refusal(model, "is a SentencePiece vocabulary, whose scores are not kept in tokenizer.json")
    if normalizer is not None:
        raise _refusal(model, f"rewrites text by {normalizer['type']} before it splits it")
    if found := [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if bpe.get(key)]:
        raise _refusal(model, f"has {found[0]} = {bpe[found[0]]!r}")


def _pre_tokenizer(model: Model, description: dict[str, Any]) -> str:
    steps, ignores = _steps(description), bool(description["model"].get("ignore_merges"))
    for known in PRE_TOKENIZERS:
        if [*known.steps] == steps and known.ignore_merges == ignores:
            return known.name
    kinds = " and ".join(str(step["type"]) for step in steps)
    raise _refusal(model, f"splits text by {kinds} in a way that LOKA has no name of llama.cpp's for (give it as pre=)")


def _steps(description: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, without what changes only the offsets."""
    whole = description.get("pre_tokenizer") or {"type": "Sequence", "pretokenizers": []}
    steps = whole["pretokenizers"] if whole["type"] == "Sequence" else [whole]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _frame(model: Model) -> tuple[bool, bool]:
    """Whether the tokenizer puts BOS before a text and EOS after it."""
    plain, whole = (model.tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    for bos in (False, True):
        for eos in (False, True):
            before = [model.tokenizer.bos_token_id] if bos else []
            if whole == before + plain + ([model.tokenizer.eos_token_id] if eos else []):
                return bos, eos
    raise _refusal(model, "puts other tokens than BOS and EOS around a text")


def _template(model: Model) -> Any:
    """The chat template, or all of them by name as GGUF lists them."""
    template = getattr(model.tokenizer, "chat_template", None)
    if isinstance(template, dict):
        return [{"name": name, "template": text} for name, text in template.items()]
    return template


def _refusal(model: Model, reason: str) -> UserError:
    return UserError(
        f"the tokenizer of {model.name} {reason}, and LOKA cannot write that as GGUF; export a Hugging Face folder, "
        "and convert it with llama.cpp."
    )
