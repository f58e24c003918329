"""The tokens that end a text."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def end_ids(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """The tokens that end a text, as the tokenizer, the configuration and the generation configuration name them."""
    generation = getattr(hf, "generation_config", None)
    named: list[Any] = [tokenizer.eos_token_id, hf.config.eos_token_id, getattr(generation, "eos_token_id", None)]
    return [e for n in named for e in (n if isinstance(n, list) else [n]) if e is not None]
