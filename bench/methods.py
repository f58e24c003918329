"""At the same forgetting, what does each method cost on each choice of sites, and how much comes back?

    python -m bench.methods --json FILE [--table FILE] [--figure FILE]

Every cell is one case, method, choice of sites and seed. The edit is trained until the forgotten answers, behind
working prompts that training does not see, have a mean probability of at most 5%, but at least twelve steps: forgetting
takes two or three, in which much else goes too, and it takes the others to bring that back. Then it is weakened to the
least strength at which the mark is still met, so that all are compared at the same forgetting. Learning rates are tried
from the gentlest on, and a cell that never gets there says so. Weakening would undo what simulated relearning is for,
so `runs`, the recipe of runs on the neurons that they locate, goes to its end and stays as it is, and so do the methods
called `whole`, which train for as long with as many rows to be kept: all below the mark, too. `runs, plain` is that
recipe without mixtures and white coordinates. So does `memit`, which trains no weights, writes each fact another
answer of its kind, and chooses its `own` sites. Measured is the sealed part: the same relation, others, perplexity, and
how much of the answers relearning brings back (five folds). A cell's rows are written together, and a second call makes
those that are missing, the most important first; by default 36, at about two minutes each on one core. The paired
differences go at the end of the same file.
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
from loka.knowledge import Case, Fact, Split, neutral_sealed, neutral_working, score, text_loss
from loka.model import Edit, Model, Part, Site
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import LOCATOR
from loka.verify.checks import CAP
from loka.verify.judge.statistics import interval
from loka.verify.units import unit_key

from ._methods import figure, paired, table

MARK = 0.05
STEPS, LEAST, EVERY, HALVINGS = 24, 12, 4, 4
NEURONS = 600  # as in the default recipe
PASSAGES = 16  # neutral text to train on, and as much sealed text to read
KEPT = 24  # sealed facts of other relations
ATTACK = replace(CAP, steps=2, measured=())
ROWS: dict[str, Any] = {"retain_rows": 8, "neutral_rows": 2}
WEIGHTS = {"retain_weight": 5.0, "neutral_weight": 2.0}
TRAINED = ROWS | WEIGHTS | {"steps": STEPS}
PUSHED = {"push_weight": 0.25}  # `undial` alone comes to rest above the mark
RUNS = Recipe.load("quick").to_json()["config"]
AS_LONG = {k: RUNS[k] for k in ("steps", "retain_rows", "neutral_rows")}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "twin_distribution": ("tune", TRAINED | {"objective": "twin_distribution"}),
    "undial": ("tune", TRAINED | PUSHED),
    "npo": ("tune", TRAINED | {"objective": "npo"}),
    "lora": ("lora", TRAINED | PUSHED),
    "simnpo": ("tune", TRAINED | {"objective": "simnpo"}),
    "difference": ("tune", TRAINED | {"objective": "difference"}),
    "twin_states": ("tune", TRAINED | {"objective": "twin_states", "settings": {"layer": 15}}),
    "rmu": ("tune", TRAINED | {"objective": "rmu", "settings": {"layer": 15}}),
    "reset": ("reset", TRAINED | PUSHED),
    "leace": ("leace", {}),
    "memit": ("memit", {}),
    "runs": ("tune", RUNS),
    "runs, plain": ("tune", RUNS | {"mixup_rows": 0, "precondition": None}),
    "undial, whole": ("tune", TRAINED | PUSHED | AS_LONG),
    "npo, whole": ("tune", TRAINED | AS_LONG | {"objective": "npo"}),
}
OURS = ("runs", "runs, plain")
WHOLE = (*OURS, "undial, whole", "npo, whole", "memit")
CORE = {(m, s) for m in ("twin_distribution", "undial", "npo", "lora") for s in ("located", "random", "all")}
SITES = ("located", "random", "all", "layers", "frequent", "shallow", "own")
RATES = {"all": (5e-5, 1.5e-4), "layers": (2e-4, 6e-4), "shallow": (2e-4, 6e-4)}
ONE_BY_ONE = (1.5e-3, 3e-3)  # of neurons
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """What is made once: the rows of one edit."""

    case: str
    method: str
    sites: str
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        return {"case": self.case, "method": self.method, "sites": self.sites, "seed": self.seed}

    @property
    def rank(self) -> tuple[int, ...]:
        """The most important first: one seed of all cases for the methods and sites that matter most."""
        core = (self.method, self.sites) not in CORE
        return self.seed, core, [*METHODS].index(self.method), SITES.index(self.sites)


@dataclass(frozen=True)
class Study:
    """A case made small: what is trained on, what forgetting is judged by, and the sealed facts that must stay."""

    case: Case
    judged: list[Fact]
    kept: dict[str, list[Fact]]
    sites: dict[str, list[Site] | None]

    def left(self, model: Model) -> float:
        """Mean probability of the forgotten answers behind the judged prompts."""
        found = score(model, [f.prompt for f in self.judged], [f.answer for f in self.judged])
        return float(found.logprob.exp().mean())


def main() -> None:
    """Make the cells that are missing; write rows, table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="a markdown file")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=["capitals", "elements", "authors"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:4], choices=list(METHODS))
    parser.add_argument("--sites", nargs="+", default=SITES[:3], choices=SITES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--facts", type=int, default=14, help="to forget, of each case")
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no new cell is begun after so long")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    rows: list[Row] = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    fixed = {"model": options.model, "facts": options.facts, "neurons": options.neurons}
    others = [r for r in rows if "case" in r["settings"] and not fixed.items() <= r["settings"].items()]
    rows = [r for r in rows if "case" in r["settings"] and fixed.items() <= r["settings"].items()]
    for made in cells(options, fixed, [r["settings"] for r in rows]):
        rows += made
        show(made)
        if options.json:
            write_json(options.json, others + rows + paired(rows))
        if time.monotonic() > end:
            break
    if options.json:
        write_json(options.json, others + rows + paired(rows))
    for row in paired(rows):
        print(f"{row['name']:70} {row['value']:+7.3f} ({row['low']:+.3f} to {row['high']:+.3f})")
    if options.table:
        write_atomic(options.table, table(rows).encode())
    if options.figure:
        figure(rows).savefig(options.figure, dpi=150)


def cells(options: argparse.Namespace, fixed: dict[str, Any], made: Sequence[dict[str, Any]]) -> Iterator[list[Row]]:
    """The rows of each cell that is not made yet, and of each case's original before its first cell."""
    wanted = [
        Cell(c, m, s, seed)
        for seed in options.seeds for m in options.methods for s in options.sites for c in options.cases
        if fits(m, s)
    ]  # fmt: skip
    there = {tuple((fixed | s)[k] for k in (*fixed, "case", "method", "sites", "seed")) for s in made}

    def missing(cell: Cell) -> bool:
        return (*fixed.values(), cell.case, cell.method, cell.sites, cell.seed) not in there

    todo = [cell for cell in sorted(wanted, key=lambda c: c.rank) if missing(cell)]
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
    """Whether a method takes such sites: LoRA works on whole maps; the shallow control and `own` are one's each."""
    if method == "memit" or sites == "own":
        return method == "memit" and sites == "own"
    if method == "lora":
        return sites in ("located", "random", "all")
    return method == "undial" or sites != "shallow"


def study(model: Model, name: str, facts: int, neurons: int, seed: int) -> Study:
    """The case with so many forget facts. Every second working template, two at most, is kept from training."""
    case = loka.case(name).on(model)
    order = np.random.default_rng(case.seed).permutation(len(case.forget.working))[:facts]
    working, sealed = ([side[i] for i in sorted(order)] for side in (case.forget.working, case.forget.sealed))
    judged = [f.asked(p) for f in working for p in f.prompts[1:4:2]]
    small = replace(
        case,
        forget=Split(tuple(map(_taught, working)), tuple(sealed)),
        retain=Split(tuple(map(_taught, case.retain.working)), case.retain.sealed),
        unknown=tuple(map(_taught, case.unknown[:KEPT])),
        passages=tuple(neutral_working(model, case, PASSAGES)),
        digest=f"{case.digest}/methods/{facts}",
    )
    near = [f for f in case.retain.sealed if f.relation in case.forgotten_relations]
    far = [f for f in case.retain.sealed if f.relation not in case.forgotten_relations]
    far = [far[i] for i in sorted(np.random.default_rng(case.seed).permutation(len(far))[:KEPT])]
    return Study(small, judged, {"same": near, "other": far}, choices(model, small, neurons, seed))


def _taught(fact: Fact) -> Fact:
    """The fact behind the templates that are not judged by."""
    first, *others = (p for i, p in enumerate(fact.prompts) if i not in (1, 3))
    return replace(fact, prompt=first, paraphrases=tuple(others))


def choices(model: Model, case: Case, n: int, seed: int) -> dict[str, list[Site] | None]:
    """Neurons located, or as many at random in the same layers; whole layers; everything.

    `layers` are the MLPs that hold the best neurons, as few as have half of them; `frequent` are located by how often
    they are among the best when facts are drawn again; `shallow` is what hides and does not remove.
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
        "shallow": [Site(i, part) for i in range(model.n_layers - 2, model.n_layers) for part in last],
        "own": None,
    }


def chosen(model: Model, study: Study, cell: Cell) -> list[Site] | None:
    """A cell's sites. Those of runs are by their own locator; LoRA's are whole layers' MLPs: those located, or as many
    others; a closed form needs a list.
    """
    if cell.method == "lora" and cell.sites != "all":
        layers = study.sites["layers"] or []
        others = [s for s in model.sites("mlp") if s not in layers]
        drawn = np.random.default_rng(cell.seed).permutation(len(others))[: len(layers)]
        return layers if cell.sites == "located" else [others[i] for i in sorted(drawn)]
    if cell.method in OURS and cell.sites in ("located", "random"):
        best = loka.locate.perform(LOCATOR, model, study.case).top(len(study.sites["located"] or ()), part="neuron")
        return best if cell.sites == "located" else loka.locate.random_sites(model, best, seed=cell.seed)
    every = model.sites("mlp") if cell.method == "leace" else None
    return study.sites[cell.sites] or every


def measure(model: Model, study: Study, cell: Cell, fixed: dict[str, Any]) -> list[Row]:
    """Make a cell's edit, bring it to the mark, and measure it."""
    start = time.process_time()
    edit, how = brought(model, study, cell)
    how |= {"seconds to make": round(time.process_time() - start)}
    settings = cell.settings | fixed | how
    if edit is None:
        return [_row("forget probability", {}, settings)]
    with edit.applied(model):
        return measured(model, study, settings | {"parameters": edit.parameters})


def brought(model: Model, study: Study, cell: Cell) -> tuple[Edit | None, dict[str, Any]]:
    """An edit at the mark by the gentlest learning rate that gets there, and how it was made; None if all diverged.

    `left`: what was left of the judged answers before it was weakened.
    """
    method, arguments = METHODS[cell.method]
    ours = loka.ablate.METHODS[method]
    takes, trains = inspect.signature(ours.run).parameters, isinstance(ours.config, TrainingConfig)
    edit: Edit | None = None
    how: dict[str, Any] = {"reached": False}

    def met(edit: Edit) -> bool:
        with edit.applied(model):
            return study.left(model) <= MARK

    for lr in rates(cell) if trains else (None,):
        taken = [0]
        speed = {} if lr is None else {"lr": lr, "seed": cell.seed}
        extra: dict[str, Any] = {"config": arguments | speed} if ours.config else {}
        if method != "reset" and cell.method not in WHOLE and "stop" in takes:
            extra["stop"] = _at_the_mark(model, study, taken)
        try:
            edit = _performed(ours, model, study.case, chosen(model, study, cell), extra)
        except LokaError as error:
            how["failed"] = str(error)
            continue
        steps = (taken[0] if "stop" in extra else arguments["steps"]) if lr else 0
        with edit.applied(model):
            left = study.left(model)
        how = {"reached": left <= MARK, "lr": lr, "steps": steps, "left": left, "strength": 1.0}
        if left <= MARK:
            if cell.method not in WHOLE:
                edit = weakest(model, edit, met, HALVINGS)
                how["strength"] = edit.record.strength
            break
    return edit, how


def _performed(method: Method, model: Model, case: Case, sites: list[Site] | None, arguments: dict[str, Any]) -> Edit:
    """An edit by a method, with `stop` beside the arguments that recipes have."""
    stop = {name: arguments[name] for name in ("stop",) if name in arguments}
    return method.run(model, case, sites, **method.read({k: v for k, v in arguments.items() if k != "stop"}), **stop)


def rates(cell: Cell) -> tuple[float, ...]:
    """The learning rates to be tried: the gentlest first."""
    if cell.method == "lora":
        return 1e-3, 3e-3
    return RATES.get(cell.sites) or ((RUNS["lr"],) if cell.method in OURS else ONE_BY_ONE)


def _at_the_mark(model: Model, study: Study, taken: list[int]) -> Callable[[int], bool]:
    def stop(step: int) -> bool:
        taken[0] = step
        return step >= LEAST and not step % EVERY and study.left(model) <= MARK

    return stop


def original(model: Model, study: Study, settings: dict[str, Any]) -> list[Row]:
    """What the cells are compared with, and what relearning brings out of twins, which were never taught."""
    rows = measured(model, study, settings)
    twins = loka.verify.relearn(model, study.case, budget=ATTACK, groups=("twins",))
    return [*rows, _row("relearned, twins", twins.samples["twins"], settings)]


def measured(model: Model, study: Study, settings: dict[str, Any]) -> list[Row]:
    """All measures of a model, on sealed prompts; a row a measure, with each subject's number."""
    rows = []
    for group, facts in {"forget": study.case.forget.sealed, **study.kept}.items():
        values = asked(model, facts)
        rows += [_row(f"{group} {what}", {k: v[i] for k, v in values.items()}, settings)
                 for i, what in enumerate(("probability", "answered"))]  # fmt: skip
    loss, tokens = text_loss(model, neutral_sealed(study.case)[:PASSAGES]).sum(0).tolist()
    rows.append(_row("perplexity", {"text": math.exp(min(loss / tokens, 50))}, settings, unit=""))
    back = loka.verify.relearn(model, study.case, budget=ATTACK, groups=("forget",))
    return [*rows, _row("relearned", back.samples["forget"], settings)]


def asked(model: Model, facts: Sequence[Fact]) -> dict[str, tuple[float, float]]:
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
    """A cell on one line, as soon as it is there."""
    s = rows[0]["settings"]
    made = f"{s['steps']:3} steps at {s['lr']}, strength {s['strength']:.2f}" if "steps" in s else ""
    numbers = ", ".join(f"{r['name']} {r['value']:.3f}" for r in rows if r["value"] is not None)
    at = f"{s['case']}, {s['method']}, {s['sites']}, seed {s['seed']}"
    print(f"{at}: {made}{'' if s.get('reached', True) else ' (MARK NOT REACHED)'}: {numbers}", flush=True)


if __name__ == "__main__":
    main()
