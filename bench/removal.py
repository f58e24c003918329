"""Which way of locating finds sites whose loss removes the facts, and does not only silence them.

    python -m bench.removal --json FILE [--figure FILE]

Every way chooses as many neurons. They are re-initialised and repaired in the same number of steps
(`loka.ablate.reset`). The model then relearns four fifths of the facts and is asked for the rest. The best way is the
one after which least comes back, at an r of 0, with the facts to retain intact. No way takes the 1% of neurons that
neutral text needs most.

- `random` neurons lie in the same layers as those of `attribution`, `anywhere` ones in any layer.
- `exact` ranks the 2,000 best of `attribution` again, by patching them one by one for six facts of each side.
- `lookup` takes the best that work at the subject's tokens, `readout` the best that work at the last token.
- `recovered` neurons are those where relearning brings facts back to the model that `attribution`'s edit left.

Rows that the JSON file holds are not made again. The figure and the pooled differences cover all cases that it holds
with the same settings. About four minutes per way on two cores, seven to nine on one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import loka
from loka._util.files import write_json
from loka.knowledge import Case
from loka.model import Edit, Model, Site
from loka.verify.checks import CAP
from loka.verify.judge.statistics import interval

WAYS = ("attribution", "random", "recovered", "lookup", "readout", "integrated gradients", "taylor", "exact",
        "anywhere", "random 2")  # fmt: skip
CANDIDATES, FEW = 2000, 6
RECIPE: dict[str, Any] = {
    "lr": 3e-3, "retain_weight": 5.0, "neutral_weight": 1.0, "push_weight": 0.25, "retain_rows": 16, "neutral_rows": 4,
}  # fmt: skip
MEASURES = {"forget": "to forget, answered", "same": "same relation, answered", "other": "other relations, answered",
            "perplexity": "perplexity", "r": "r after relearning"}  # fmt: skip
Row = dict[str, Any]


def main() -> None:
    """Make the missing rows, print a table, write the rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--case", default="capitals")
    parser.add_argument("--sites", type=int, default=400)
    parser.add_argument("--steps", type=int, default=40, help="steps of the repair")
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    options = parser.parse_args()
    fixed = {"model": options.model, "case": options.case, "sites": options.sites, "steps": options.steps}
    stored: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    others = [r for r in stored if not fixed.items() <= r["settings"].items()]
    rows = [r for r in stored if r not in others and "way" in r["settings"]]
    missing = [w for w in ("original", *options.ways) if w not in {r["settings"]["way"] for r in rows}]
    if missing:
        model = loka.load(options.model)
        choices = Choices(model, loka.case(options.case).on(model), options.sites, options.steps)
        for way in missing:
            edit = None if way == "original" else choices.edit(way)
            rows += measure(choices, edit, fixed | {"way": way})
            write_json(options.json, others + rows + paired_differences(rows))
            print(way, {r["name"]: round(r["value"], 3) for r in rows if r["settings"]["way"] == way}, flush=True)
    stored = others + rows + paired_differences(rows)
    write_json(options.json, stored)
    like = {k: v for k, v in fixed.items() if k != "case"}
    stored = [r for r in stored if like.items() <= r["settings"].items()]
    for row in [*paired_differences(rows), *pool(stored)]:
        print(
            f"{row['settings']['case']:24}{row['settings']['who']:22}{row['name']:36}{row['value']:+7.3f} "
            f"({row['low']:+.3f} to {row['high']:+.3f})"
        )
    if options.figure:
        figure(stored).savefig(options.figure, dpi=150)


