"""What published benchmarks report, for cases that are made from their data: TOFU, MUSE and WMDP.

A new benchmark is one row of `BENCHMARKS`. Questions are asked by their original text, and only those are asked that
the case forgets or retains: the ones that the original model knew.

TOFU: Maini et al. 2024, arXiv:2401.06121. MUSE: Shi et al. 2024, arXiv:2407.06460. WMDP: Li et al. 2024,
arXiv:2403.03218.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from .._util.errors import UserError
from ..knowledge import Case, Choice, Item, Passage, Record, accepts_spec, score
from ..model import Prompt, join, split
from .asking import STOPS, asked, asked_rows, generations
from .check import Setting
from .membership import attacks
from .metrics.attacks import attack_auc
from .metrics.privleak import privleak
from .metrics.rouge import Rouge, cut, rouge
from .metrics.tofu import SETS, ForgetQuality, tofu_forget_quality, tofu_model_utility, tofu_report
from .metrics.truth_ratio import truth_ratio
from .reading import Reading, make_reading, refusal
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model

TOFU_SETS = FORGET, RETAIN, AUTHORS, WORLD = "Forget", "Retain", "Real Authors", "Real World"
OTHERS = "others"
# How a retain set is known: by its source, or by its name where the source is a copy.
MARKS = {AUTHORS: ("real_author", "author"), WORLD: ("world_fact", "world")}
SHARE = 0.4  # of the tokens, in MUSE's membership attack
F1: Callable[[Rouge], float] = attrgetter("rougeL_f1")
RECALL: Callable[[Rouge], float] = attrgetter("rougeL_recall")
Samples = dict[str, dict[str, float]]
Log = dict[str, list]


@dataclass(frozen=True)
class Asked:
    """A record of a case as a benchmark asks it: its set, its items, and the record unless it is a relation's fact."""

    set: str
    items: tuple[Item, ...]
    record: Record | None = None


Groups = dict[str, list[Asked]]


@dataclass(frozen=True)
class BenchmarkNumbers:
    """One benchmark's numbers about one model.

    `values`: by name; `None` stands for what was not measured, and `missing` says why. `sets`: the sets of the case
    behind each of the benchmark's own. `compared`: what a comparison with another model needs, such as truth ratios.
    """

    values: dict[str, float | None]
    missing: dict[str, str] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)
    compared: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, JsonValue]:
        """All of it, as plain dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> BenchmarkNumbers:
        """Read what `to_json` wrote."""
        fields: Any = dict(data)
        return cls(**fields)


@dataclass(frozen=True)
class Measured:
    """A benchmark's numbers, and what the items to forget and to retain show in its own measure, by unit."""

    numbers: BenchmarkNumbers
    samples: Samples


@dataclass(frozen=True)
class Benchmark:
    """One row of the table of benchmarks.

    Attributes:
        title: its name in sentences and tables.
        labels: what each of its numbers is, by name, in the order of its tables.
        leads: the numbers that people quote.
        groups: the records of a case that it asks, by the benchmark's own sets.
        measure: asks a model.
        rows: the cost of asking, in forward passes of one row.
        against: the numbers that need a reading of a model trained without the forget set, from both readings.
    """

    title: str
    labels: dict[str, str]
    leads: tuple[str, ...]
    groups: Callable[[Case], Groups] = field(repr=False)
    measure: Callable[[Model, Groups], Measured] = field(repr=False)
    rows: Callable[[Groups], float] = field(repr=False)
    against: Callable[[BenchmarkNumbers, BenchmarkNumbers], dict[str, float]] = field(repr=False)

    def completed(self, own: BenchmarkNumbers, gold: BenchmarkNumbers | None) -> BenchmarkNumbers:
        """The numbers with those that a retrained model's reading adds, if there is one."""
        more = {} if gold is None else self.against(own, gold)
        missing = {name: why for name, why in own.missing.items() if name not in more}
        return replace(own, values=own.values | more, missing=missing)

    def meaning(self, numbers: BenchmarkNumbers) -> str:
        """The numbers that people quote, as a sentence."""
        values = ((self.labels[name], numbers.values[name]) for name in self.leads)
        listed = (f"{label} {'not measured' if v is None else format(v, '.2f')}" for label, v in values)
        return f"{self.title}: {', '.join(listed)}."


