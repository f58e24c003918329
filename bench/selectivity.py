"""Which ranking is selective: what is lost when its best neurons or heads are zeroed, and what else is.

    python -m bench.selectivity --json FILE [--facts FACTS.parquet] [--part head] [--rankings ...]

Every relation is forgotten in turn: 20 of the facts that the model knows (a third of fewer than 60). The working half
of other facts of the same relation, and of all other relations, is what a ranking may contrast with. The sealed half
says what else is lost. `--facts` adds relations of a file of fact completions (Schott et al. 2023, arXiv:2305.13675).

A ranking is that of a locator, with or without the 1% of sites that neutral text needs most (`exclude_general`). Its
best 5 to 200 neurons, or 1 to 20 heads, are zeroed. `random` are as many random sites of the same layers as those of
the first ranking, `another relation` are the first ranking's sites for the next relation. Measured is the mean
probability of the whole answer. The summary is the largest loss of the target at a size at which neither the same
relation nor the others lose more than 0.02; rankings are compared by relation, in pairs.

Each relation and ranking takes one call of the locator, and a short forward pass for each size. A second call makes
the missing rows only.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

import loka
from loka._util.files import write_json
from loka.knowledge import Case, Item, known, read_records, score
from loka.locate import random_sites
from loka.model import Model, Part, Site

SIZES: dict[Part, tuple[int, ...]] = {"neuron": (5, 10, 25, 50, 100, 200), "head": (1, 2, 5, 10, 20)}
BOUND = 0.02
FORGET, SAME, FAR = 20, 32, 4  # facts of the target, of the same relation, and of each other relation
ASKED = 660  # of a relation in a file
FEWEST = 28
BUILT_IN = (("capitals", "capital"), ("elements", "symbol"), ("authors", "author"), ("capitals", "country"))
IN_FILE = ("P103", "P30", "P36", "P407")
LOCATORS = {  # by ranking, and whether the neurons that any text needs are left out
    "taylor": ("taylor", False),
    "integrated gradients, contrast": ("integrated_gradients", False),
    "integrated gradients, without what any text needs": ("integrated_gradients", True),
}
RANDOM, ANOTHER = "random", "another relation"
GROUPS = ("target", "same relation", "other relations")
Row = dict[str, Any]


def main() -> None:
    """Make the missing rows, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--facts", type=Path, help="a file of fact completions")
    parser.add_argument("--relations", nargs="+", default=IN_FILE, help="those of the file")
    parser.add_argument("--part", default="neuron", choices=list(SIZES))
    parser.add_argument("--rankings", nargs="+", default=list(LOCATORS), choices=list(LOCATORS))
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    model = loka.load(options.model)
    facts = known_facts(model, options.facts, options.relations if options.facts else ())
    cases = {relation: case_of(relation, facts) for relation in facts}
    fixed = {"model": options.model, "part": options.part}
    others = [row for row in rows if not fixed.items() <= row["settings"].items()]
    rows = [row for row in rows if fixed.items() <= row["settings"].items() and "relation" in row["settings"]]
    for new in missing_rows(model, cases, options.rankings, rows, fixed):
        rows += new
        write_json(options.json, others + rows)
    end = [row | {"settings": fixed} for row in summary(rows, options.rankings)]
    write_json(options.json, others + rows + end)
    for row in end:
        print(f"{row['name']:95} {row['value']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})")


def known_facts(model: Model, file: Path | None, relations: Sequence[str]) -> dict[str, list[loka.Fact]]:
    """The facts that a model knows, by relation, without relations of too few."""
    found = {}
    for name, relation in BUILT_IN:
        spec = loka.case(name).relations[relation]
        found[relation] = [
            loka.Fact(subject, relation, spec.working[0].replace("{}", subject), answer, tuple(aliases))
            for subject, (answer, *aliases) in spec.facts.items()
        ]
    every = read_records("fact_completion", file) if file else ()
    for relation in relations:
        about = {r.subject: r for r in every if r.relation == relation and r.subject and r.subject in str(r.prompt)}
        found[relation] = [about[s] for s in random.Random(0).sample(sorted(about), len(about))][:ASKED]
    known_ = {relation: list(_known(model, relation, records)) for relation, records in found.items()}
    print({relation: len(records) for relation, records in known_.items()}, flush=True)
    return {relation: records for relation, records in known_.items() if len(records) >= FEWEST}


def _known(model: Model, relation: str, records: Sequence[loka.Fact]) -> Iterator[loka.Fact]:
    for start in range(0, len(records), 50):
        part = records[start : start + 50]
        items = Case.of(part, name=relation).forget.working
        right = {item.subject for item, is_known in zip(items, known(model, items), strict=True) if is_known}
        yield from (record for record in part if record.subject in right)