class Choices:
    """The neurons that each way chooses, and the edit that re-initialises them."""

    def __init__(self, model: Model, case: Case, n: int, steps: int) -> None:
        self.model, self.case, self.n, self.steps = model, case, n, steps

    def edit(self, way: str) -> Edit:
        """The reset of a way's neurons, made once."""
        return self._edits.get(way) or self._edits.setdefault(way, self._reset(self.sites(way)))

    def sites(self, way: str) -> list[Site]:
        """The best neurons by a way, without those that neutral text needs."""
        model, case, locate = self.model, self.case, loka.locate
        never = set(model.sites("neuron")) - self._free
        match way:
            case "attribution":
                return self._best[: self.n]
            case "integrated gradients":
                return self._ranked(locate.integrated_gradients(model, case, parts=("neuron",)))[: self.n]
            case "taylor":
                return self._ranked(locate.taylor(model, case, parts=("neuron",)))[: self.n]
            case "exact":
                return self._exact()[: self.n]
            case "lookup" | "readout":
                return [s for s in self._best if self._roles[s] == way][: self.n]
            case "recovered":
                return locate_again(model, case, self.edit("attribution"), self._free)[: self.n]
            case "anywhere":
                free = sorted(self._free - set(self._best[: self.n]))
                return [free[i] for i in np.random.default_rng(case.seed).permutation(len(free))[: self.n]]
            case _:
                seed = case.seed + int(way.removeprefix("random") or 1) - 1
                return locate.random_sites(model, self._best[: self.n], without=never, seed=seed)

    @cached_property
    def _edits(self) -> dict[str, Edit]:
        return {}

    @cached_property
    def _free(self) -> set[Site]:
        return set(loka.locate.exclude_general(self.model, self.case, self.model.sites("neuron")))

    @cached_property
    def _found(self) -> loka.locate.Localization:
        return loka.locate.attribution(self.model, self.case, parts=("neuron",))

    @cached_property
    def _best(self) -> list[Site]:
        return self._ranked(self._found)

    @cached_property
    def _roles(self) -> dict[Site, str]:
        frame = loka.locate.label_roles(self.model, self.case, self._found).to_frame()
        at = zip(frame["layer"], frame["index"], frame["role"], strict=True)
        return {Site(int(layer), "neuron", int(index)): role for layer, index, role in at}

    def _ranked(self, found: loka.locate.Localization) -> list[Site]:
        return [s for s in found.top(len(found.frame), part="neuron") if s in self._free]

    def _exact(self) -> list[Site]:
        """The candidates by the contrast of their exact effects, as shares of each fact's summed effect."""
        sites, near = self._best[:CANDIDATES], set(self.case.forgotten_relations)
        retain = [f for f in self.case.retain.working if f.relation in near]
        shares = []
        for facts in (list(self.case.forget.working), retain):
            sample = [facts[i] for i in np.linspace(0, len(facts) - 1, min(FEW, len(facts))).round().astype(int)]
            falls = loka.locate.patching(self.model, self.case, sites, facts=sample)
            shares.append((falls / np.abs(falls).sum(1, keepdims=True)).mean(0))
        return [sites[i] for i in np.argsort(shares[1] - shares[0], kind="stable")]

    def _reset(self, sites: Sequence[Site]) -> Edit:
        return loka.ablate.reset(self.model, self.case, sites, loka.ablate.TrainingConfig(steps=self.steps, **RECIPE))


def locate_again(model: Model, case: Case, edit: Edit, free: set[Site]) -> list[Site]:
    """The sites where relearning brings facts back to an edited model that it was not taught again."""

    def locator(model: Model, case: Case) -> list[Site]:
        found = loka.locate.attribution(model, case, parts=("neuron",))
        return [s for s in found.top(len(found.frame)) if s in free]

    return loka.ablate.recovered_sites(model, case, edit, locator, seed=case.seed)


def measure(choices: Choices, edit: Edit | None, settings: dict[str, Any]) -> list[Row]:
    """One row per measure. The original also has what relearning brings out of the twins."""
    model, case = choices.model, choices.case
    groups = ("forget",) if edit else ("forget", "twins")
    with edit.applied(model) if edit else nullcontext():
        recall, collateral = loka.verify.recall(model, case), loka.verify.collateral(model, case)
        back = loka.verify.relearn(model, case, budget=CAP.at(2), groups=groups)
    samples = {"forget": recall.samples["forget"], "relearned": back.samples["forget"]}
    if not edit:
        samples["relearned twins"] = back.samples["twins"]
    rows = [_row(name, values, settings) for name, values in samples.items()]
    single = {k: collateral.controls[k] for k in ("same", "other")} | {"perplexity": collateral.details["perplexity"]}
    return rows + [_row(name, {"all": value}, settings) for name, value in single.items()]


