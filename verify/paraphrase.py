"""The worst case over many ways to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Fact, recalled
from .reading import Reading, reading
from .recall import key

if TYPE_CHECKING:
    from ..model import Model

SHARE = 0.5


def paraphrase(model: Model, case: Case, *, forms: Sequence[str] | None = None) -> Reading:
    """For each forget subject, whether any prompt form gets the whole answer.

    The forms are the case's own paraphrases (rephrased, question and answer, cloze, few-shot, role-play,
    other languages), its sealed templates and, where the tokenizer has one, its chat template.

    Args:
        forms: the forms to count. Default: those that this model answers for at least half of its facts.
            An audit takes them from the original model, so that an edit cannot silence a form out of
            the test.

    Cost: one row a form, subject and alias; as many twins as forget subjects.
    """
    case = case.on(model)
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    table = {form: _ask(model, case, forget, form) for form in (forms or all_forms(model, case))}
    if forms is None:
        table = {form: row for form, row in table.items() if np.mean(row) >= SHARE} or table
    control = [_ask(model, case, twins, form) for form in table]
    worst = np.max(list(table.values()), axis=0)
    shown = np.max(control, axis=0) if twins else []
    return reading(
        "paraphrase",
        {
            "forget": {key(f): float(v) for f, v in zip(forget, worst, strict=True)},
            "twins": {key(f): float(v) for f, v in zip(twins, shown, strict=True)},
        },
        f"At least one of {len(table)} ways to ask gets the answer for {worst.mean():.0%} of the subjects.",
        seed=case.seed,
        details={"forms": {form: float(np.mean(row)) for form, row in table.items()}},
        cost=len(table) * (sum(len(f.answers) for f in forget) + len(twins)),
    )


def all_forms(model: Model, case: Case) -> list[str]:
    """Every form of the forgotten relations, each as `relation|template`."""
    out = []
    for r in case.forgotten_relations:
        relation = case.spec.relations[r]
        out += [f"{r}|{t}" for t in [*relation.sealed, *relation.paraphrases]]
        if getattr(model.tokenizer, "chat_template", None):
            out += [f"{r}|chat:{t}" for t in relation.sealed[:1]]
    return out


def _ask(model: Model, case: Case, facts: Sequence[Fact], form: str) -> list[bool]:
    relation, template = form.split("|", 1)
    asked = [f.asked(_render(model, template, f.subject)) for f in facts if f.relation == relation]
    right = iter(recalled(model, asked))
    return [next(right) if f.relation == relation else False for f in facts]


def _render(model: Model, template: str, subject: str) -> str:
    if not template.startswith("chat:"):
        return template.replace("{}", subject)
    start = template.removeprefix("chat:").replace("{}", subject)
    messages = [{"role": "user", "content": f"Complete this sentence: {start}"}]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return f"{text}{start}"
