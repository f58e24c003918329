"""CounterFact: Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv:2202.05262."""

from __future__ import annotations

from collections.abc import Mapping

from ..kinds import Fact, Record
from .common import Cells, Table, each, spelled, without


def counterfact(table: Table) -> list[Record]:
    """Facts, as published (`requested_rewrite`) or flat (`base_prompt` or `prompt`, `target_true`, `target_new`).

    The counterfactual object is a foil, and paraphrased prompts are paraphrases. `relation_id`, if there is one, is the
    relation.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, _fact)


def _fact(cells: Cells) -> Fact:
    inner = _rewrite(cells)
    subject, template = inner.text("subject"), inner.text("base_prompt", "prompt")
    prompt, subject = template.replace("{}", subject), spelled(subject, template)
    true, new = _object(inner, "target_true"), _object(inner, "target_new")
    others = without(cells.texts("paraphrase_prompts"), prompt)
    if inner is not cells:
        cells.problems += inner.problems
    return Fact(subject, inner.optional("relation_id"), prompt, true, (), without((new,), true, ""), others)


def _rewrite(cells: Cells) -> Cells:
    """The cells of the rewrite that a published row wraps, or the flat row itself."""
    inner = cells.value("requested_rewrite")
    return Cells(inner, cells.number) if isinstance(inner, Mapping) else cells


def _object(cells: Cells, name: str) -> str:
    """The text of an object, which is published with its identifier."""
    value = cells.value(name)
    if not isinstance(value, Mapping):
        return cells.text(name)
    inner = Cells(value, cells.number)
    text = inner.text("str")
    cells.problems += [f"{name}: {problem}" for problem in inner.problems]
    return text
