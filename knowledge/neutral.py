"""Text that is unrelated to the target."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from .._util.errors import NotFiniteError, UserError
from .case import Case
from .kinds.passage import words_of
from .resolve import accepts_spec
from .texts import BOM

if TYPE_CHECKING:
    from ..model import Model

TOKENS = 48
ROWS = 32
WORDS = 120


@accepts_spec
def neutral_working(model: Model, case: Case, n: int | None = None) -> list[str]:
    """Passages that an edit may rehearse: sampled from the original model, or read from the case's file.

    Sampling is seeded and drops passages that name a forget subject or answer. A model is sampled once, before any
    edit.

    Cost: about `TOKENS` forward passes over 32 rows for every 32 passages.
    """
    if case.passages is not None:
        return list(case.passages[:n])
    wanted = case.neutral.working
    if isinstance(wanted, str):
        return _read(case, wanted)[:n]
    n = n or wanted
    avoid = frozenset(w.casefold() for f in case.forget.working for w in (f.subject, *f.answers) if w)
    return list(model.cache.get("neutral text", (avoid, case.seed, n), lambda: _sample(model, avoid, case.seed, n)))


def neutral_sealed(case: Case) -> list[str]:
    """Prose that no edit sees, by paragraph."""
    return _read(case, str(case.neutral.sealed))


def _read(case: Case, name: str) -> list[str]:
    paragraphs = [
        p.strip().replace("\n", " ") for p in case.spec.text(name).replace(BOM, "").split("\n\n") if p.strip()
    ]
    return [part for p in paragraphs for part in _parts(p)]


def _parts(paragraph: str) -> list[str]:
    """A paragraph in parts of nearly equal length, none of more than `WORDS` words, or characters without spaces."""
    words = words_of(paragraph)
    n = -(-len(words) // WORDS)
    return ["".join(words[len(words) * i // n : len(words) * (i + 1) // n]).strip() for i in range(n)]


@torch.no_grad()
def _sample(model: Model, avoid: Collection[str], seed: int, n: int) -> list[str]:
    if model.edits:
        raise UserError("neutral text is sampled from the original model; sample it before an edit is applied.")
    texts: list[str] = []
    generator = torch.Generator(model.device).manual_seed(seed)
    for _ in range(4 * n // ROWS + 4):
        if len(texts) >= n:
            break
        rows = _generate(model, generator)
        for text in model.tokenizer.batch_decode(rows, skip_special_tokens=True):
            if text.strip() and not _names(text.casefold(), avoid):
                texts.append(text.strip())
    return texts[:n]


def _names(text: str, avoid: Collection[str]) -> bool:
    """Whether a text has any of the words; a single letter, such as carbon's symbol, counts only as a whole word."""
    words = set(re.findall(r"\w+", text))
    return any(w in (words if len(w) == 1 else text) for w in avoid)


def _generate(model: Model, generator: torch.Generator) -> torch.Tensor:
    """`[ROWS, TOKENS]`, sampled at temperature one, so that the text follows the model's own distribution."""
    ids = torch.full((ROWS, 1), model.start_id, device=model.device)
    out, cache = [], None
    for _ in range(TOKENS):
        step = model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = step.past_key_values
        if step.logits[:, -1].isnan().any():
            raise NotFiniteError(f"the logits of {model.name} are NaN, so no text can be sampled; check its weights.")
        ids = torch.multinomial(step.logits[:, -1].float().softmax(-1), 1, generator=generator)
        out.append(ids)
    return torch.cat(out, 1)
