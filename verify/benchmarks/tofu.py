"""TOFU (Maini et al. 2024, arXiv:2401.06121): forget quality, model utility, and three measures on each of its sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...knowledge import Case, Item, score
from ...model import split
from ..metrics.tofu import SETS, tofu_forget_quality, tofu_model_utility, tofu_report
from ..metrics.truth_ratio import truth_ratio
from ..units import by_unit
from .asked import Asked, Groups, items_of, sets_of, to_forget, to_retain
from .measures import RECALL, overlaps
from .numbers import BenchmarkNumbers, Measured, reasons
from .row import Benchmark

if TYPE_CHECKING:
    from ...model import Model

TOFU_SETS = FORGET, RETAIN, AUTHORS, WORLD = "Forget", "Retain", "Real Authors", "Real World"
OTHERS = "others"
# How a retain set is known: by its source, or by its name where the source is a copy.
MARKS = {AUTHORS: ("real_author", "author"), WORLD: ("world_fact", "world")}
LABELS = {of: [f"{measure} {of}" for measure in ("Prob.", "ROUGE", "Truth Ratio")] for of in TOFU_SETS}
Log = dict[str, list]


def _name(label: str) -> str:
    """TOFU's label of a number as a name.

    >>> _name("Prob. Real Authors")
    'prob_real_authors'
    """
    return label.lower().replace(".", "").replace(" ", "_")


WHY = {
    "model_utility": "The case retains nothing that TOFU's measures could be read on.",
    "forget_quality": "It needs a model trained without the forget set.",
    **{_name(label): f"The case has nothing for TOFU's set {of}." for of, labels in LABELS.items() for label in labels},
}


def _groups(case: Case) -> Groups:
    """The records by TOFU's sets. Retain sets that nothing tells stand for the real world if the case has none."""
    groups: Groups = {of: [] for of in (*TOFU_SETS, OTHERS)} | {FORGET: to_forget(case, "tofu")}
    for a in to_retain(case):
        groups[_set_of(case, a)].append(a)
    others = groups.pop(OTHERS)
    groups[WORLD] = groups[WORLD] or others
    return {name: [a for a in group if _comparable(a.items[0])] for name, group in groups.items()}


def _comparable(item: Item) -> bool:
    """Whether TOFU's measures can be read on an item: a short answer, and wrong ones to compare it with."""
    return bool(item.foils) and item.kind != "passage"


def _set_of(case: Case, a: Asked) -> str:
    """TOFU's name of a retain set; `OTHERS` if nothing tells it."""
    of = case.spec.file.sets.get(a.set)
    source = f"{of.source} {of.config}".lower() if of else ""
    by_source = (name for name, (mark, _) in MARKS.items() if mark in source)
    by_name = (name for name, (_, word) in MARKS.items() if word in a.set.lower())
    near = [RETAIN] if a.items[0].relation in case.near else []
    return [*by_source, *near, *by_name, OTHERS][0]


def _measure(model: Model, groups: Groups) -> Measured:
    logs = {name: _log(model, items_of(group)) for name, group in groups.items() if group}
    values = dict.fromkeys(WHY) | _values(logs)
    compared = {"truth_ratios": _truth_ratios(logs[FORGET])} if FORGET in logs else {}
    samples = {
        role: by_unit(items_of(groups[name]), logs[name]["rougeL_recall"]) if name in logs else {}
        for role, name in (("forget", FORGET), ("retain", RETAIN))
    }
    return Measured(BenchmarkNumbers(values, reasons(values, WHY), sets_of(groups), compared), samples)


def _values(logs: Mapping[str, Log]) -> dict[str, float | None]:
    """TOFU's table for the sets that are there, and the harmonic mean over those that are retained."""
    if not logs:
        return {}
    filler = next(iter(logs.values()))  # stands for the sets that are missing, whose numbers are not used
    table = tofu_report({file: logs.get(name, filler) for name, file in SETS.items()}).values
    retained = [table[label] for of in logs if of != FORGET for label in LABELS[of]]
    return {
        "model_utility": tofu_model_utility(retained) if retained else None,
        **{_name(label): table[label] for of in logs for label in LABELS[of]},
    }


def _log(model: Model, items: Sequence[Item]) -> Log:
    """What TOFU's own evaluation writes about a set: losses in nats per token, and ROUGE-L recall."""
    answers = [(i.answer, i.rephrased or i.answer, *i.foils) for i in items]
    prompts = [i.prompt for i, of in zip(items, answers, strict=True) for _ in of]
    every = [text for of in answers for text in of]
    lengths = [len(tail) for _, tail in split(model, prompts, every)]
    totals = score(model, prompts, every).logprob.tolist()
    each = iter([-total / n for total, n in zip(totals, lengths, strict=True)])
    losses = [[next(each) for _ in of] for of in answers]
    return {
        "avg_gt_loss": [right for right, *_ in losses],
        "avg_paraphrased_loss": [rephrased for _, rephrased, *_ in losses],
        "average_perturb_loss": [wrong for _, _, *wrong in losses],
        "rougeL_recall": overlaps(model, items, RECALL),
    }


def _truth_ratios(log: Log) -> list[float]:
    """The truth ratio of each question, for the test of forget quality."""
    return truth_ratio(log["avg_paraphrased_loss"], log["average_perturb_loss"]).scores.tolist()


def _rows(groups: Groups) -> float:
    return sum(len(i.pool) + 2 for group in groups.values() for i in items_of(group))


def _against(own: BenchmarkNumbers, gold: BenchmarkNumbers) -> dict[str, float]:
    ours, theirs = (side.compared.get("truth_ratios", []) for side in (own, gold))
    return {"forget_quality": tofu_forget_quality(ours, theirs).p} if ours and theirs else {}


TOFU = Benchmark(
    "TOFU",
    {"model_utility": "model utility", "forget_quality": "forget quality (p)"}
    | {_name(label): label for labels in LABELS.values() for label in labels},
    leads=("model_utility", "forget_quality"),
    groups=_groups,
    measure=_measure,
    rows=_rows,
    against=_against,
)
