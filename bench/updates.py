"""New answers in place of old ones: are they given, behind other prompts too, and what do the neighbours lose?

    python -m bench.updates --json FILE

Fifty facts of three relations that the model knows (capitals, symbols of elements, authors) get another answer of their
relation. `rome` writes each by itself and is measured alone; `memit` writes all fifty at once. Asked is behind
the prompts that the edit saw (efficacy), and behind sealed ones (paraphrase): the share of prompts to which the whole
new answer is the greedy one, the share at which it is likelier than the old one, and the share that still gives the
old one. Kept: of the sealed facts that the original answers, how many are still answered, in the same relation
(neighbours) and in one that is never written to. Intervals over the fifty facts. Forty minutes on
one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import loka
from loka._util.files import write_json
from loka.ablate import configure
from loka.knowledge import Case, Fact, recalled, score
from loka.knowledge.case import BUILT_IN
from loka.model import Edit, Model
from loka.verify.judge.statistics import interval

PARTS = {"capital": "capitals", "symbol": "elements", "author": "authors"}  # relation: the built-in case that has most
NEVER = "country"
PROMPTS = 2  # of each kept fact
METHODS = ("rome", "memit")
MEASURES = (
    "efficacy", "efficacy, likelier", "paraphrase", "paraphrase, likelier", "old answer left", "neighbours kept",
    "other relation kept",
)  # fmt: skip


def main() -> None:
    """Write, ask, print the rows, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--contexts", type=int, default=3)
    parser.add_argument("--facts", type=int, help="at most so many, for a quick look")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="a file's others stay")
    options = parser.parse_args()
    there: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    model = loka.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        case = combined(Path(folder)).on(model)
        rows = made(model, case, options.contexts, list(case.forget.working)[: options.facts], options.methods)
    for row in rows:
        row["settings"] |= {"model": options.model, "contexts": options.contexts}
    rows = [r for r in there if r["settings"]["method"] not in options.methods] + rows
    for row in rows:
        print(f"{row['name']:40} {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), n = {row['n']}")
    if options.json:
        write_json(options.json, rows)


def combined(folder: Path) -> Case:
    """The three built-in cases as one, whose forget facts get the new answers."""
    files = {r: yaml.safe_load((BUILT_IN / f"{name}.yaml").read_text(encoding="utf-8")) for r, name in PARTS.items()}
    relations = {r: of["relations"][r] for r, of in files.items()}
    relations[NEVER] = files["capital"]["relations"][NEVER]
    half = {"working": 0.5, "sealed": 0.5}
    path = folder / "updates.yaml"
    path.write_text(yaml.safe_dump({
        "name": "updates", "purpose": "update", "relations": relations,
        "forget": {r: of["forget"][r] for r, of in files.items()},
        "retain": dict.fromkeys(relations, half),
        "twins": {r: of["twins"][r] for r, of in files.items()},
        "neutral": {"working": {"sampled": 96}, "sealed": str(BUILT_IN / "prose.txt")},
    }), encoding="utf-8")  # fmt: skip
    return loka.case(path)


def made(
    model: Model, case: Case, contexts: int, facts: Sequence[Fact], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of these methods."""
    sealed = {f.subject: f for f in case.forget.sealed}
    answers = {f.subject: f.foils[0] for f in facts}
    kept = {r: _known(model, [f for f in case.retain.sealed if f.relation == r]) for r in (*PARTS, NEVER)}

    def one(fact: Fact, still: Callable[[str], float]) -> list[float]:
        """Every measure of a fact, on the model as it is; `still`: the share of a relation that is kept."""
        new = answers[fact.subject]
        seen, other = (_answered(model, f, new) for f in (fact, sealed[fact.subject]))
        old = recalled(model, [f.asked(p) for f in (fact, sealed[fact.subject]) for p in f.prompts])
        return [*seen, *other, float(np.mean(old)), still(fact.relation), still(NEVER)]

    def under(edit: Edit, facts: Sequence[Fact]) -> list[list[float]]:
        """The measures of some facts with an edit in place."""
        with edit.applied(model):
            still = cache(lambda relation: float(np.mean(recalled(model, kept[relation]))))
            return [one(fact, still) for fact in facts]

    def singly() -> Iterator[list[float]]:
        for i, fact in enumerate(facts):
            edit = loka.ablate.rome(
                model, case, config=configure("memit", contexts=contexts), answers={fact.subject: answers[fact.subject]}
            )
            (row,) = under(edit, [fact])
            print(i + 1, fact.subject, answers[fact.subject], np.round(row, 2).tolist(), flush=True)
            yield row

    rows = _rows("rome", list(singly())) if "rome" in methods else []
    if "memit" in methods:
        at_once = loka.ablate.memit(model, case, config=configure("memit", contexts=contexts), answers=answers)
        rows += _rows("memit", under(at_once, facts))
    return rows


def _known(model: Model, facts: Sequence[Fact]) -> list[Fact]:
    """Facts behind those of their first prompts that the original answers."""
    asked = [f.asked(p) for f in facts for p in f.prompts[:PROMPTS]]
    return [f for f, right in zip(asked, recalled(model, asked), strict=True) if right]


def _answered(model: Model, fact: Fact, new: str) -> tuple[float, float]:
    """Over a fact's prompts, how often the new answer is greedy, and how often likelier than the old one."""
    found = score(model, [*fact.prompts] * 2, [new] * len(fact.prompts) + [fact.answer] * len(fact.prompts))
    mine, theirs = found.logprob.chunk(2)
    return float(found.greedy.chunk(2)[0].float().mean()), float((mine > theirs).float().mean())


def _rows(method: str, values: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    out = []
    for name, of in zip(MEASURES, np.array(values).T, strict=True):
        low, high = interval(of)
        out.append({"name": f"{method}: {name}", "value": float(of.mean()), "low": low, "high": high, "unit": "share",
                    "n": len(of), "settings": {"method": method}})  # fmt: skip
    return out


if __name__ == "__main__":
    main()
