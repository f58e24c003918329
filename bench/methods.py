"""What each method costs on each choice of sites at the same forgetting, and how much comes back.

    python -m bench.methods --json FILE [--table FILE] [--figure FILE]

A cell is one case, method, choice of sites and seed. Its edit trains until the forget answers have a mean probability
of at most 5% on working prompts that the training does not see, and for at least twelve steps. Two or three steps are
enough to forget; the others repair what these damage. The edit is then weakened to the smallest strength that still
meets the mark, so all cells are compared at the same forgetting. Learning rates are tried in rising order. A cell that
misses the mark at every rate says so.

Some methods are not weakened; all of them end below the mark. `runs` is the recipe of runs, whose simulated relearning
weakening would defeat. A run takes its sites as `specific` does: the best by its locator, without those that any text
needs. `located` takes them whatever they serve, as runs once did. `runs, plain` is that recipe without mixups and
without the preconditioner. The methods called `whole` train for as many steps as `runs`, with as many retain rows.
`memit` trains no weights. It writes another answer for each fact into MLPs that it chooses itself (`own`).

Measured on sealed prompts: the forget facts, the same relation, other relations, perplexity, and how much of the
answers five-fold relearning brings back. The rows of a cell are written together. A second call makes only the missing
cells, the most important first. The default is 36 cells, at about two minutes each on one core. The paired differences
stand at the end of the same file.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import loka
from loka._util.errors import LokaError
from loka._util.files import write_atomic, write_json
from loka.ablate import Method, TrainingConfig
from loka.audit.controls import weakest
from loka.knowledge import Case, Item, Split, neutral_sealed, neutral_working, score, text_loss
from loka.model import Edit, Model, Part, Site
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import LOCATOR
from loka.verify.checks import CAP
from loka.verify.judge.statistics import interval
from loka.verify.units import unit_key

from ._methods import figure, paired_differences, table

MARK = 0.05
STEPS, LEAST, EVERY, HALVINGS = 24, 12, 4, 4
NEURONS = 600  # as in the default recipe
PASSAGES = 16  # of neutral text to train on, and of sealed text to measure
N_OTHER = 24  # sealed facts of other relations, and facts that the model does not know
ATTACK = replace(CAP, steps=2, measured=())
ROWS: dict[str, Any] = {"retain_rows": 8, "neutral_rows": 2}
WEIGHTS = {"retain_weight": 5.0, "neutral_weight": 2.0}
TRAINED = ROWS | WEIGHTS | {"steps": STEPS}
PUSH = {"push_weight": 0.25}  # `undial` alone stops above the mark
RUNS = Recipe.load("quick").to_json()["config"]
AS_LONG = {k: RUNS[k] for k in ("steps", "retain_rows", "neutral_rows")}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "twin_distribution": ("tune", TRAINED | {"objective": "twin_distribution"}),
    "undial": ("tune", TRAINED | PUSH),
    "npo": ("tune", TRAINED | {"objective": "npo"}),
    "lora": ("lora", TRAINED | PUSH),
    "simnpo": ("tune", TRAINED | {"objective": "simnpo"}),
    "difference": ("tune", TRAINED | {"objective": "difference"}),
    "twin_states": ("tune", TRAINED | {"objective": "twin_states", "settings": {"layer": 15}}),
    "rmu": ("tune", TRAINED | {"objective": "rmu", "settings": {"layer": 15}}),
    "reset": ("reset", TRAINED | PUSH),
    "leace": ("leace", {}),
    "memit": ("memit", {}),
    "runs": ("tune", RUNS),
    "runs, plain": ("tune", RUNS | {"mixup_rows": 0, "precondition": None}),
    "undial, whole": ("tune", TRAINED | PUSH | AS_LONG),
    "npo, whole": ("tune", TRAINED | AS_LONG | {"objective": "npo"}),
}
RECIPES = ("runs", "runs, plain")
WHOLE = (*RECIPES, "undial, whole", "npo, whole", "memit")
CORE = {(m, s) for m in ("twin_distribution", "undial", "npo", "lora") for s in ("located", "random", "all")}
SITES = ("located", "random", "all", "layers", "frequent", "selective", "specific", "shallow", "own")
RATES = {"all": (5e-5, 1.5e-4), "layers": (2e-4, 6e-4), "shallow": (2e-4, 6e-4)}
NEURON_RATES = (1.5e-3, 3e-3)
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One edit, and its rows."""

    case: str
    method: str
    sites: str
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        return {"case": self.case, "method": self.method, "sites": self.sites, "seed": self.seed}

    @property
    def rank(self) -> tuple[int, ...]:
        """A sort key, the most important cells first: of each seed, the methods and sites of `CORE` on all cases."""
        minor = (self.method, self.sites) not in CORE
        return self.seed, minor, [*METHODS].index(self.method), SITES.index(self.sites)


