"""The auditor audited: small models of known truth in many families, half of them sealed until the end.

    python -m bench.lineup --json bench/results/lineup.json --out bench/results/lineup.md

A small Llama learns 120 capitals, of which 60 are to be forgotten. `_lineup/families.py` lists what is made of it and
what is true of that, and divides families and seeds into an open and a sealed half. The profile `standard` audits every
model. A row is written when its model is finished; rows that the file holds are not made again. About half a minute a
model on one core, and two minutes a seed for what its models share.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import torch

from bench._lineup.audits import Controls
from bench._lineup.families import FAMILIES, SEEDS, Base, Half
from bench._lineup.models import teach
from bench._lineup.report import report
from bench._lineup.rows import Row, row_of
from bench._lineup.world import World
from loka._util.files import write_json
from loka.model import Model

Key = tuple[str, int]


def main() -> None:
    """Make the missing rows, write them, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="where the tables are written after every model, in Markdown")
    parser.add_argument(
        "--tables", action="store_true", help="print the tables of the rows that are there, and no more"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    done = {(r["name"], r["settings"]["seed"]) for r in rows}
    for row in () if options.tables else missing_rows(done):
        rows.append(row)
        write_json(options.json, rows)
        print(progress(row), flush=True)
        if options.out:
            options.out.write_text(report(rows))
    print(report(rows))


def missing_rows(done: Collection[Key]) -> Iterator[Row]:
    """The rows that are not done, seed by seed."""
    halves: tuple[Half, ...] = ("sealed", "open")
    with tempfile.TemporaryDirectory() as folder:
        for half in halves:
            for seed in SEEDS[half]:
                todo = [f for f in FAMILIES if f.half == half and (f.name, seed) not in done]
                if todo:
                    base, controls = base_of(half, seed, Path(folder)), Controls()
                    yield from (row_of(family, base, controls, seed) for family in todo)


def progress(row: Row) -> str:
    """A line for a finished model. What became of a sealed one is not said."""
    s = row["settings"]
    said = "sealed" if s["half"] == "sealed" else f"{s['truth']}: {s['outcome']}"
    return f"seed {s['seed']}, {row['name']}: {said} ({row['value']:.0f} s)"


def base_of(half: Half, seed: int, folder: Path) -> Base:
    """What the models of a seed are made from. The stranger is the retrained model of the next seed of its half."""
    world, original = _world(), _taught(seed, knows=True)
    following = SEEDS[half][(SEEDS[half].index(seed) + 1) % len(SEEDS[half])]
    (cases := folder / f"{seed}" / "few").mkdir(parents=True)
    known = world.case(cases.parent, world.forget_subjects).on(original)
    few = world.case(cases, world.forget_subjects[:8]).on(original)
    return Base(world, original, _taught(seed, knows=False), _taught(following, knows=False), known, few)


@cache
def _world() -> World:
    return World(spellings=True)


@cache
def _taught(seed: int, *, knows: bool) -> Model:
    world = _world()
    return teach(world, () if knows else world.forget_subjects, seed=seed)


if __name__ == "__main__":
    main()
