"""Whether locating helps: each fact's best neurons are zeroed, five to a hundred, and so are as many others.

    python -m bench.zeroing --json FILE [--figure FILE]

Sites are chosen on the working prompts of one fact at a time and on the working retain facts. The effect of zeroing
them is measured on the fact's sealed prompts and on sealed facts to retain, of the same relation and of other
relations. Measured are the probability of the whole answer and the share answered. Locating takes one pass over all
facts; each fact, choice and number of neurons takes one short forward pass. About a quarter of an hour on two cores.
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
from loka.knowledge import Case, Item, score
from loka.locate.attribution import attribution_scores
from loka.locate.contrast import Scorer
from loka.locate.counterfactual import pairs
from loka.locate.taylor import SPARE, taylor_scores
from loka.model import Model, Site, chunks

KS = (5, 10, 20, 50, 100)
N_RETAIN = 32  # half of them of other relations
MAX_RETAIN_DROP = 0.02
RESAMPLES = 10_000
ROWS = 16
LOCATORS: dict[str, Scorer] = {"attribution": attribution_scores, "taylor": taylor_scores}
CONTROLS = ("{}, uncontrasted", "{}, another fact", "random")
MEASURES = ("probability", "answered")
TITLES = ("the fact", "facts to retain", "one against the other")
YLABELS = ("probability lost", "probability lost", "probability lost by the fact")
STYLES = {
    "attribution": ("#0072b2", "o", "-"), "attribution, uncontrasted": ("#0072b2", "v", ":"),
    "attribution, another fact": ("#0072b2", "x", "--"), "taylor": ("#009e73", "o", "-"),
    "taylor, uncontrasted": ("#009e73", "v", ":"), "taylor, another fact": ("#009e73", "x", "--"),
    "random": ("#d98200", "^", "-"),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One fact by its sealed prompts, sealed facts to retain, and the sites of every size for each way of choosing."""

    case: Case
    forget: list[Item]
    retain: list[Item]
    sites: dict[str, list[list[Site]]]