@accepts_spec
def benchmark(model: Model, case: Case) -> Reading:
    """The numbers of the benchmarks that a case is made from; `details` has a `BenchmarkNumbers` for each.

    A case is made from a benchmark if one of its sets to forget has that format, or names it as its `make`. The reading
    is refused for any other case.

    The value is what the items to forget show in the benchmark's own measure: ROUGE-L for TOFU and MUSE, accuracy for
    WMDP.

    - TOFU: probability, ROUGE-L recall and truth ratio on its four sets, and model utility, all as the paper defines
      them. The near retain sets are its retain set, the other ones its real authors and world facts. Where a source has
      no wrong answers, answers to other questions take their place. Utility is the harmonic mean over the sets that
      there are. Forget quality needs a retrained model (`tofu_quality`).
    - MUSE: ROUGE-L F1 of continuations (`verbmem`) and of answers (`knowmem`) without examples in the prompt, and the
      privacy leakage of the min-40% attack, positive where something is left.
    - WMDP: accuracy by the options' texts, and by their letters as lm-evaluation-harness asks.

    Cost: one row for each answer, wrong answer, option, free answer and passage.
    """
    found = {make: BENCHMARKS[make].measure(model, BENCHMARKS[make].groups(case)) for make in makes(case)}
    if not found:
        titles = ", ".join(b.title for b in BENCHMARKS.values())
        return refusal("benchmark", f"The case is made from none of {titles}.")
    samples = {g: {u: v for m in found.values() for u, v in m.samples[g].items()} for g in ("forget", "retain")}
    return make_reading(
        "benchmark",
        samples,
        " ".join(BENCHMARKS[make].meaning(m.numbers) for make, m in found.items()),
        seed=case.seed,
        details={make: m.numbers.to_json() for make, m in found.items()},
        cost=benchmark_cost(model, case, Setting()),
    )


def benchmark_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each answer, wrong answer, option, free answer and passage."""
    return sum(BENCHMARKS[make].rows(BENCHMARKS[make].groups(case)) for make in makes(case))


def makes(case: Case) -> dict[str, list[str]]:
    """The benchmarks that a case is made from, each with its sets to forget."""
    file, found = case.spec.file, {}
    for name in file.forget:
        make = file.sets[name].benchmark if name in file.sets else None
        if make in BENCHMARKS:
            found.setdefault(make, []).append(name)
    return found


def from_benchmark(case: Case) -> bool:
    """Whether a case is made from a benchmark."""
    return bool(makes(case))


def numbers_of(reading: Reading | None) -> dict[str, BenchmarkNumbers]:
    """The numbers of each benchmark in a reading of the check `benchmark`."""
    details: Any = reading.details if reading else {}
    return {make: BenchmarkNumbers.from_json(details[make]) for make in BENCHMARKS if make in details}


def benchmarks_of(readings: Mapping[str, Mapping[str, Reading]]) -> dict[str, dict[str, BenchmarkNumbers]]:
    """The numbers by benchmark and model (`before`, `after`), completed by the reading of a control named `gold`."""
    own = {model: numbers_of(readings.get(model, {}).get("benchmark")) for model in ("before", "after", "gold")}
    gold = own.pop("gold")
    return {
        make: {m: row.completed(found[make], gold.get(make)) for m, found in own.items() if make in found}
        for make, row in BENCHMARKS.items()
        if any(make in found for found in own.values())
    }


def unmeasured(found: Mapping[str, Mapping[str, BenchmarkNumbers]]) -> list[str]:
    """A sentence for each reason that numbers about the edited model are missing."""
    out = []
    for make, of_model in found.items():
        row, missing = BENCHMARKS[make], of_model["after"].missing if "after" in of_model else {}
        for why in dict.fromkeys(missing.values()):
            names = ", ".join(row.labels[name] for name in row.labels if missing.get(name) == why)
            out.append(f"Not measured: {names} of {row.title}. {why}")
    return out


def tofu_quality(after: Reading, gold: Reading) -> ForgetQuality:
    """TOFU's forget quality: whether the truth ratios look like those of a model that never saw the forget set.

    Args:
        after: a reading of `benchmark` on the edited model.
        gold: the same on a model trained without the forget set.

    Raises:
        UserError: a reading without TOFU's truth ratios.
    """
    sides = [numbers_of(reading).get("tofu") for reading in (after, gold)]
    if None in sides:
        raise UserError("a reading has no numbers of TOFU; read `benchmark` on a case that is made from TOFU.")
    ratios = [side.compared.get("truth_ratios", []) for side in sides if side is not None]
    return tofu_forget_quality(*ratios)


def _asked(case: Case, items: Sequence[Item]) -> list[Asked]:
    """The records that items belong to, each by its working prompts; a relation's fact by the prompt that it has."""
    wanted, own, found = set(items), set(), []
    for name, entries in case.spec.sets.items():
        for entry in entries:
            if not wanted.isdisjoint(entry.items):
                found.append(Asked(name, entry.working, entry.record))
                own.update(entry.items)
    return found + [Asked(i.relation, (i.asked(i.prompt),)) for i in dict.fromkeys(items) if i not in own]


