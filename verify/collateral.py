"""What else was damaged: retained facts by distance from the target, and neutral text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..knowledge import Case, neutral_sealed
from ..model import chunks, encode_texts, logits, token_logprobs
from ..model.train.distill import TeacherOutputs, divergence_of, record_outputs
from .reading import Reading, reading
from .recall import by_subject

if TYPE_CHECKING:
    from ..model import Model

ROWS = 8


def collateral(model: Model, case: Case, *, before: list[TeacherOutputs] | None = None) -> Reading:
    """Share of sealed retain facts that the model still gives in full, by subject, and neutral text.

    Groups: `same` (the forgotten relation) and `other` (other relations). `details` has `perplexity` of
    the sealed neutral text, and with `before` (from `neutral_outputs` on the original) `kl`, the mean
    divergence from it in nats a token.

    Cost: one row a prompt and alias of the sealed retain facts, and one a passage.
    """
    case = case.on(model)
    facts = list(case.retain.sealed)
    all_ = by_subject(model, facts)
    near = set(case.forgotten_relations)
    same = {k: v for k, v in all_.items() if k.split("/")[0] in near}
    other = {k: v for k, v in all_.items() if k.split("/")[0] not in near}
    loss, tokens, kl = 0.0, 0, []
    texts = neutral_sealed(case)
    for i, part in enumerate(chunks(len(texts), ROWS)):
        batch = before[i].batch if before else encode_texts(model, texts[part])
        with torch.no_grad():
            scores = logits(model, batch)
            if before:
                kl.append(float(divergence_of(scores[batch.labels >= 0], before[i])))
            loss -= float(token_logprobs(scores, batch.labels).sum())
        tokens += int((batch.labels >= 0).sum())
    perplexity = float(np.exp(loss / tokens))
    mean = float(np.mean(list(all_.values())))
    return reading(
        "collateral",
        {"forget": all_, "same": same, "other": other},
        f"Of the facts to be kept, sealed prompts get {mean:.0%}; neutral text has perplexity {perplexity:.2f}.",
        seed=case.seed,
        details={"perplexity": perplexity, "kl": float(np.mean(kl)) if kl else None, "tokens": tokens},
        cost=sum(len(f.prompts) * len(f.answers) for f in facts) + len(texts),
    )


def neutral_outputs(model: Model, case: Case) -> list[TeacherOutputs]:
    """What the original says on the sealed neutral text, for `collateral(..., before=...)`."""
    texts = neutral_sealed(case)
    return [record_outputs(model, encode_texts(model, texts[part])) for part in chunks(len(texts), ROWS)]
