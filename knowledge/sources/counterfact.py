"""CounterFact and the known facts of causal tracing: Meng et al. 2022, arXiv:2202.05262."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..fact import Fact
from ..rows import Row, field, rows


def counterfact(source: str | Path, **hub: str) -> list[Fact]:
    """CounterFact, as published (`requested_rewrite`) or flat (`prompt` or `base_prompt`, `target_true`).

    The counterfactual object becomes a foil, and paraphrased prompts become paraphrases.

    Raises:
        UserError: as `rows`, or a row without subject, prompt or objects.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        inner: Row = row.get("requested_rewrite") or row
        subject = str(field(source, i, inner, "subject"))
        prompt = str(field(source, i, inner, "base_prompt", "prompt")).replace("{}", subject)
        true, new = (_text(field(source, i, inner, name)) for name in ("target_true", "target_new"))
        relation = str(inner.get("relation_id", "counterfact"))
        others = tuple(str(p).strip() for p in row.get("paraphrase_prompts") or ())
        out.append(Fact(subject, relation, prompt.strip(), true, foils=(new,), paraphrases=others))
    return out


def known_facts(source: str | Path, **hub: str) -> list[Fact]:
    """The known facts of causal tracing: `subject`, `prompt`, `attribute`.

    Raises:
        UserError: as `rows`, or a row without one of these.
    """
    return [
        Fact(
            str(field(source, i, row, "subject")), str(row.get("relation_id", "known")),
            str(field(source, i, row, "prompt")).strip(), str(field(source, i, row, "attribute")).strip(),
        )
        for i, row in enumerate(rows(source, **hub))
    ]  # fmt: skip


def _text(value: Any) -> str:
    return str(value["str"] if isinstance(value, dict) else value).strip()
