"""What else was damaged? Retained facts by their distance from the target, and neutral text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..knowledge import Case, accepts_spec, neutral_sealed
from ..model import chunks, encode_texts, logits, token_logprobs
from ..model.train.distill import TeacherOutputs, divergence_of, record_outputs
from .asking import asked_rows
from .check import Setting
from .reading import Reading, make_reading
from .units import recall_by_unit, unit_key

if TYPE_CHECKING:
    from ..model import Model

ROWS = 8


@accepts_spec
def collateral(model: Model, case: Case, *, before: Sequence[TeacherOutputs] | None = None) -> Reading:
    """What the sealed retain items are asked by (`verify.asking`), by unit.

    Groups: `same` (the relations nearest to the target) and `other` (all others). `details` has the `perplexity` of
    the sealed neutral text, `None` without any.

    Args:
        before: the original's outputs on that text, from `neutral_outputs`. With these, `details["kl"]` is the mean
            divergence from the original, in nats per token.

    Cost: one row for each prompt and alias of the sealed retain facts, and one for each passage.
    """
    facts = list(case.retain.sealed)
    all_ = recall_by_unit(model, facts)
    near = {unit_key(f) for f in case.same_relation(facts)}
    same = {k: v for k, v in all_.items() if k in near}
    other = {k: v for k, v in all_.items() if k not in near}
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
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(loss / tokens)) if tokens else None
    text = "there is no neutral text" if perplexity is None else f"neutral text has perplexity {perplexity:.2f}"
    kept = f"still shows {np.mean(list(all_.values())):.0%} of what it is to keep" if all_ else "has nothing to keep"
    return make_reading(
        "collateral",
        {"forget": all_, "same": same, "other": other},
        f"With sealed prompts, the model {kept}; {text}.",
        seed=case.seed,
        details={"perplexity": perplexity, "kl": float(np.mean(kl)) if kl else None, "tokens": tokens},
        cost=collateral_cost(model, case, Setting()),
    )


def collateral_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each prompt and alias of the sealed retain facts, and one for each passage."""
    return asked_rows(case.retain.sealed) + len(neutral_sealed(case))


@accepts_spec
def neutral_outputs(model: Model, case: Case) -> list[TeacherOutputs]:
    """The original's outputs on the sealed neutral text, for `collateral(..., before=...)`."""
    texts = neutral_sealed(case)
    return [record_outputs(model, encode_texts(model, texts[part])) for part in chunks(len(texts), ROWS)]
