"""What the quick and the thorough recipe remove and cost, on located and on random neurons.

    python -m bench.recipes --json FILE [--figure FILE] [--cases capitals] [--recipes quick thorough] [--steps 50 150]

The quick recipe trains 600 neurons for 50 steps, in white coordinates (`ablate.whitening`), the thorough one 2,000 for
longer, with more relearning simulated inside the training, a longer warm-up and without these; both have mixtures of
subjects to keep (`ablate.mixtures`) among what they rehearse. `bare` is the thorough one without mixtures and with the
usual warm-up. The control is the same on as many random neurons of the same layers. Asked is behind sealed prompts; r
is on relearning with the loss on the answers, five folds: 1 for the original, 0 for twins that it was never taught.
Beside them stands the audits' shallow sibling at the same budget. The attack is measured after 1, 2 and 4 steps; r is
that at the end, `r, at most` that at the step where most is back.

The bare recipe was chosen on the elements, asked behind sealed prompts; the capitals were then measured once. Seen on
the elements by `tune` with these arguments (all others as in `recipe.TUNE`), 14 facts, with 92% of the same relation,
92% of others and a perplexity of 45.93 before:

    neurons  steps  alpha  simulated relearning   r after 1, 2, 4 steps   same   other   perplexity
    600      60     30     none                   0.28 0.43 0.58          88%    93%     45.04
    600      60     30     every 2, 4 steps       0.08 0.13 0.26          89%    90%     45.09
    600      150    30     every 2, 6 steps       0.03 0.05 0.08          83%    92%     45.39
    2000     100    30     every 2, 6 steps       0.03 0.05 0.07          83%    93%     45.43
    2000     150    60     every 2, 6 steps       0.04 0.06 0.08          83%    89%     45.28

The longer warm-up was then chosen on elements and capitals, together with what mixtures have taken the place of:
neighbours, 256 sampled subjects that the model names by itself in a template (`knowledge.neighbours`, at commit
abf88d8; called `named` here). Seen on the elements by `tune` on a
GPU, with 2 of 229 neighbours that stated a sealed answer and were left out later:

              forgotten   same   other   perplexity   r after 1, 2, 4 steps
    bare      0%          83%    88%     45.74        0.03 0.05 0.09
    named     0%          83%    91%     45.50        0.03 0.04 0.07

Mixtures were tried on the capitals first, in the quick recipe. What they give in the thorough one, a seed each, with
89, 93% and 45.93 before (the two rows of `other draws` are of code that drew mixtures in the same way, before it was in
the package; `named` is this module's at abf88d8, on 50, 100 and 150 steps; 1,024 is `tune` with `between` of that):

    capitals                     forgotten   same   other   perplexity   r      r, at most
    named, 50 steps              1%          79%    91%     45.74        0.21   0.22
           100                   0%          78%    92%     45.46        0.10   0.15
           150                   0%          78%    92%     45.40        0.07   0.10
           150, random neurons   0%          78%    89%     45.93        0.09   0.13
    512 mixtures, 50 steps       1%          80%    91%     45.83        0.20   0.25
           150                   0%          81%    92%     45.15        0.05   0.095
           150, other draws      0%          84%    93%     45.30        0.07   0.11
           and with states 30    0%          81%    90%     46.08        0.08   0.13
           150, random neurons   1%          83%    89%     45.83        0.09   0.13
    1,024 mixtures               0%          80%    93%     45.15        0.05   0.11

So draws alone move the same relation by two prompts of 80, on the capitals; 68 would be 95% of the 71 that were
answered before, and the thorough edit keeps 65 (Spain loses all three of its answers and Peru three of four; random
neurons lose two and three of them), the other draws 67. On the elements it keeps all 66 of 72. Countries whose states
behind the first block (at the subject's end in "The capital of ... is", less their mean) are near a forgotten one's do
not lose more of their log-probability (correlation with the cosine -0.41), those of which more lies outside the span of
the rehearsed ones' rather do (0.45): under the other draws' edit, over 20 countries, so hints and no more. 19 of the 20
lose some, and of Spain and Peru the original is not sure either (0.23 to 0.44 on the answer's first token behind the
sealed templates, and 0.32 to 0.67; France 0.73 to 0.97).

The choice was not made on the authors, and they do not bear it out: with 88, 91% and 45.93 before,

              forgotten   same   other   perplexity   r      r, at most
    thorough  1%          70%    93%     45.71        0.02   0.06
    named     1%          78%    90%     45.82        0.03   0.06
    bare      0%          72%    91%     45.93        0.02   0.06

The model has books to name beside those of the case, where it has hardly a country; and of the 81 subjects that are
mixed there, it knows the answer about 23 alone. Neither has been tried as the reason. One seed; five prompts of 60 lie
between the first two.

On whole cases, white coordinates and 256 mixtures keep more of the relation in the quick recipe (capitals, authors), or
give less back for a little of it (elements); `plain` is without both (`tune` with `between=0, whiten=None`), `kept` the
mean of `bench.methods.asked` over the relation's sealed facts, as a share of before. Processors with bfloat16 products,
a seed each, no random control but the demo's (`loka demo`):

                        forgotten   same   kept   other   perplexity   r
    capitals   plain    0%          79%    55%    92%     45.47        0.22
               quick    0%          78%    67%    90%     45.83        0.22
    elements   plain    2%          88%    85%    91%     44.98        0.42
               quick    0%          89%    81%    88%     45.28        0.26
    authors    plain    1%          73%    81%    90%     46.02        0.04
               quick    3%          75%    87%    91%     45.91        0.04

In the thorough one white coordinates were not seen to help, a seed each:

                        forgotten   same   kept   other   perplexity   r      r, at most
    capitals            0%          82%    61%    95%     44.93        0.05   0.13
    elements            0%          89%    82%    87%     45.05        0.06   0.06
    authors             1%          70%    80%    92%     45.54        0.02   0.06

Choosing among neighbours was not seen to help (one case, one seed). Of four times as many sampled, the 256 with the
highest `p * log(p / q)`, `p` the answer's probability and `q` that about two other subjects, were places for the most
part, where most of a random draw is no subject at all; `named` with them leaves, on the capitals, 0% forgotten, 75% of
the same relation, 93% of others, a perplexity of 45.57 and r of 0.07 (0.09 at most), against 0, 78, 92%, 45.40 and 0.07
(0.10). In the quick recipe, before it had mixtures and white coordinates, 256 chosen alike, with `q` about four twins,
kept 69 instead of 62% of the same relation's probability with as many answered, r 0.17 instead of 0.20 (`tune` on
`bench.methods.study(model, "capitals", 14, 600, 0)`); a pull to the original weights (each step 3% of the way at the
full learning rate) 70%, r 0.26. Of that recipe's loss, by probability, before and after:

                                     working prompts   sealed prompts
    same relation, rehearsed         0.36 to 0.32      0.63 to 0.55
    same relation, not rehearsed     0.33 to 0.17      0.55 to 0.34

Holding residual states (`named` with `states`), going only part of the way (`edit.scaled`) and the mean of two edits
were not seen to bring 95% of before, either. Seen on the capitals, 2,000 located neurons, with 90% of the forgotten,
89% of the same relation, 93% of others and 45.93 before; a seed each, without a random control:

                              strength   forgotten   same   other   perplexity   r, at most
    states 30, seed 0         0.6        6%          82%    92%     45.97        0.42
                              0.8        0%          81%    92%     46.01        0.18
                              1          0%          80%    92%     46.05        0.11
    states 100, seed 1        1          0%          79%    91%     46.17        0.12
    mean of both              0.7        1%          82%    92%     46.03        0.30
                              1          0%          79%    92%     46.11        0.11

At strength 1 the first loses the answers to seven of 80 prompts about 20 sealed countries: three of Spain's, two of
Peru's, one each of Cyprus's and Mexico's. Of the others none is lost, though probability is (France: 0.90 to 0.72,
Chile: 0.78 to 0.57).

A step of the thorough recipe rehearses 400 tokens of facts and mixtures and 143 of text on the capitals, in the mean
of the batches of `ablate.lessons.prepare`.

Rows that the JSON file holds are not made again, nor edits that the folder holds. An edit takes three to ten minutes on
two cores with AMX, the thorough one an hour on one core without; its measurements two to five.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import loka
from bench.rounds import PANELS
from bench.tradeoff import LOOKS, measured
from loka._util.files import write_json
from loka.audit.controls import shallow_sibling
from loka.knowledge import Case
from loka.model import Edit, Model
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import LOCATOR
from loka.verify.judge.statistics import interval

# what either is apart from the thorough recipe of runs
THOROUGH: dict[str, dict[str, Any]] = {"thorough": {}, "bare": {"mixup_rows": 0, "warm_up": 5}}

FILLS = {"bare": "#cccccc", "quick": "white"}

Row = dict[str, Any]
Cell = tuple[str, int, str]  # recipe, steps, on which neurons


def main() -> None:
    """Make what is missing, cheapest first, print a table, write rows and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--folder", type=Path, help="where edits are kept; by default beside the JSON file")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=["capitals"])
    parser.add_argument("--recipes", nargs="*", default=["quick", "thorough"], choices=["quick", *THOROUGH])
    parser.add_argument("--steps", type=int, nargs="*", help="lengths of the thorough recipes; by default their own")
    parser.add_argument("--which", nargs="*", default=list(LOOKS), help="located, random")
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    steps = options.steps or [Recipe.load("thorough").config.steps]
    for name in options.cases:
        folder = (options.folder or options.json.with_suffix("")) / name
        for more in made(rows, options.model, name, cells(options.recipes, steps, options.which), folder):
            rows = [*rows, *more]
            write_json(options.json, rows)
    rows = [r for r in rows if "-" not in r["name"]]
    rows += [row for name in options.cases for row in differences(rows, name)]
    write_json(options.json, rows)
    for row in rows:
        s = row["settings"]
        spread = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
        print(f"{s['case']:10}{s['recipe']:10}{s['steps']:4} {s['which']:9}{row['name']:32}{row['value']:.3f}{spread}")
    if options.figure:
        picture(rows, options.cases).savefig(options.figure, dpi=150)