def main() -> None:
    """Zero, ask, print the rows, write rows and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=["capitals", "elements", "authors"])
    parser.add_argument("--facts", type=int, default=16, help="forget facts per case")
    options = parser.parse_args()
    model = loka.load(options.model)
    drops: dict[str, list[np.ndarray]] = {}
    for name in options.cases:
        for trial in trials(model, loka.case(name).on(model), options.facts):
            for way, found in drops_of(model, trial).items():
                drops.setdefault(way, []).append(found)
        print(name, "done", flush=True)
    curves = {way: np.stack(found) for way, found in drops.items()}
    settings = {"model": options.model, "cases": options.cases, "facts": options.facts}
    rows = [row for measure in MEASURES for row in measure_rows(curves, measure, settings)]
    for row in rows:
        print(f"{row['name']:80} {row['value']:6.3f} ({row['low']:.3f} to {row['high']:.3f})")
    if options.json:
        write_json(options.json, rows)
    if options.figure:
        figure(curves).savefig(options.figure, dpi=150)


def trials(model: Model, case: Case, n: int) -> Iterator[Trial]:
    """Up to `n` forget facts of a case, each with the neurons of every way of choosing."""
    working, sealed = ({f.subject: f for f in side} for side in (case.forget.working, case.forget.sealed))
    subjects = sorted(np.random.default_rng(case.seed).permutation(sorted(working))[:n])
    forget_effects = {
        name: {s: effects(model, case, raw, [working[s]]).mean(0) for s in subjects} for name, raw in LOCATORS.items()
    }
    retain_effects = {name: mean_retain_effects(model, case, name) for name in LOCATORS}
    retain = _retain_facts(case)
    for i, subject in enumerate(subjects):
        other = subjects[(i + 1) % len(subjects)]
        sites = {}
        for name in LOCATORS:
            sites[name] = best(model, forget_effects[name][subject] - retain_effects[name])
            sites[f"{name}, uncontrasted"] = best(model, forget_effects[name][subject])
            sites[f"{name}, another fact"] = best(model, forget_effects[name][other] - retain_effects[name])
        sites["random"] = [loka.locate.random_sites(model, best_sites, seed=i) for best_sites in sites["attribution"]]
        forget = [sealed[subject].asked(p) for p in sealed[subject].prompts]
        yield Trial(case, forget, retain, sites)


def effects(model: Model, case: Case, raw: Scorer, facts: Sequence[Item]) -> np.ndarray:
    """The share of each neuron in the effect of facts on each of their prompts, `[prompt, layer, unit]`."""
    prompts = [f.asked(p) for f in facts for p in f.prompts]
    found = [raw(model, pairs(model, case, prompts[part])) for part in chunks(len(prompts), ROWS)]
    scores, falls = (np.concatenate(parts) for parts in zip(*((s["neuron"], f) for s, f in found), strict=True))
    effective = falls > 0.1 * np.median(np.abs(falls))
    return scores[effective] / falls[effective, None, None]


def mean_retain_effects(model: Model, case: Case, name: str) -> np.ndarray:
    """The effects of facts to retain on each neuron, as the locator of that name weighs them, `[layer, unit]`."""
    retain = case.retain.working
    near = case.same_relation(retain)
    if name == "taylor":
        harm = [effects(model, case, taylor_scores, g).clip(0).mean(0) for g in (near, case.other_relation(retain))]
        return SPARE * np.maximum(*harm)
    return effects(model, case, LOCATORS[name], near).mean(0)


def best(model: Model, scores: np.ndarray) -> list[list[Site]]:
    """The best neurons in every size."""
    order = np.argsort(-scores, axis=None, kind="stable")[: max(KS)]
    sites = [Site(int(layer), "neuron", int(i)) for layer, i in zip(*divmod(order, scores.shape[1]), strict=True)]
    return [sites[:k] for k in KS]


def _retain_facts(case: Case) -> list[Item]:
    near = [f for f in case.retain.sealed if f.relation in case.forgotten_relations]
    far = [f for f in case.retain.sealed if f.relation not in case.forgotten_relations]
    rng = np.random.default_rng(case.seed)
    return [side[i] for side in (near, far) for i in sorted(rng.permutation(len(side))[: N_RETAIN // 2])]


def drops_of(model: Model, trial: Trial) -> dict[str, np.ndarray]:
    """What zeroing takes away, by way, `[size, side, measure]`. The sides are the fact and the facts to retain."""
    before = answer_rates(model, trial)

    def after(sites: Sequence[Site]) -> np.ndarray:
        with loka.ablate.zero(model, trial.case, sites).applied(model):
            return before - answer_rates(model, trial)

    return {way: np.stack([after(sites) for sites in sizes]) for way, sizes in trial.sites.items()}


def answer_rates(model: Model, trial: Trial) -> np.ndarray:
    """The mean probability of the whole answer and the share answered greedily, `[side, measure]`."""
    facts = [*trial.forget, *trial.retain]
    found = score(model, [f.prompt for f in facts], [f.answer for f in facts])
    both = np.stack([found.logprob.exp().double().numpy(), found.greedy.double().numpy()], -1)
    n = len(trial.forget)
    return np.stack([both[:n].mean(0), both[n:].mean(0)])


def measure_rows(curves: dict[str, np.ndarray], measure: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a measure: the curves, the largest drop within the bound, and its lead over the controls."""
    m = MEASURES.index(measure)
    rows = []
    for way, found in curves.items():
        for i, k in enumerate(KS):
            for j, side in enumerate(("forget", "retain")):
                rows.append(_row(f"{measure}: {side} drop, {k} neurons, {way}", found[:, i, j, m], settings))
    largest = {way: largest_drop(found[..., m]) for way, found in curves.items()}
    for way, found in largest.items():
        rows.append(_row(f"{measure}: forget drop at {MAX_RETAIN_DROP:.0%} retain drop, {way}", found, settings))
    for way in LOCATORS:
        for control in (c.format(way) for c in CONTROLS):
            lead = largest[way] - largest[control]
            name = f"{measure}: forget drop at {MAX_RETAIN_DROP:.0%} retain drop, {way} - {control}"
            rows.append(_row(name, lead, settings))
    return rows


def largest_drop(found: np.ndarray) -> np.ndarray:
    """Each fact's largest drop over the sizes at which the facts to retain lose at most `MAX_RETAIN_DROP`, `[fact]`."""
    return np.where(found[:, :, 1] <= MAX_RETAIN_DROP, found[:, :, 0], 0).max(1).clip(0)


def _row(name: str, values: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "name": name, "value": float(values.mean()), "low": float(low), "high": float(high),
        "unit": "share", "n": len(values), "settings": settings,
    }  # fmt: skip


def figure(curves: dict[str, np.ndarray]) -> Figure:
    """The drops of the fact and of the facts to retain over the number of neurons, and one against the other."""
    out = Figure(figsize=(10, 3.7), layout="constrained")
    for ax, title, ylabel in zip(out.subplots(1, 3), TITLES, YLABELS, strict=True):
        ax.set(title=title, ylabel=ylabel, xlabel="neurons zeroed")
        ax.spines[["top", "right"]].set_visible(False)
    forget, retain, both = out.axes
    for way, found in curves.items():
        color, marker, line = STYLES[way]
        look = {"color": color, "marker": marker, "ls": line, "lw": 1.6, "ms": 5, "label": way}
        drop = found[..., 0].mean(0)
        forget.plot(KS, drop[:, 0], **look)
        retain.plot(KS, drop[:, 1], **look)
        both.plot(drop[:, 1], drop[:, 0], **look)
    for ax in (forget, retain):
        ax.set_xscale("log")
        ax.set_xticks(KS, [str(k) for k in KS])
        ax.minorticks_off()
    both.axvline(MAX_RETAIN_DROP, color="#bbbbbb", lw=1, zorder=0)
    both.set_xlabel("probability lost by facts to retain")
    out.legend(*forget.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return out


if __name__ == "__main__":
    main()
