"""TOFU: Maini et al. 2024, arXiv:2401.06121."""

from __future__ import annotations

from pathlib import Path

from ..fact import Fact
from ..rows import field, rows
from .common import QUESTION, texts


def tofu(source: str | Path, *, template: str = QUESTION, **hub: str) -> list[Fact]:
    """Any of TOFU's files: forget, retain and holdout sets, perturbed sets, real authors, world facts.

    Perturbed answers, or the other options, become foils, and a paraphrased question becomes a paraphrase, if a row has
    them.

    Raises:
        UserError: as `rows`, or a row without a question or an answer.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        question, answer = (str(field(source, i, row, name)) for name in ("question", "answer"))
        options = [str(v) for k, v in sorted(row.items()) if k.startswith("option") and v != answer]
        foils = [*texts(row.get("perturbed_answer")), *options]
        others = [template.format(q) for q in texts(row.get("paraphrased_question")) if q != question]
        out.append(
            Fact(question, "tofu", template.format(question), answer, foils=tuple(foils), paraphrases=tuple(others))
        )
    return out