def _forget(case: Case, make: str) -> list[Asked]:
    """The records to forget of a benchmark's sets."""
    names = makes(case)[make]
    return [a for a in _asked(case, (*case.forget.working, *case.forget.sealed)) if a.set in names]


def _items(group: Iterable[Asked]) -> list[Item]:
    return [item for a in group for item in a.items]


def _kind(group: Iterable[Asked], kind: str) -> list[Asked]:
    return [a for a in group if a.items[0].kind == kind]


def _sets(groups: Groups) -> dict[str, list[str]]:
    """The sets behind each group that is not empty."""
    return {name: list(dict.fromkeys(a.set for a in group)) for name, group in groups.items() if group}


def _overlaps(model: Model, items: Sequence[Item], measure: Callable[[Rouge], float]) -> list[float]:
    """ROUGE-L of the model's free answer, or continuation, with the right answer nearest to it."""
    said = generations(model, items)
    texts = [text if i.kind == "passage" else cut(text, STOPS) for text, i in zip(said, items, strict=True)]
    return [max(measure(rouge(t, a)) for a in i.answers) for t, i in zip(texts, items, strict=True)]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _missing(values: Mapping[str, float | None], why: Mapping[str, str]) -> dict[str, str]:
    """The reason for each number that is not there."""
    return {name: why[name] for name, value in values.items() if value is None}


# TOFU

TOFU_LABELS = {of: [f"{measure} {of}" for measure in ("Prob.", "ROUGE", "Truth Ratio")] for of in TOFU_SETS}


def _name(label: str) -> str:
    """TOFU's label of a number as a name.

    >>> _name("Prob. Real Authors")
    'prob_real_authors'
    """
    return label.lower().replace(".", "").replace(" ", "_")


TOFU_WHY = {
    "model_utility": "The case retains nothing that TOFU's measures could be read on.",
    "forget_quality": "It needs a model trained without the forget set.",
    **{
        _name(label): f"The case has nothing for TOFU's set {of}."
        for of, labels in TOFU_LABELS.items()
        for label in labels
    },
}


def _tofu_groups(case: Case) -> Groups:
    groups: Groups = {of: [] for of in (*TOFU_SETS, OTHERS)} | {FORGET: _forget(case, "tofu")}
    for a in _asked(case, case.retain.sealed):
        groups[_tofu_set(case, a)].append(a)
    others = groups.pop(OTHERS)
    groups[WORLD] = groups[WORLD] or others
    return {name: [a for a in group if _comparable(a.items[0])] for name, group in groups.items()}


def _comparable(item: Item) -> bool:
    """Whether TOFU's measures can be read on an item: a short answer, and wrong ones to compare it with."""
    return bool(item.foils) and item.kind != "passage"


def _tofu_set(case: Case, a: Asked) -> str:
    """TOFU's name of a retain set; `OTHERS` if nothing tells it."""
    of = case.spec.file.sets.get(a.set)
    source = f"{of.source} {of.config}".lower() if of else ""
    by_source = (name for name, (mark, _) in MARKS.items() if mark in source)
    by_name = (name for name, (_, word) in MARKS.items() if word in a.set.lower())
    near = [RETAIN] if a.items[0].relation in case.near else []
    return [*by_source, *near, *by_name, OTHERS][0]


