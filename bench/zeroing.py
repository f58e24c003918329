"""Does locating help? Each fact's best neurons are zeroed, a few to a hundred, and so are as many others.

    python -m bench.zeroing --json FILE [--figure FILE]

Sites are chosen on the working prompts of one fact at a time and the working retain facts. What zeroing them does is
seen on the fact's sealed prompts and on sealed facts to be kept: of the same relation, and of others. Both are measured
as the probability of the whole answer, and as the share answered. One pass over all facts to locate, one short forward
pass for each fact, choice and number of neurons: about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import loka
from loka._util.files import write_json
from loka.knowledge import Case, Fact, score
from loka.locate.attribution import attribution_scores
from loka.locate.contrast import Scorer
from loka.locate.counterfactual import pairs
from loka.locate.taylor import SPARE, taylor_scores
from loka.model import Model, Site, chunks

KS = (5, 10, 20, 50, 100)
KEPT = 32  # facts to be kept, half of them of other relations
ALLOWED = 0.02  # retain drop
RESAMPLES = 10_000
ROWS = 16
LOCATORS: dict[str, Scorer] = {"attribution": attribution_scores, "taylor": taylor_scores}
CONTROLS = ("{}, uncontrasted", "{}, another fact", "random")
MEASURES = ("probability", "answered")
TITLES = ("the fact", "facts to be kept", "the one against the other")
YLABELS = ("probability lost", "probability lost", "probability lost by the fact")
LOOKS = {
    "attribution": ("#0072b2", "o", "-"), "attribution, uncontrasted": ("#0072b2", "v", ":"),
    "attribution, another fact": ("#0072b2", "x", "--"), "taylor": ("#009e73", "o", "-"),
    "taylor, uncontrasted": ("#009e73", "v", ":"), "taylor, another fact": ("#009e73", "x", "--"),
    "random": ("#d98200", "^", "-"),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One fact behind its sealed prompts, the sealed facts that must stay, and by way the sites of every size."""

    case: Case
    asked: list[Fact]
    kept: list[Fact]
    sites: dict[str, list[list[Site]]]