def cells(recipes: Sequence[str], steps: Sequence[int], which: Sequence[str]) -> list[Cell]:
    """What is to be measured of a case."""
    lengths = {name: sorted(steps) if name in THOROUGH else [Recipe.load("quick").config.steps] for name in recipes}
    out = [("original", 0, "none"), ("shallow", 0, "none")]
    return out + [(name, n, w) for name, some in lengths.items() for n in some for w in which]


def made(rows: Sequence[Row], name: str, of: str, wanted: Sequence[Cell], folder: Path) -> Iterator[list[Row]]:
    """The rows that are missing, an edit at a time."""
    missing = [cell for cell in wanted if not _of(rows, of, cell)]
    if not missing:
        return
    model = loka.load(name)
    case = loka.case(of).on(model)
    zero_one = {r["name"]: r["value"] for r in _of(rows, of, ("original", 0, "none"))}
    for recipe, steps, which in missing:
        path = folder / f"{recipe}-{steps}-{which}.safetensors"
        edit = Edit.load(path) if path.exists() else _edit(model, case, recipe, steps, which)
        if edit:
            edit.save(path)
        settings = {"model": name, "case": of, "recipe": recipe, "steps": steps, "which": which}
        groups = ("forget", "twins") if recipe == "original" else ("forget",)
        some = measured(model, case, edit, settings, groups=groups)
        if recipe == "original":
            zero_one = {r["name"]: r["value"] for r in some}
        yield [*some, *_scaled(some, zero_one["relearned twins"], zero_one["relearned"])]


