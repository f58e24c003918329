"""What a model still answers when located sites are silent, beside the same of their controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from ..ablate import zero
from ..knowledge import Case, accepts_spec, recalled
from ..model import Model, Site

UNTOUCHED = "untouched"


@accepts_spec
def knockout(model: Model, case: Case, sets: Mapping[str, Collection[Site]]) -> pd.DataFrame:
    """Share of the working facts that are answered in full, with nothing and with each set of sites zeroed.

    One row a set, `untouched` first; the columns are `sites` (how many), `forget` (facts to be forgotten), `same`
    (facts to be kept, of the forgotten relations) and `other` (of other relations; missing where there are none).
    Nothing is trained: what locating alone does is seen before any edit can make up for it.

    Cost: a forward pass over these facts for each set, and one more.
    """
    kept = case.retain.working
    groups = {
        "forget": case.forget.working,
        "same": [f for f in kept if f.relation in case.forgotten_relations],
        "other": [f for f in kept if f.relation not in case.forgotten_relations],
    }

    def answered() -> dict[str, float | None]:
        right = {name: recalled(model, facts) for name, facts in groups.items()}
        return {name: sum(some) / len(some) if some else None for name, some in right.items()}

    rows = [{"name": UNTOUCHED, "sites": 0, **answered()}]
    for name, sites in sets.items():
        with zero(model, case, sites).applied(model):
            rows.append({"name": name, "sites": len(set(sites)), **answered()})
    return pd.DataFrame(rows).set_index("name")
