"""Which retain facts the forget facts are compared with."""

from __future__ import annotations

from ..knowledge import Case, Fact


def same_relation_facts(case: Case) -> list[Fact]:
    """The working retain facts of the relations to forget. There may be none."""
    return [f for f in case.retain.working if f.relation in case.forgotten_relations]


def comparison_facts(case: Case) -> list[Fact]:
    """The working retain facts of the relations to forget; all working retain facts where there are none."""
    return same_relation_facts(case) or list(case.retain.working)