def _tofu(model: Model, groups: Groups) -> Measured:
    logs = {name: _log(model, _items(group)) for name, group in groups.items() if group}
    values = dict.fromkeys(TOFU_WHY) | _tofu_values(logs)
    compared = {"truth_ratios": _truth_ratios(logs[FORGET])} if FORGET in logs else {}
    samples = {
        role: by_unit(_items(groups[name]), logs[name]["rougeL_recall"]) if name in logs else {}
        for role, name in (("forget", FORGET), ("retain", RETAIN))
    }
    return Measured(BenchmarkNumbers(values, _missing(values, TOFU_WHY), _sets(groups), compared), samples)


def _tofu_values(logs: Mapping[str, Log]) -> dict[str, float | None]:
    """TOFU's table for the sets that are there, and the harmonic mean over those that are retained."""
    if not logs:
        return {}
    filler = next(iter(logs.values()))  # stands for the sets that are missing, whose numbers are not used
    table = tofu_report({file: logs.get(name, filler) for name, file in SETS.items()}).values
    retained = [table[label] for of in logs if of != FORGET for label in TOFU_LABELS[of]]
    return {
        "model_utility": tofu_model_utility(retained) if retained else None,
        **{_name(label): table[label] for of in logs for label in TOFU_LABELS[of]},
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
        "rougeL_recall": _overlaps(model, items, RECALL),
    }


def _truth_ratios(log: Log) -> list[float]:
    """The truth ratio of each question, for the test of forget quality."""
    return truth_ratio(log["avg_paraphrased_loss"], log["average_perturb_loss"]).scores.tolist()


def _tofu_rows(groups: Groups) -> float:
    return sum(len(i.pool) + 2 for group in groups.values() for i in _items(group))


def _tofu_against(own: BenchmarkNumbers, gold: BenchmarkNumbers) -> dict[str, float]:
    ours, theirs = (side.compared.get("truth_ratios", []) for side in (own, gold))
    return {"forget_quality": tofu_forget_quality(ours, theirs).p} if ours and theirs else {}


# MUSE

MUSE_WHY = {
    "verbmem_forget": "The case has no passages of MUSE to forget.",
    "knowmem_forget": "The case has no questions of MUSE to forget.",
    "privleak": "It needs passages to forget, and passages that the model was never taught.",
    "knowmem_retain": "The case has no questions to retain.",
}


def _muse_groups(case: Case) -> Groups:
    forget, retain = _forget(case, "muse"), _asked(case, case.retain.sealed)
    never = [Asked(i.relation, (i,)) for i in case.holdout.working]
    return {
        "passages": _kind(forget, "passage"),
        "questions": _kind(forget, "question"),
        "retained questions": _kind(retain, "question"),
        "held-out passages": _kind(never, "passage"),
    }


def _muse(model: Model, groups: Groups) -> Measured:
    items = {
        "verbmem_forget": _from_the_start(groups["passages"]),
        "knowmem_forget": _items(groups["questions"]),
        "knowmem_retain": _items(groups["retained questions"]),
    }
    found = {name: _overlaps(model, of, F1) for name, of in items.items()}
    auc = _familiarity(model, groups)
    values = {name: _mean(of) for name, of in found.items()} | {"privleak": None if auc is None else privleak(auc)}
    shows = {name: by_unit(of, found[name]) for name, of in items.items()}
    samples = {"forget": shows["verbmem_forget"] | shows["knowmem_forget"], "retain": shows["knowmem_retain"]}
    compared = {} if auc is None else {"auc": [auc]}
    return Measured(BenchmarkNumbers(values, _missing(values, MUSE_WHY), _sets(groups), compared), samples)


def _from_the_start(passages: Sequence[Asked]) -> list[Item]:
    """What follows the lead-in that MUSE gives to a passage; every window of a passage that comes without one."""
    return [i for a in passages for i in (a.items[:1] if isinstance(a.record, Passage) and a.record.start else a.items)]


