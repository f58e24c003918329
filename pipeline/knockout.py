"""Knockout: zero located sites, and control sites for comparison, and count the facts still answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from ..ablate import zero
from ..knowledge import Case, Item, accepts_spec, known
from ..model import Model, Site

UNTOUCHED = "untouched"


@accepts_spec
def knockout(model: Model, case: Case, sets: Mapping[str, Collection[Site]]) -> pd.DataFrame:
    """The share of the working items that a model knows, as it is and with each set of sites zeroed.

    The table has one row per set, `untouched` first. The columns are `sites` (how many), `forget` (facts to forget),
    `same` (retain facts of the forgotten relations) and `other` (retain facts of other relations; missing if there are
    none). Nothing is trained, so the table shows what locating alone achieves.

    Cost: a forward pass over these facts for each set, and one more.
    """
    groups = groups_of(case)

    def answered() -> dict[str, float | None]:
        right = {name: known(model, facts) for name, facts in groups.items()}
        return {name: sum(answers) / len(answers) if answers else None for name, answers in right.items()}

    rows = [{"name": UNTOUCHED, "sites": 0, **answered()}]
    for name, sites in sets.items():
        with zero(model, case, sites).applied(model):
            rows.append({"name": name, "sites": len(set(sites)), **answered()})
    return pd.DataFrame(rows).set_index("name")


def groups_of(case: Case) -> dict[str, Sequence[Item]]:
    """The working items by group: `forget`, `same` (to keep, nearest) and `other` (to keep, the rest)."""
    retain = case.retain.working
    return {
        "forget": case.forget.working,
        "same": case.same_relation(retain),
        "other": case.other_relation(retain),
    }
