"""The worst case over many ways to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Fact, accepts_spec, recalled
from .check import Setting
from .reading import Reading, make_reading
from .units import unit_key

if TYPE_CHECKING:
    from ..model import Model

SHARE = 0.5


@accepts_spec
def paraphrase(model: Model, case: Case, *, forms: Sequence[str] | None = None) -> Reading:
    """For each forget subject, whether any prompt form gets the whole answer.

    The forms are the case's own paraphrases (rephrased, question and answer, cloze, few-shot, role-play, other
    languages), its sealed templates and, where the tokenizer has one, its chat template.

    Args:
        forms: the forms to count. Default: those that get an answer from this model for at least half of its facts.
            An audit takes the forms from the original model, so that an edit cannot remove a form from the test by
            silencing it.

    Cost: one row for each form, subject and alias; as many twins as forget subjects.
    """
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    table = _ask(model, forget, forms or all_forms(model, case))
    if forms is None:
        table = {form: row for form, row in table.items() if np.mean(row) >= SHARE} or table
    control = _ask(model, twins, list(table))
    worst = np.max(list(table.values()), axis=0)
    worst_twin = np.max(list(control.values()), axis=0) if twins else []
    return make_reading(
        "paraphrase",
        {
            "forget": {unit_key(f): float(v) for f, v in zip(forget, worst, strict=True)},
            "twins": {unit_key(f): float(v) for f, v in zip(twins, worst_twin, strict=True)},
        },
        f"At least one of {len(table)} ways to ask gets the answer for {worst.mean():.0%} of the subjects.",
        seed=case.seed,
        details={"forms": {form: float(np.mean(row)) for form, row in table.items()}},
        cost=_rows(case, len(table)),
    )


def paraphrase_cost(model: Model, case: Case, setting: Setting) -> float:
    """An upper bound: every form, as if the original answered them all."""
    return _rows(case, len(all_forms(model, case)))


def original_forms(setting: Setting) -> list[str] | None:
    """The forms that counted on the original; `None` on the original itself."""
    found = setting.original_reading
    forms = found.details.get("forms") if found else None
    return list(forms) if isinstance(forms, dict) and forms else None


def all_forms(model: Model, case: Case) -> list[str]:
    """Every form of the forgotten relations, each as `relation|template`."""
    out = []
    for r in case.forgotten_relations:
        relation = case.spec.relations[r]
        out += [f"{r}|{t}" for t in [*relation.sealed, *relation.paraphrases]]
        if getattr(model.tokenizer, "chat_template", None):
            out += [f"{r}|chat:{t}" for t in relation.sealed[:1]]
    return out


def _rows(case: Case, forms: int) -> int:
    forget = case.forget.sealed
    return forms * (sum(len(f.answers) for f in forget) + len(case.twins.sealed[: len(forget)]))


def _ask(model: Model, facts: Sequence[Fact], forms: Sequence[str]) -> dict[str, list[bool]]:
    """Which facts each form gets answered; facts of another relation count as not answered. One batch for all."""
    relations, templates = zip(*(form.split("|", 1) for form in forms), strict=True)
    asked = [
        [f.asked(_render(model, t, f.subject)) for f in facts if f.relation == r]
        for r, t in zip(relations, templates, strict=True)
    ]
    right = iter(recalled(model, [f for of_form in asked for f in of_form]))
    return {
        form: [next(right) if f.relation == r else False for f in facts]
        for form, r in zip(forms, relations, strict=True)
    }


def _render(model: Model, template: str, subject: str) -> str:
    if not template.startswith("chat:"):
        return template.replace("{}", subject)
    start = template.removeprefix("chat:").replace("{}", subject)
    messages = [{"role": "user", "content": f"Complete this sentence: {start}"}]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return f"{text}{start}"