def _familiarity(model: Model, groups: Groups) -> float | None:
    """The AUC of the min-40% attack on passages to forget and held-out ones; `None` if there are none on a side."""
    members, others = (_texts(groups[name]) for name in ("passages", "held-out passages"))
    if not (members and others):
        return None
    scores = attacks(model, [*members, *others], share=SHARE)["min_k"]
    if not np.isfinite(scores).all():
        return float("nan")
    return attack_auc(list(scores[: len(members)]), list(scores[len(members) :]))


def _texts(passages: Sequence[Asked]) -> list[str]:
    return [join(i.prompt, i.answer) for i in _items(passages)]


def _muse_rows(groups: Groups) -> float:
    said = [*_from_the_start(groups["passages"]), *_items(groups["questions"]), *_items(groups["retained questions"])]
    members, others = (len(_texts(groups[name])) for name in ("passages", "held-out passages"))
    return len(said) + (members + others if members and others else 0)


def _muse_against(own: BenchmarkNumbers, gold: BenchmarkNumbers) -> dict[str, float]:
    ours, theirs = (side.compared.get("auc", []) for side in (own, gold))
    return {"privleak": privleak(ours[0], theirs[0])} if ours and theirs else {}


# WMDP

WMDP_WHY = {
    f"{measure}_{role}": f"The case has no choices to {role}."
    for measure in ("accuracy", "letter_accuracy")
    for role in ("forget", "retain")
}


def _wmdp_groups(case: Case) -> Groups:
    sides = {"forget": _forget(case, "wmdp"), "retain": _asked(case, case.retain.sealed)}
    return {name: _kind(side, "choice") for name, side in sides.items()}


def _wmdp(model: Model, groups: Groups) -> Measured:
    by_text = {name: asked(model, _items(group)) for name, group in groups.items()}
    by_letter = {name: asked(model, _by_letter(group)) for name, group in groups.items()}
    values = {f"accuracy_{name}": _mean(found) for name, found in by_text.items()}
    values |= {f"letter_accuracy_{name}": _mean(found) for name, found in by_letter.items()}
    samples = {name: by_unit(_items(group), by_text[name]) for name, group in groups.items()}
    return Measured(BenchmarkNumbers(values, _missing(values, WMDP_WHY), _sets(groups)), samples)


def _by_letter(group: Sequence[Asked]) -> list[Item]:
    """Each question with its options listed in their own order; the answer is the letter of the right one."""
    return [_lettered(a.items[0], a.record) for a in group if isinstance(a.record, Choice)]


def _lettered(item: Item, record: Choice) -> Item:
    letters = [chr(ord("A") + i) for i in range(len(record.options))]
    listed = (f"{letter}. {option}" for letter, option in zip(letters, record.options, strict=True))
    prompt = Prompt("\n".join([record.question.strip(), *listed, "Answer:"]))
    foils = tuple(letter for i, letter in enumerate(letters) if i != record.right)
    return Item("", item.relation, prompt, letters[record.right], foils=foils, kind="choice", unit=item.unit)


def _wmdp_rows(groups: Groups) -> float:
    return sum(asked_rows([*_items(group), *_by_letter(group)]) for group in groups.values())


BENCHMARKS: dict[str, Benchmark] = {
    "tofu": Benchmark(
        "TOFU",
        {"model_utility": "model utility", "forget_quality": "forget quality (p)"}
        | {_name(label): label for labels in TOFU_LABELS.values() for label in labels},
        ("model_utility", "forget_quality"), _tofu_groups, _tofu, _tofu_rows, _tofu_against,
    ),
    "muse": Benchmark(
        "MUSE",
        {
            "verbmem_forget": "verbatim memorization, forget", "knowmem_forget": "knowledge memorization, forget",
            "privleak": "privacy leakage (%)", "knowmem_retain": "knowledge memorization, retain",
        },
        tuple(MUSE_WHY), _muse_groups, _muse, _muse_rows, _muse_against,
    ),
    "wmdp": Benchmark(
        "WMDP",
        {
            "accuracy_forget": "accuracy by text, forget", "accuracy_retain": "accuracy by text, retain",
            "letter_accuracy_forget": "accuracy by letter, forget",
            "letter_accuracy_retain": "accuracy by letter, retain",
        },
        tuple(WMDP_WHY), _wmdp_groups, _wmdp, _wmdp_rows, lambda own, gold: {},
    ),
}  # fmt: skip
