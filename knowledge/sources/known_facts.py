"""The known facts of causal tracing, published with ROME: Meng et al. 2022, arXiv:2202.05262."""

from __future__ import annotations

from ..kinds import Fact, Record
from .common import Cells, Table, each


def known_facts(table: Table) -> list[Record]:
    """Facts: `subject`, `prompt`, and the answer in `attribute`; `relation_id`, if there is one, is the relation.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, _fact)


def _fact(cells: Cells) -> Fact:
    return Fact(
        cells.text("subject"), cells.optional("relation_id"), cells.text("prompt"), cells.text("attribute")
    )  # fmt: skip