def main() -> None:
    """Zero, ask, print the rows, write rows and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=["capitals", "elements", "authors"])
    parser.add_argument("--facts", type=int, default=16, help="of each case")
    options = parser.parse_args()
    model = loka.load(options.model)
    drops: dict[str, list[np.ndarray]] = {}
    for name in options.cases:
        for trial in trials(model, loka.case(name).on(model), options.facts):
            for way, found in dropped(model, trial).items():
                drops.setdefault(way, []).append(found)
        print(name, "done", flush=True)
    curves = {way: np.stack(found) for way, found in drops.items()}
    settings = {"model": options.model, "cases": options.cases, "facts": options.facts}
    rows = [row for measure in MEASURES for row in measured(curves, measure, settings)]
    for row in rows:
        print(f"{row['name']:80} {row['value']:6.3f} ({row['low']:.3f} to {row['high']:.3f})")
    if options.json:
        write_json(options.json, rows)
    if options.figure:
        figure(curves).savefig(options.figure, dpi=150)


def trials(model: Model, case: Case, n: int) -> Iterator[Trial]:
    """Up to `n` forget facts of a case, each with the neurons that every way of choosing gives."""
    working, sealed = ({f.subject: f for f in side} for side in (case.forget.working, case.forget.sealed))
    subjects = sorted(np.random.default_rng(case.seed).permutation(sorted(working))[:n])
    own = {
        name: {s: effects(model, case, raw, [working[s]]).mean(0) for s in subjects} for name, raw in LOCATORS.items()
    }
    others = {name: owed(model, case, name) for name in LOCATORS}
    kept = _kept(case)
    for i, subject in enumerate(subjects):
        other = subjects[(i + 1) % len(subjects)]
        sites = {}
        for name in LOCATORS:
            sites[name] = best(model, own[name][subject] - others[name])
            sites[f"{name}, uncontrasted"] = best(model, own[name][subject])
            sites[f"{name}, another fact"] = best(model, own[name][other] - others[name])
        sites["random"] = [loka.locate.random_sites(model, some, seed=i) for some in sites["attribution"]]
        asked = [sealed[subject].asked(p) for p in sealed[subject].prompts]
        yield Trial(case, asked, kept, sites)


def effects(model: Model, case: Case, raw: Scorer, facts: Sequence[Fact]) -> np.ndarray:
    """Share of each neuron in the effect of facts behind each of their prompts, `[prompt, layer, unit]`."""
    asked = [f.asked(p) for f in facts for p in f.prompts]
    found = [raw(model, pairs(model, case, asked[part])) for part in chunks(len(asked), ROWS)]
    scores, falls = (np.concatenate(some) for some in zip(*((s["neuron"], f) for s, f in found), strict=True))
    heard = falls > 0.1 * np.median(np.abs(falls))
    return scores[heard] / falls[heard, None, None]


def owed(model: Model, case: Case, name: str) -> np.ndarray:
    """What facts to be kept owe to each neuron, as the locator of that name weighs it, `[layer, unit]`."""
    if name == "taylor":
        return SPARE * np.abs(effects(model, case, taylor_scores, case.retain.working)).mean(0)
    near = [f for f in case.retain.working if f.relation in case.forgotten_relations]
    return effects(model, case, LOCATORS[name], near).mean(0)


def best(model: Model, scores: np.ndarray) -> list[list[Site]]:
    """The best neurons in every size."""
    order = np.argsort(-scores, axis=None, kind="stable")[: max(KS)]
    sites = [Site(int(layer), "neuron", int(i)) for layer, i in zip(*divmod(order, scores.shape[1]), strict=True)]
    return [sites[:k] for k in KS]


def _kept(case: Case) -> list[Fact]:
    near = [f for f in case.retain.sealed if f.relation in case.forgotten_relations]
    far = [f for f in case.retain.sealed if f.relation not in case.forgotten_relations]
    rng = np.random.default_rng(case.seed)
    return [side[i] for side in (near, far) for i in sorted(rng.permutation(len(side))[: KEPT // 2])]


def dropped(model: Model, trial: Trial) -> dict[str, np.ndarray]:
    """What zeroing takes away, by way `[size, side, measure]`; sides are the fact, and the facts to be kept."""
    before = answered(model, trial)

    def after(sites: Sequence[Site]) -> np.ndarray:
        with loka.ablate.zero(model, trial.case, sites).applied(model):
            return before - answered(model, trial)

    return {way: np.stack([after(some) for some in sizes]) for way, sizes in trial.sites.items()}


def answered(model: Model, trial: Trial) -> np.ndarray:
    """Mean probability of the whole answer, and share answered greedily, `[side, measure]`."""
    facts = [*trial.asked, *trial.kept]
    found = score(model, [f.prompt for f in facts], [f.answer for f in facts])
    both = np.stack([found.logprob.exp().double().numpy(), found.greedy.double().numpy()], -1)
    n = len(trial.asked)
    return np.stack([both[:n].mean(0), both[n:].mean(0)])


def measured(curves: dict[str, np.ndarray], measure: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a measure: the curves, the largest drop that the kept facts allow, and its lead over the controls."""
    m = MEASURES.index(measure)
    rows = []
    for way, found in curves.items():
        for i, k in enumerate(KS):
            for j, side in enumerate(("forget", "retain")):
                rows.append(_row(f"{measure}: {side} drop, {k} neurons, {way}", found[:, i, j, m], settings))
    reached = {way: within(found[..., m]) for way, found in curves.items()}
    for way, found in reached.items():
        rows.append(_row(f"{measure}: forget drop at {ALLOWED:.0%} retain drop, {way}", found, settings))
    for way in LOCATORS:
        for control in (c.format(way) for c in CONTROLS):
            lead = reached[way] - reached[control]
            rows.append(_row(f"{measure}: that of {way} - {control}", lead, settings))
    return rows


def within(found: np.ndarray) -> np.ndarray:
    """Each fact's largest drop over the sizes at which the kept facts lose no more than is allowed, `[fact]`."""
    return np.where(found[:, :, 1] <= ALLOWED, found[:, :, 0], 0).max(1).clip(0)


def _row(name: str, values: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "name": name, "value": float(values.mean()), "low": float(low), "high": float(high),
        "unit": "share", "n": len(values), "settings": settings,
    }  # fmt: skip


def figure(curves: dict[str, np.ndarray]) -> Figure:
    """Drop of the fact and of the kept facts over the number of neurons, and one against the other."""
    out = Figure(figsize=(10, 3.7), layout="constrained")
    for ax, title, ylabel in zip(out.subplots(1, 3), TITLES, YLABELS, strict=True):
        ax.set(title=title, ylabel=ylabel, xlabel="neurons zeroed")
        ax.spines[["top", "right"]].set_visible(False)
    forget, retain, both = out.axes
    for way, found in curves.items():
        color, marker, line = LOOKS[way]
        look = {"color": color, "marker": marker, "ls": line, "lw": 1.6, "ms": 5, "label": way}
        lost = found[..., 0].mean(0)
        forget.plot(KS, lost[:, 0], **look)
        retain.plot(KS, lost[:, 1], **look)
        both.plot(lost[:, 1], lost[:, 0], **look)
    for ax in (forget, retain):
        ax.set_xscale("log")
        ax.set_xticks(KS, [str(k) for k in KS])
        ax.minorticks_off()
    both.axvline(ALLOWED, color="#bbbbbb", lw=1, zorder=0)
    both.set_xlabel("probability lost by facts to be kept")
    out.legend(*forget.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return out


if __name__ == "__main__":
    main()