def case_of(relation: str, facts: dict[str, list[loka.Fact]]) -> Case:
    """The case that forgets one relation and keeps the others."""

    def drawn(name: str, n: int) -> list[loka.Fact]:
        return random.Random(f"selectivity/{name}").sample(facts[name], min(n, len(facts[name])))

    own = drawn(relation, len(facts[relation]))
    n = min(FORGET, len(own) // 3)
    others = [record for name in facts if name != relation for record in drawn(name, FAR)]
    return Case.of(own[:n], retain=[*own[n : n + SAME], *others], name=relation)


def missing_rows(
    model: Model, cases: dict[str, Case], rankings: Sequence[str], there: Sequence[Row], fixed: dict[str, Any]
) -> Iterator[list[Row]]:
    """The rows that are not there yet, ranking by ranking."""
    done = {(row["settings"]["relation"], row["settings"]["ranking"]) for row in there}
    names = list(cases)
    for relation, case in cases.items():
        following = cases[names[(names.index(relation) + 1) % len(names)]]

        def first(of: Case) -> list[Site]:
            return best(model, of, rankings[0], fixed["part"])

        choices: dict[str, Callable[[], list[Site]]] = {
            name: lambda name=name, case=case: best(model, case, name, fixed["part"]) for name in rankings
        }
        choices[RANDOM] = lambda case=case: _shuffled(random_sites(model, first(case), seed=case.seed))
        choices[ANOTHER] = lambda following=following: first(following)
        for name, choose in choices.items():
            if (relation, name) not in done:
                settings = {"relation": relation, "ranking": name, **fixed}
                rows = list(losses(model, case, choose(), settings))
                show(rows)
                yield rows


def best(model: Model, case: Case, ranking: str, part: Part) -> list[Site]:
    """The best sites of a ranking, as many as the largest size."""
    locator, without = LOCATORS[ranking]
    found = loka.locate.perform(locator, model, case, part=part)
    sites = found.top(found.grid(part).size, part=part)
    return (loka.locate.exclude_general(model, case, sites) if without else sites)[: max(SIZES[part])]


def _shuffled(sites: list[Site]) -> list[Site]:
    return random.Random(0).sample(sites, len(sites))


def losses(model: Model, case: Case, sites: Sequence[Site], settings: dict[str, Any]) -> Iterator[Row]:
    """What each group loses without the best sites of every size."""
    retain = case.retain.sealed
    groups = (case.forget.sealed, case.same_relation(retain), case.other_relation(retain))
    asked = [item for group in groups for item in group]
    before = probabilities(model, asked)
    for size in SIZES[settings["part"]]:
        with loka.ablate.zero(model, case, sites[:size]).applied(model):
            lost = before - probabilities(model, asked)
        for name, part in zip(GROUPS, np.split(lost, np.cumsum([len(g) for g in groups])[:-1]), strict=True):
            yield {
                "name": f"{name}, lost without {size} {settings['part']}s", "value": float(part.mean()),
                "low": None, "high": None, "unit": "probability", "n": len(part),
                "settings": settings | {"size": size, "group": name},
            }  # fmt: skip


def probabilities(model: Model, items: Sequence[Item]) -> np.ndarray:
    """The probability of each whole answer, `[item]`."""
    return score(model, [i.prompt for i in items], [i.answer for i in items]).logprob.exp().double().numpy()


def show(rows: Sequence[Row]) -> None:
    """Print the losses of one relation and ranking on one line, target/same/other by size."""
    s = rows[0]["settings"]
    values = [r["value"] for r in rows]
    sizes = ("/".join(f"{100 * v:3.0f}" for v in values[i : i + 3]) for i in range(0, len(values), 3))
    print(f"{s['relation']:10} {s['ranking']:40} {'  '.join(sizes)}", flush=True)


def summary(rows: Sequence[Row], rankings: Sequence[str]) -> list[Row]:
    """The largest loss of the target within the bound, by ranking, and the differences between rankings."""
    largest: dict[str, dict[str, float]] = {}
    by = lambda row: (row["settings"]["ranking"], row["settings"]["relation"])  # noqa: E731
    for (ranking, relation), group in groupby(sorted(rows, key=by), key=by):
        found = [{r["settings"]["group"]: r["value"] for r in of} for of in _by_size(group)]
        within = [f["target"] for f in found if max(f["same relation"], f["other relations"]) <= BOUND]
        largest.setdefault(ranking, {})[relation] = max([0.0, *within])
    named = [name for name in (*rankings, RANDOM, ANOTHER) if name in largest]
    out = [
        _mean(f"largest loss of the target within the bound, {name}", list(largest[name].values())) for name in named
    ]
    for name in rankings:
        for other in named:
            both = [r for r in largest[name] if r in largest[other]]
            if other != name:
                values = [largest[name][r] - largest[other][r] for r in both]
                out.append(_mean(f"largest loss of the target within the bound, {name} - {other}", values))
    return out


def _by_size(rows: Iterator[Row]) -> Iterator[list[Row]]:
    size = lambda row: row["settings"]["size"]  # noqa: E731
    return (list(group) for _, group in groupby(sorted(rows, key=size), key=size))


def _mean(name: str, values: Sequence[float]) -> Row:
    means = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"name": name, "value": float(np.mean(values)), "low": float(low), "high": float(high),
            "unit": "probability", "n": len(values), "settings": {}}  # fmt: skip


if __name__ == "__main__":
    main()