def _edit(model: Model, case: Case, recipe: str, steps: int, which: str) -> Edit | None:
    if recipe in ("original", "shallow"):
        how = Recipe.load("quick").config.objective
        return shallow_sibling(model, case, recall=0.0, objective=how) if recipe == "shallow" else None
    how = Recipe.load("thorough" if recipe in THOROUGH else "quick")
    sites = loka.locate.perform(LOCATOR, model, case).top(how.sites, part=how.part)
    if which == "random":
        sites = loka.locate.random_sites(model, sites, seed=case.seed)
    config = dataclasses.replace(how.config, **THOROUGH.get(recipe, {}), steps=steps)
    return loka.ablate.tune(model, case, sites, config)


def _scaled(rows: Sequence[Row], zero: float, one: float) -> Iterator[Row]:
    """r: where what relearning brought back lies between the twins' and the original's, by subject too."""
    back, most = (next(r for r in rows if r["name"] == name) for name in ("relearned", "relearned, at most"))
    samples = {s: (v - zero) / (one - zero) for s, v in back["samples"].items()}
    yield _row("r", samples, back["settings"])
    yield {**most, "name": "r, at most", "value": (most["value"] - zero) / (one - zero), "unit": ""}


def differences(rows: Sequence[Row], case: str) -> Iterator[Row]:
    """r of located less r of random neurons, by recipe and length, paired over the subjects."""
    for recipe, steps, _ in sorted({_cell(r) for r in rows if r["settings"]["which"] == "located"}):
        pair = [next((r for r in _of(rows, case, (recipe, steps, w)) if r["name"] == "r"), None) for w in LOOKS]
        if all(pair):
            mine, theirs = (r["samples"] for r in pair if r)
            settings = {"case": case, "recipe": recipe, "steps": steps, "which": "both"}
            yield _row("r: located - random", {s: mine[s] - theirs[s] for s in mine}, settings)