@dataclass(frozen=True)
class Study:
    """A smaller case: `mark` judges the forgetting, `retain` are the sealed facts that must stay, by group."""

    case: Case
    mark: list[Item]
    retain: dict[str, list[Item]]
    sites: dict[str, list[Site] | None]

    def left(self, model: Model) -> float:
        """The mean probability of the forget answers on the prompts that judge the mark."""
        found = score(model, [f.prompt for f in self.mark], [f.answer for f in self.mark])
        return float(found.logprob.exp().mean())


def main() -> None:
    """Make the missing cells; write the rows, the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="a markdown file")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=["capitals", "elements", "authors"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:4], choices=list(METHODS))
    parser.add_argument("--sites", nargs="+", default=SITES[:3], choices=SITES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--facts", type=int, default=14, help="how many forget facts per case")
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no new cell after this long")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    rows: list[Row] = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    fixed = {"model": options.model, "facts": options.facts, "neurons": options.neurons}
    others = [r for r in rows if "case" in r["settings"] and not fixed.items() <= r["settings"].items()]
    rows = [r for r in rows if "case" in r["settings"] and fixed.items() <= r["settings"].items()]
    for new in cells(options, fixed, [r["settings"] for r in rows]):
        rows += new
        show(new)
        if options.json:
            write_json(options.json, others + rows + paired_differences(rows))
        if time.monotonic() > end:
            break
    if options.json:
        write_json(options.json, others + rows + paired_differences(rows))
    for row in paired_differences(rows):
        print(f"{row['name']:70} {row['value']:+7.3f} ({row['low']:+.3f} to {row['high']:+.3f})")
    if options.table:
        write_atomic(options.table, table(rows).encode())
    if options.figure:
        figure(rows).savefig(options.figure, dpi=150)


def cells(
    options: argparse.Namespace, fixed: dict[str, Any], finished: Sequence[dict[str, Any]]
) -> Iterator[list[Row]]:
    """The rows of each missing cell, and before a case's first cell those of its original model."""
    requested = [
        Cell(c, m, s, seed)
        for seed in options.seeds for m in options.methods for s in options.sites for c in options.cases
        if fits(m, s)
    ]  # fmt: skip
    there = {tuple((fixed | s)[k] for k in (*fixed, "case", "method", "sites", "seed")) for s in finished}

    def missing(cell: Cell) -> bool:
        return (*fixed.values(), cell.case, cell.method, cell.sites, cell.seed) not in there

    todo = [cell for cell in sorted(requested, key=lambda c: c.rank) if missing(cell)]
    model = loka.load(options.model) if todo else None
    studies: dict[tuple[str, int], Study] = {}
    for cell in todo:
        assert model
        at = cell.case, cell.seed
        if at not in studies:
            studies[at] = study(model, cell.case, options.facts, options.neurons, cell.seed)
            first = Cell(cell.case, "original", "none", 0)
            if missing(first):
                there.add((*fixed.values(), *first.settings.values()))
                yield original(model, studies[at], first.settings | fixed)
        yield measure(model, studies[at], cell, fixed)


def fits(method: str, sites: str) -> bool:
    """Whether a method takes such sites. LoRA trains whole maps; `shallow` is for `undial`, `own` for `memit`."""
    if method == "memit" or sites == "own":
        return method == "memit" and sites == "own"
    if sites == "specific":
        return method in RECIPES
    if method == "lora":
        return sites in ("located", "random", "all")
    return method == "undial" or sites != "shallow"


def study(model: Model, name: str, facts: int, neurons: int, seed: int) -> Study:
    """The case with `facts` forget facts. Every second working template, at most two, judges the mark instead."""
    case = loka.case(name).on(model)
    order = np.random.default_rng(case.seed).permutation(len(case.forget.working))[:facts]
    working, sealed = ([side[i] for i in sorted(order)] for side in (case.forget.working, case.forget.sealed))
    mark = [f.asked(p) for f in working for p in f.prompts[1:4:2]]
    small = replace(
        case,
        forget=Split(tuple(map(_training_part, working)), tuple(sealed)),
        retain=Split(tuple(map(_training_part, case.retain.working)), case.retain.sealed),
        unknown=tuple(map(_training_part, case.unknown[:N_OTHER])),
        passages=tuple(neutral_working(model, case, PASSAGES)),
    )
    near = [f for f in case.retain.sealed if f.relation in case.forgotten_relations]
    far = [f for f in case.retain.sealed if f.relation not in case.forgotten_relations]
    far = [far[i] for i in sorted(np.random.default_rng(case.seed).permutation(len(far))[:N_OTHER])]
    return Study(small, mark, {"same": near, "other": far}, site_choices(model, small, neurons, seed))


