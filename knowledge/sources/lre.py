"""Relations of Hernandez et al. 2023, "Linearity of Relation Decoding in Transformer LMs", arXiv:2308.09124."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..kinds import Fact, Record
from .common import Cells, Table, refuse, without

TEMPLATES = "prompt_templates", "prompt_templates_zs"


def lre(table: Table) -> list[Record]:
    """Facts from objects with `name`, `prompt_templates` and `samples`, each with `subject` and `object`.

    The first template gives the prompt, the others give paraphrases.

    Raises:
        UserError: relations or samples with problems; the message lists them.
    """
    found: list[Record] = []
    problems: list[tuple[int, str]] = []
    for number, row in table.rows:
        cells = Cells(row, number)
        found += _relation(cells)
        problems += [(number, problem) for problem in cells.problems]
    refuse(table, problems)
    return found


def _relation(cells: Cells) -> Iterator[Fact]:
    relation, templates = cells.text("name"), _templates(cells)
    samples = cells.require("samples")
    if samples is None or not templates:
        return
    if not isinstance(samples, list) or not samples:
        cells.refuse("'samples' must be a list of objects with subject and object, and not empty")
        return
    for i, sample in enumerate(samples, 1):
        if not isinstance(sample, Mapping):
            cells.refuse(f"sample {i} is not an object with subject and object")
            continue
        inner = Cells(sample)
        yield _fact(inner, relation, templates)
        cells.problems += [f"sample {i}: {problem}" for problem in inner.problems]


def _fact(cells: Cells, relation: str, templates: tuple[str, ...]) -> Fact:
    subject, answer = cells.text("subject"), cells.text("object")
    first, *others = dict.fromkeys(template.replace("{}", subject) for template in templates)
    return Fact(subject, relation, first, answer, paraphrases=without(others, first))


def _templates(cells: Cells) -> tuple[str, ...]:
    cells.require(TEMPLATES[0])
    found = tuple(dict.fromkeys(template for name in TEMPLATES for template in cells.texts(name)))
    for template in found:
        if "{}" not in template:
            cells.refuse(f"the template {template!r} has no {{}} for the subject")
    return found
