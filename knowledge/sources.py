"""Facts, choices and passages from the files that the field's benchmarks come in.

Every loader takes a local file or a hub id (`rows`), and gives each row in its order. A fact's prompt is continued by
a space and the answer, so questions get a `template` around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._util.errors import UserError
from .fact import Fact
from .item import Choice, Passage
from .rows import Row, field, rows

QUESTION = "Question: {}\nAnswer:"
CLOZE = "Fill in the blank. {}\nAnswer:"
BLANK = "___"


def questions(source: str | Path, *, template: str = QUESTION, relation: str = "question", **hub: str) -> list[Fact]:
    """Plain questions and answers: `question` and `answer` in each row.

    Several answers, in a list or divided by `|`, are the answer and its aliases. The subject of such a fact is the
    question itself; a row may name another one in `subject`.

    Raises:
        UserError: as `rows`, or a row without a question or an answer.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        question = str(field(source, i, row, "question", "text", "query"))
        answer, *aliases = _answers(field(source, i, row, "answer", "answers", "labels"))
        out.append(Fact(str(row.get("subject", question)), relation, template.format(question), answer, tuple(aliases)))
    return out


def tofu(source: str | Path, *, template: str = QUESTION, **hub: str) -> list[Fact]:
    """TOFU, any of its files: forget, retain and holdout sets, perturbed sets, real authors, world facts.

    Where a row has them, perturbed answers, or the other options, become foils, and a paraphrased question a
    paraphrase. Maini et al. 2024, arXiv:2401.06121.

    Raises:
        UserError: as `rows`, or a row without a question or an answer.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        question, answer = (str(field(source, i, row, name)) for name in ("question", "answer"))
        options = [str(v) for k, v in sorted(row.items()) if k.startswith("option") and v != answer]
        foils = [*_listed(row.get("perturbed_answer")), *options]
        others = [template.format(q) for q in _listed(row.get("paraphrased_question")) if q != question]
        out.append(
            Fact(question, "tofu", template.format(question), answer, foils=tuple(foils), paraphrases=tuple(others))
        )
    return out


def wmdp(source: str | Path, **hub: str) -> list[Choice]:
    """Multiple choice in the form of WMDP and MMLU: `question`, `choices`, and in `answer` the place of the right one.

    The answer may be a letter as well. Li et al. 2024, arXiv:2403.03218.

    Raises:
        UserError: as `rows`, or an answer that is no place among the choices.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        options = tuple(str(o) for o in field(source, i, row, "choices", "options"))
        given = field(source, i, row, "answer")
        right = ord(given.strip().upper()) - ord("A") if isinstance(given, str) and len(given.strip()) == 1 else given
        if isinstance(right, str) or not 0 <= int(right) < len(options):
            raise UserError(
                f"row {i + 1} of {str(source)!r} has the answer {given!r}; "
                f"it must be 0 to {len(options) - 1}, or a letter."
            )
        out.append(Choice(str(field(source, i, row, "question")), options, int(right)))
    return out


def counterfact(source: str | Path, **hub: str) -> list[Fact]:
    """CounterFact, as published (`requested_rewrite`) or flat (`prompt` or `base_prompt`, `target_true`).

    The counterfactual object becomes a foil, and paraphrased prompts paraphrases. Meng et al. 2022, arXiv:2202.05262.

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
    """The known facts of causal tracing: `subject`, `prompt`, `attribute`. Meng et al. 2022, arXiv:2202.05262.

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


def muse(source: str | Path, *, template: str = QUESTION, **hub: str) -> list[Fact] | list[Passage]:
    """MUSE: questions of `knowmem` as facts; `verbmem` (`prompt`, `gt`) and plain texts as passages.

    Shi et al. 2024, arXiv:2407.06460.

    Raises:
        UserError: as `rows`, or a row in none of these forms.
    """
    table = rows(source, **hub)
    if "question" in table[0]:
        return questions(source, template=template, relation="muse", **hub)
    return [
        Passage(str(field(source, i, row, "gt", "text")), str(row.get("prompt", ""))) for i, row in enumerate(table)
    ]


def rwku(source: str | Path, *, template: str = QUESTION, cloze: str = CLOZE, **hub: str) -> list[Fact] | list[Passage]:
    """RWKU: forget and neighbour probes as facts, the `mia` files as passages.

    A cloze that ends in its blank is asked as it stands; one with the blank within is put into `cloze`. The relation is
    the probe's type, and the subject of a neighbour probe the neighbour. Jin et al. 2024, arXiv:2406.10890.

    Raises:
        UserError: as `rows`, or a row in none of these forms.
    """
    table = rows(source, **hub)
    if "query" not in table[0]:
        return [
            Passage(str(field(source, i, row, "text")), subject=str(row.get("subject", "")))
            for i, row in enumerate(table)
        ]
    return [
        Fact(
            str(field(source, i, row, "neighbor", "subject")), str(row.get("type", "rwku")),
            _rwku_prompt(str(field(source, i, row, "query")), template, cloze),
            str(field(source, i, row, "answer")).strip(),
        )
        for i, row in enumerate(table)
    ]  # fmt: skip


def _rwku_prompt(query: str, template: str, cloze: str) -> str:
    if BLANK not in query:
        return template.format(query)
    before, _, behind = query.partition(BLANK)
    return before.strip() if not behind.strip(" _.") else cloze.format(query)


def _answers(given: Any) -> Sequence[str]:
    listed = [str(g).strip() for g in given] if isinstance(given, list | tuple) else str(given).split("|")
    return list(dict.fromkeys(a.strip() for a in listed if a.strip())) or [str(given)]


def _listed(given: Any) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else [str(g) for g in given]


def _text(given: Any) -> str:
    return str(given["str"] if isinstance(given, dict) else given).strip()