def _training_part(fact: Item) -> Item:
    """The fact with the templates that training may see."""
    first, *others = (p for i, p in enumerate(fact.prompts) if i not in (1, 3))
    return replace(fact, prompt=first, paraphrases=tuple(others))


def site_choices(model: Model, case: Case, n: int, seed: int) -> dict[str, list[Site] | None]:
    """Every choice of sites by name; `None` leaves the choice to the method.

    - `located`: the best `n` neurons. `random`: as many random neurons of the same layers.
    - `layers`: the fewest MLPs that hold half of the best neurons. `all`: everything.
    - `frequent`: the neurons that are most often among the best when the facts are resampled.
    - `selective`: the best `n` neurons by `taylor`.
    - `shallow`: the last two layers, which hide and do not remove. `own`: those of `memit`.
    """
    found = loka.locate.attribution(model, case, parts=("neuron",))
    best = found.top(n)
    by_layer, layers = Counter(s.layer for s in best), []
    for layer, _ in by_layer.most_common():
        if sum(by_layer[i] for i in layers) * 2 >= n:
            break
        layers.append(layer)
    last: list[Part] = ["attn", "mlp"]
    return {
        "located": best,
        "random": loka.locate.random_sites(model, best, seed=seed),
        "layers": [Site(i, "mlp") for i in sorted(layers)],
        "all": None,
        "frequent": found.top(n, by="frequency"),
        "selective": loka.locate.taylor(model, case, parts=("neuron",)).top(n),
        "shallow": [Site(i, part) for i in range(model.n_layers - 2, model.n_layers) for part in last],
        "own": None,
    }


def sites_of(model: Model, study: Study, cell: Cell) -> list[Site] | None:
    """A cell's sites.

    `runs` locates with the locator of runs; `specific` are its best neurons without those that any text needs. LoRA
    trains whole MLPs: those of the located layers, or as many others. LEACE needs a list, so `all` are all MLPs.
    """
    if cell.method == "lora" and cell.sites != "all":
        layers = study.sites["layers"] or []
        others = [s for s in model.sites("mlp") if s not in layers]
        drawn = np.random.default_rng(cell.seed).permutation(len(others))[: len(layers)]
        return layers if cell.sites == "located" else [others[i] for i in sorted(drawn)]
    if cell.method in RECIPES and cell.sites in ("located", "random", "specific"):
        n, found = len(study.sites["located"] or ()), loka.locate.perform(LOCATOR, model, study.case)
        if cell.sites == "specific":
            return loka.locate.mark_general(model, study.case, found).top(n)
        best = found.top(n)
        return best if cell.sites == "located" else loka.locate.random_sites(model, best, seed=cell.seed)
    every = model.sites("mlp") if cell.method == "leace" else None
    return study.sites[cell.sites] or every


def measure(model: Model, study: Study, cell: Cell, fixed: dict[str, Any]) -> list[Row]:
    """Make a cell's edit, bring it to the mark, and measure it."""
    start = time.process_time()
    edit, how = edit_at_mark(model, study, cell)
    how |= {"seconds to make": round(time.process_time() - start)}
    settings = cell.settings | fixed | how
    if edit is None:
        return [_row("forget probability", {}, settings)]
    with edit.applied(model):
        return measurements(model, study, settings | {"parameters": edit.parameters})


def edit_at_mark(model: Model, study: Study, cell: Cell) -> tuple[Edit | None, dict[str, Any]]:
    """An edit at the mark by the smallest learning rate that reaches it, and how it was made; None if all diverged.

    `left` is the mean probability of the forget answers before the edit was weakened.
    """
    method, arguments = METHODS[cell.method]
    row = loka.ablate.METHODS[method]
    takes, trains = inspect.signature(row.run).parameters, isinstance(row.config, TrainingConfig)
    edit: Edit | None = None
    how: dict[str, Any] = {"reached": False}

    def meets(edit: Edit) -> bool:
        with edit.applied(model):
            return study.left(model) <= MARK

    for lr in rates(cell) if trains else (None,):
        taken = [0]
        speed = {} if lr is None else {"lr": lr, "seed": cell.seed}
        extra: dict[str, Any] = {"config": arguments | speed} if row.config else {}
        if method != "reset" and cell.method not in WHOLE and "stop" in takes:
            extra["stop"] = _at_the_mark(model, study, taken)
        try:
            edit = _perform(row, model, study.case, sites_of(model, study, cell), extra)
        except LokaError as error:
            how["failed"] = str(error)
            continue
        steps = (taken[0] if "stop" in extra else arguments["steps"]) if lr else 0
        with edit.applied(model):
            left = study.left(model)
        how = {"reached": left <= MARK, "lr": lr, "steps": steps, "left": left, "strength": 1.0}
        if left <= MARK:
            if cell.method not in WHOLE:
                edit = weakest(model, edit, meets, HALVINGS)
                how["strength"] = edit.record.strength
            break
    return edit, how


