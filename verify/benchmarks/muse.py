"""MUSE (Shi et al. 2024, arXiv:2407.06460): verbatim memorization, knowledge memorization, privacy leakage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...knowledge import Case, Item, Passage
from ...model import join
from ..membership import attacks
from ..metrics.attacks import attack_auc
from ..metrics.privleak import privleak
from ..units import by_unit
from .asked import Asked, Groups, items_of, of_kind, sets_of, to_forget, to_retain
from .measures import F1, mean, overlaps
from .numbers import BenchmarkNumbers, Measured, reasons
from .row import Benchmark

if TYPE_CHECKING:
    from ...model import Model

SHARE = 0.4  # of the tokens, in MUSE's membership attack
WHY = {
    "verbmem_forget": "The case has no passages of MUSE to forget.",
    "knowmem_forget": "The case has no questions of MUSE to forget.",
    "privleak": "It needs passages to forget, and passages that the model was never taught.",
    "knowmem_retain": "The case has no questions to retain.",
}


def _groups(case: Case) -> Groups:
    forget, never = to_forget(case, "muse"), [Asked(i.relation, (i,)) for i in case.holdout.working]
    return {
        "passages": of_kind(forget, "passage"),
        "questions": of_kind(forget, "question"),
        "retained questions": of_kind(to_retain(case), "question"),
        "held-out passages": of_kind(never, "passage"),
    }


def _generated(groups: Groups) -> dict[str, list[Item]]:
    """The items that the model answers or continues freely, by the number that they give."""
    return {
        "verbmem_forget": _from_the_start(groups["passages"]),
        "knowmem_forget": items_of(groups["questions"]),
        "knowmem_retain": items_of(groups["retained questions"]),
    }


def _measure(model: Model, groups: Groups) -> Measured:
    items = _generated(groups)
    found = {name: overlaps(model, of, F1) for name, of in items.items()}
    auc = _familiarity(model, groups)
    values = {name: mean(of) for name, of in found.items()} | {"privleak": None if auc is None else privleak(auc)}
    shows = {name: by_unit(of, found[name]) for name, of in items.items()}
    samples = {"forget": shows["verbmem_forget"] | shows["knowmem_forget"], "retain": shows["knowmem_retain"]}
    compared = {} if auc is None else {"auc": [auc]}
    return Measured(BenchmarkNumbers(values, reasons(values, WHY), sets_of(groups), compared), samples)


def _from_the_start(passages: Sequence[Asked]) -> list[Item]:
    """What follows the lead-in that MUSE gives to a passage; every window of a passage that comes without one."""
    return [i for a in passages for i in (a.items[:1] if isinstance(a.record, Passage) and a.record.start else a.items)]


def _familiarity(model: Model, groups: Groups) -> float | None:
    """The AUC of the min-40% attack on passages to forget and held-out ones; `None` if there are none on a side."""
    members, others = _sides(groups)
    if not (members and others):
        return None
    scores = attacks(model, [*members, *others], share=SHARE)["min_k"]
    if not np.isfinite(scores).all():
        return float("nan")
    return attack_auc(list(scores[: len(members)]), list(scores[len(members) :]))


def _sides(groups: Groups) -> tuple[list[str], list[str]]:
    """The texts to forget, and the held-out ones."""
    return _texts(groups["passages"]), _texts(groups["held-out passages"])


def _texts(passages: Sequence[Asked]) -> list[str]:
    return [join(i.prompt, i.answer) for i in items_of(passages)]


def _rows(groups: Groups) -> float:
    members, others = map(len, _sides(groups))
    return sum(map(len, _generated(groups).values())) + (members + others if members and others else 0)


def _against(own: BenchmarkNumbers, gold: BenchmarkNumbers) -> dict[str, float]:
    ours, theirs = (side.compared.get("auc", []) for side in (own, gold))
    return {"privleak": privleak(ours[0], theirs[0])} if ours and theirs else {}


MUSE = Benchmark(
    "MUSE",
    {
        "verbmem_forget": "verbatim memorization, forget",
        "knowmem_forget": "knowledge memorization, forget",
        "privleak": "privacy leakage (%)",
        "knowmem_retain": "knowledge memorization, retain",
    },
    leads=tuple(WHY),
    groups=_groups,
    measure=_measure,
    rows=_rows,
    against=_against,
)
