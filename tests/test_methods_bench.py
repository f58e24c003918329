"""The bench of methods says of its rows what they hold, and makes no cell twice."""

import argparse
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BEFORE = {"forget": 0.5, "same": 0.5, "other": 0.8, "relearned": 0.9}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.methods")


def cell(case: str, method: str, sites: str, seed: int, values: dict[str, list[float]], **how: Any) -> list[dict]:
    """A cell's rows from the numbers of each subject."""
    settings = {"case": case, "method": method, "sites": sites, "seed": seed, "steps": 12, "strength": 1.0, **how}
    rows = []
    for name, some in values.items():
        samples = {f"s{i}": v for i, v in enumerate(some)}
        names = [name] if name.startswith("relearned") else [f"{name} probability", f"{name} answered"]
        rows += [{"name": n, "value": sum(some) / len(some), "settings": settings, "samples": samples} for n in names]
    return [*rows, {"name": "perplexity", "value": how.get("perplexity", 10.0), "settings": settings, "samples": {}}]


def original(case: str) -> list[dict]:
    return cell(case, "original", "none", 0, {k: [v, v] for k, v in BEFORE.items()} | {"relearned, twins": [0.1, 0.1]})


def edited(sites: str, seed: int, same: list[float], back: list[float], *, case: str = "a", **how: Any) -> list[dict]:
    values = {"forget": [0.0, 0.1], "same": same, "other": [0.8, 0.8], "relearned": back}
    return cell(case, "tune", sites, seed, values, **({"reached": True} | how))


def test_differences_are_paired_over_subjects_on_the_scale_of_the_original(bench: ModuleType) -> None:
    rows = original("a") + edited("located", 0, [0.5, 0.3], [0.5, 0.1]) + edited("random", 0, [0.4, 0.2], [0.9, 0.5])
    found = {r["name"]: r for r in bench.paired_differences(rows)}
    kept = found["same relation kept, tune: located - random"]
    back = found["back after relearning, tune: located - random"]
    assert kept["value"] == pytest.approx(0.1 / 0.5)
    assert (kept["low"], kept["high"]) == pytest.approx((0.2, 0.2))  # the same of both subjects
    assert back["value"] == pytest.approx(-0.4 / (0.9 - 0.1))
    assert kept["n"] == back["n"] == 2
    assert not any("all" in name for name in found)


def test_the_default_is_held_against_the_others_without_locating(bench: ModuleType) -> None:
    rows = original("a") + edited("all", 0, [0.4, 0.2], [0.9, 0.5]) + edited("located", 0, [0.4, 0.2], [0.9, 0.5])
    rows += cell("a", "runs", "located", 0, {"relearned": [0.5, 0.3]}, reached=True)
    found = {r["name"]: r for r in bench.paired_differences(rows)}
    assert found["back after relearning, runs located - tune all"]["value"] == pytest.approx(-0.3 / 0.8)
    assert not any("tune located" in name for name in found)


def test_what_is_kept_is_counted_from_each_subjects_own_start(bench: ModuleType) -> None:
    rows = cell(
        "a", "original", "none", 0, {"same": [0.8, 0.2], "relearned": [0.9, 0.9], "relearned, twins": [0.1, 0.1]}
    )
    rows += cell("a", "tune", "located", 0, {"same": [0.7, 0.1]}, reached=True)
    kept = importlib.import_module("bench._methods").by_subject(rows, "tune", "located", "same probability")
    assert list(kept.values()) == pytest.approx([0.8, 0.8])  # both lost a tenth, of a mean of a half


def test_seeds_count_by_their_median_and_what_missed_the_mark_not_at_all(bench: ModuleType) -> None:
    rows = original("a") + original("b") + edited("random", 0, [0.1, 0.1], [0.5, 0.5])
    for seed, kept in enumerate((0.2, 0.3, 0.5)):
        rows += edited("located", seed, [kept, kept], [0.5, 0.5])
    rows += edited("located", 3, [0.0, 0.0], [0.9, 0.9], reached=False)
    rows += edited("located", 0, [0.5, 0.5], [0.5, 0.5], case="b")
    rows += edited("random", 0, [0.5, 0.5], [0.5, 0.5], case="b", reached=False)
    kept = next(r for r in bench.paired_differences(rows) if r["name"] == "same relation kept, tune: located - random")
    assert kept["value"] == pytest.approx((0.3 - 0.1) / 0.5)
    assert kept["settings"]["cases"] == ["a"]
    told = bench.table(rows)
    assert "| tune | located | 4 of 5 |" in told
    assert "| tune | random | 1 of 2 |" in told
    assert [len(ax.get_yticks()) for ax in bench.figure(rows).axes] == [1, 1, 1, 1]


def test_a_second_call_makes_what_is_missing_the_most_important_first(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.loka, "load", lambda name: name)
    monkeypatch.setattr(bench, "study", lambda *of: of)
    monkeypatch.setattr(bench, "original", lambda model, study, settings: cell(**settings, values={}))
    monkeypatch.setattr(bench, "measure", lambda model, study, at, fixed: cell(**at.settings, values={}, **fixed))
    options = argparse.Namespace(
        model="m",
        cases=["a", "b"],
        methods=["lora", "undial"],
        sites=["located", "layers"],
        seeds=[0],
        facts=2,
        neurons=3,
    )
    fixed = {"model": "m", "facts": 2, "neurons": 3}
    made = [rows[0]["settings"] for rows in bench.cells(options, fixed, [])]
    names = [(s["case"], s["method"], s["sites"]) for s in made]
    assert names == [
        ("a", "original", "none"), ("a", "undial", "located"), ("b", "original", "none"), ("b", "undial", "located"),
        ("a", "lora", "located"), ("b", "lora", "located"), ("a", "undial", "layers"), ("b", "undial", "layers"),
    ]  # fmt: skip
    again = [rows[0]["settings"] for rows in bench.cells(options, fixed, made[:3])]
    assert again == made[3:]
    assert not list(bench.cells(options, fixed, made))
    assert len(list(bench.cells(options, fixed | {"neurons": 4}, made))) == len(made)