def _perform(method: Method, model: Model, case: Case, sites: list[Site] | None, arguments: dict[str, Any]) -> Edit:
    """An edit by a method. `stop` is a function, so it cannot be read from JSON as the other arguments are."""
    stop = {name: arguments[name] for name in ("stop",) if name in arguments}
    return method.run(model, case, sites, **method.read({k: v for k, v in arguments.items() if k != "stop"}), **stop)


def rates(cell: Cell) -> tuple[float, ...]:
    """The learning rates to try, the smallest first."""
    if cell.method == "lora":
        return 1e-3, 3e-3
    return RATES.get(cell.sites) or ((RUNS["lr"],) if cell.method in RECIPES else NEURON_RATES)


def _at_the_mark(model: Model, study: Study, taken: list[int]) -> Callable[[int], bool]:
    def stop(step: int) -> bool:
        taken[0] = step
        return step >= LEAST and not step % EVERY and study.left(model) <= MARK

    return stop


def original(model: Model, study: Study, settings: dict[str, Any]) -> list[Row]:
    """The rows of the original, and what relearning brings out of the twins, which were never taught."""
    rows = measurements(model, study, settings)
    twins = loka.verify.relearn(model, study.case, budget=ATTACK, groups=("twins",))
    return [*rows, _row("relearned, twins", twins.samples["twins"], settings)]


def measurements(model: Model, study: Study, settings: dict[str, Any]) -> list[Row]:
    """All measures of a model on sealed prompts. A row is one measure, with each subject's number."""
    rows = []
    for group, facts in {"forget": study.case.forget.sealed, **study.retain}.items():
        values = answer_rates(model, facts)
        rows += [_row(f"{group} {what}", {k: v[i] for k, v in values.items()}, settings)
                 for i, what in enumerate(("probability", "answered"))]  # fmt: skip
    loss, tokens = text_loss(model, neutral_sealed(study.case)[:PASSAGES]).sum(0).tolist()
    rows.append(_row("perplexity", {"text": math.exp(min(loss / tokens, 50))}, settings, unit=""))
    back = loka.verify.relearn(model, study.case, budget=ATTACK, groups=("forget",))
    return [*rows, _row("relearned", back.samples["forget"], settings)]


def answer_rates(model: Model, facts: Sequence[Item]) -> dict[str, tuple[float, float]]:
    """By subject, over its first two prompts: the probability of the answer or an alias, and the share answered."""
    at = [(i, p, a) for i, f in enumerate(facts) for p in f.prompts[:2] for a in f.answers]
    found = score(model, [p for _, p, _ in at], [a for _, _, a in at])
    out = np.zeros((len(facts), 2))
    for (i, _, _), logp, right in zip(at, found.logprob.tolist(), found.greedy.tolist(), strict=True):
        out[i] += math.exp(logp), right
    return {
        unit_key(f): (p / n, min(r / n, 1.0)) for f, (p, r) in zip(facts, out, strict=True) if (n := len(f.prompts[:2]))
    }


def _row(name: str, samples: dict[str, float], settings: dict[str, Any], *, unit: str = "share") -> Row:
    values = np.array(list(samples.values()))
    low, high = interval(values) if len(values) else (None, None)
    return {
        "name": name, "value": float(values.mean()) if len(values) else None, "low": low, "high": high, "unit": unit,
        "n": len(values), "settings": settings, "samples": {k: round(v, 4) for k, v in samples.items()},
    }  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    """Print a cell on one line."""
    s = rows[0]["settings"]
    training = f"{s['steps']:3} steps at {s['lr']}, strength {s['strength']:.2f}" if "steps" in s else ""
    numbers = ", ".join(f"{r['name']} {r['value']:.3f}" for r in rows if r["value"] is not None)
    at = f"{s['case']}, {s['method']}, {s['sites']}, seed {s['seed']}"
    print(f"{at}: {training}{'' if s.get('reached', True) else ' (MARK NOT REACHED)'}: {numbers}", flush=True)


if __name__ == "__main__":
    main()
