"""Whether new answers take the place of old ones, also on other prompts, and what the neighbours lose.

    python -m bench.updates --json FILE

Fifty facts of three relations that the model knows (capitals, symbols of elements, authors) get another answer of their
relation. `rome` writes each alone, and each is measured alone. `memit` writes all fifty at once. Three shares of
prompts are measured, on the prompts that the edit saw (efficacy) and on sealed ones (paraphrase): the whole new answer
is the greedy one, it is likelier than the old one, or the old one is still given. The collateral is the share of known
sealed facts that are still answered, in the same relation (neighbours) and in one that is never written to. Intervals
are over the fifty facts. Forty minutes on one core.
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
from loka.knowledge import Case, Item, recalled, score
from loka.knowledge.case import BUILT_IN
from loka.model import Edit, Model
from loka.verify.judge.statistics import interval

# by relation, the built-in case with most of its facts
PARTS = {"capital": "capitals", "symbol": "elements", "author": "authors"}
NEVER = "country"
PROMPTS = 2  # per retained fact
METHODS = ("rome", "memit")
MEASURES = (
    "efficacy", "efficacy, likelier", "paraphrase", "paraphrase, likelier", "old answer left", "neighbours kept",
    "other relation kept",
)  # fmt: skip


def main() -> None:
    """Edit, ask, print the rows, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--contexts", type=int, default=3)
    parser.add_argument("--facts", type=int, help="at most this many, for a quick look")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=METHODS, help="rows of other methods in the file stay"
    )
    options = parser.parse_args()
    stored: list[dict[str, Any]] = (
        json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    )
    model = loka.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        case = combined(Path(folder)).on(model)
        rows = measure(model, case, options.contexts, list(case.forget.working)[: options.facts], options.methods)
    for row in rows:
        row["settings"] |= {"model": options.model, "contexts": options.contexts}
    rows = [r for r in stored if r["settings"]["method"] not in options.methods] + rows
    for row in rows:
        print(f"{row['name']:40} {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), n = {row['n']}")
    if options.json:
        write_json(options.json, rows)


def combined(folder: Path) -> Case:
    """The three built-in cases as one. Its forget facts get the new answers."""
    files = {r: yaml.safe_load((BUILT_IN / f"{name}.yaml").read_text(encoding="utf-8")) for r, name in PARTS.items()}
    relations = {r: spec["relations"][r] for r, spec in files.items()}
    relations[NEVER] = files["capital"]["relations"][NEVER]
    half = {"working": 0.5, "sealed": 0.5}
    path = folder / "updates.yaml"
    path.write_text(yaml.safe_dump({
        "name": "updates", "purpose": "update", "relations": relations,
        "forget": {r: spec["forget"][r] for r, spec in files.items()},
        "retain": dict.fromkeys(relations, half),
        "twins": {r: spec["twins"][r] for r, spec in files.items()},
        "neutral": {"working": {"sampled": 96}, "sealed": str(BUILT_IN / "prose.txt")},
    }), encoding="utf-8")  # fmt: skip
    return loka.case(path)


def measure(
    model: Model, case: Case, contexts: int, facts: Sequence[Item], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of these methods."""
    sealed = {f.subject: f for f in case.forget.sealed}
    answers = {f.subject: f.foils[0] for f in facts}
    retain = {r: _known(model, [f for f in case.retain.sealed if f.relation == r]) for r in (*PARTS, NEVER)}

    def one(fact: Item, still: Callable[[str], float]) -> list[float]:
        """Every measure of a fact on the model as it is. `still` gives the share of a relation that is answered."""
        new = answers[fact.subject]
        working, paraphrase = (_new_answer(model, f, new) for f in (fact, sealed[fact.subject]))
        old = recalled(model, [f.asked(p) for f in (fact, sealed[fact.subject]) for p in f.prompts])
        return [*working, *paraphrase, float(np.mean(old)), still(fact.relation), still(NEVER)]

    def under(edit: Edit, facts: Sequence[Item]) -> list[list[float]]:
        """The measures of facts under an edit."""
        with edit.applied(model):
            still = cache(lambda relation: float(np.mean(recalled(model, retain[relation]))))
            return [one(fact, still) for fact in facts]

    def singly() -> Iterator[list[float]]:
        for i, fact in enumerate(facts):
            edit = loka.ablate.rome(
                model, case, config=configure("rome", contexts=contexts), answers={fact.subject: answers[fact.subject]}
            )
            (row,) = under(edit, [fact])
            print(i + 1, fact.subject, answers[fact.subject], np.round(row, 2).tolist(), flush=True)
            yield row

    rows = _rows("rome", list(singly())) if "rome" in methods else []
    if "memit" in methods:
        at_once = loka.ablate.memit(model, case, config=configure("memit", contexts=contexts), answers=answers)
        rows += _rows("memit", under(at_once, facts))
    return rows


def _known(model: Model, facts: Sequence[Item]) -> list[Item]:
    """Facts with those of their first prompts that the original answers."""
    prompts = [f.asked(p) for f in facts for p in f.prompts[:PROMPTS]]
    return [f for f, right in zip(prompts, recalled(model, prompts), strict=True) if right]


def _new_answer(model: Model, fact: Item, new: str) -> tuple[float, float]:
    """The shares of a fact's prompts where the new answer is greedy, and where it is likelier than the old one."""
    found = score(model, [*fact.prompts] * 2, [new] * len(fact.prompts) + [fact.answer] * len(fact.prompts))
    new_logprob, old_logprob = found.logprob.chunk(2)
    return float(found.greedy.chunk(2)[0].float().mean()), float((new_logprob > old_logprob).float().mean())


def _rows(method: str, values: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    out = []
    for name, column in zip(MEASURES, np.array(values).T, strict=True):
        low, high = interval(column)
        out.append({
            "name": f"{method}: {name}", "value": float(column.mean()), "low": low, "high": high, "unit": "share",
            "n": len(column), "settings": {"method": method},
        })  # fmt: skip
    return out


if __name__ == "__main__":
    main()