def _row(name: str, samples: dict[str, float], settings: dict[str, Any]) -> Row:
    low, high = interval(list(samples.values()))
    mean = float(np.mean(list(samples.values())))
    return {
        "name": name, "value": mean, "low": low, "high": high, "unit": "", "n": len(samples), "settings": settings,
        "samples": samples,
    }  # fmt: skip


def _cell(row: Row) -> Cell:
    s = row["settings"]
    return s["recipe"], s["steps"], s["which"]


def _of(rows: Sequence[Row], case: str, cell: Cell) -> list[Row]:
    return [r for r in rows if r["settings"]["case"] == case and _cell(r) == cell]


def picture(rows: Sequence[Row], cases: Sequence[str]) -> Figure:
    """r and the collateral over the length of the training, a row a case, with what is aimed at."""
    figure = Figure(figsize=(13, 3.2 * len(cases)), layout="constrained")
    grid = figure.subplots(len(cases), len(PANELS), squeeze=False)
    for case, axes in zip(cases, grid, strict=True):
        value = {(r["name"], *_cell(r)): r["value"] for r in rows if r["settings"]["case"] == case}
        for ax, (name, (title, aim)) in zip(axes, PANELS.items(), strict=True):
            whole = 1.0 if name == "r" else value[name, "original", 0, "none"]
            for which, (color, marker) in LOOKS.items():
                for recipe, fill in {"thorough": color, **FILLS}.items():
                    some = {k[2]: v / whole for k, v in value.items() if k[:2] == (name, recipe) and k[3] == which}
                    if some:
                        ax.plot(
                            *zip(*sorted(some.items()), strict=True), color=color, marker=marker, lw=2, ms=7, mfc=fill,
                            label=f"{recipe}, {which}",
                        )  # fmt: skip
            ax.axhline(value[name, "shallow", 0, "none"] / whole, color="#777777", ls="--", label="shallow sibling")
            ax.axhline(aim, color="#2a9d5c", ls=":", lw=1.5, label="aim")
            ax.set(xlabel="steps", xlim=(0, None))
            ax.set_title(title, fontsize=11)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel(case)
    drawn = {label: handle for ax in grid[:, 0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside right center", frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    main()