def paired_differences(rows: Sequence[Row]) -> list[Row]:
    """r of each way, and its difference to r of random neurons, paired over subjects."""
    by = {(r["settings"]["way"], r["name"]): r["samples"] for r in rows}
    if ("original", "relearned") not in by:
        return []
    first, never = by["original", "relearned"], np.mean(list(by["original", "relearned twins"].values()))
    subjects = sorted(first)
    whole = np.mean(list(first.values())) - never
    r = {
        way: (np.array([values[s] for s in subjects]) - never) / whole
        for (way, name), values in by.items()
        if name == "relearned"
    }
    fixed = {k: v for k, v in rows[0]["settings"].items() if k != "way"}
    out = [
        _row("r", dict(zip(subjects, values, strict=True)), fixed | {"who": way}, unit="") for way, values in r.items()
    ]
    for way, values in r.items():
        if "random" in r and way not in ("random", "original"):
            lead = dict(zip(subjects, values - r["random"], strict=True))
            out.append(_row(f"r: {way} - random", lead, fixed | {"who": way}, unit=""))
    return out


def pool(rows: Sequence[Row]) -> list[Row]:
    """The paired differences over the subjects of all cases, if there are several."""
    names = dict.fromkeys(r["name"] for r in rows if " - " in r["name"])
    groups = [[r for r in rows if r["name"] == name] for name in names]
    return [
        _row(group[0]["name"], {k: v for r in group for k, v in r["samples"].items()},
             group[0]["settings"] | {"case": " and ".join(r["settings"]["case"] for r in group)}, unit="")
        for group in groups if len(group) > 1
    ]  # fmt: skip


def _row(name: str, samples: dict[str, float], settings: dict[str, Any], *, unit: str = "share") -> Row:
    values = np.array(list(samples.values()))
    low, high = interval(values)
    return {
        "name": name, "value": float(values.mean()), "low": low, "high": high,
        "unit": "" if name == "perplexity" else unit, "n": len(values), "settings": settings,
        "samples": {k: round(float(v), 4) for k, v in samples.items()},
    }  # fmt: skip


def figure(rows: Sequence[Row]) -> Figure:
    """Each measure by way of locating. A marker is a case, and a line its original."""
    at = {(r["settings"]["case"], r["settings"].get("way") or r["settings"]["who"], r["name"]): r for r in rows}
    cases = [*dict.fromkeys(case for case, _, _ in at)]
    ways = [w for w in WAYS if any((case, w, "forget") in at for case in cases)]
    out = Figure(figsize=(11, 0.36 * len(ways) + 1.4), layout="constrained")
    for ax, (name, title) in zip(out.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True):
        for i, (case, marker, line) in enumerate(zip(cases, "os^Dv", ("--", ":", "-.", "-", "-"), strict=False)):
            for y, way in enumerate(ways):
                if row := at.get((case, way, name)):
                    color = "#d98200" if way.startswith("random") or way == "anywhere" else "#0072b2"
                    y += 0.16 * (2 * i - len(cases) + 1)
                    ax.plot([row["low"], row["high"]], [y, y], color=color, lw=2, alpha=0.4)
                    ax.plot(row["value"], y, marker, color=color, ms=5)
            ax.axvline(at[case, "original", name]["value"], color="#999999", ls=line, lw=1)
            if ax is out.axes[0]:
                ax.plot([], [], color="#555555", marker=marker, ls=line, lw=1, ms=5, label=case)
        ax.set_title(title, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    out.axes[0].set_yticks(range(len(ways)), ways)
    out.axes[0].invert_yaxis()
    if len(cases) > 1:
        out.legend(
            loc="outside lower center", ncols=len(cases), frameon=False, title="lines: the original", title_fontsize=8
        )
    return out


if __name__ == "__main__":
    main()
