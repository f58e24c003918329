"""The line-up fixes beforehand what it tries, and its tables say of its rows what they hold."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def parts() -> dict[str, ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        names = ("families", "report", "statistics")
        return {n: importlib.import_module(f"bench._lineup.{n}") for n in names} | {
            "lineup": importlib.import_module("bench.lineup")
        }


def row(family: str, half: str, truth: str, outcome: str, r: float, seed: int = 0, **more: object) -> dict:
    settings = {
        "seed": seed, "half": half, "truth": truth, "outcome": outcome, "shows": 0.0, "witness": "trained",
        "witnessed": 0.5, "r": {"recall": 0.0, "relearn": r, "depth": 0.9}, "attacks": ["relearn"],
        "found by": ["relearn"] if r > 0.1 else [], "field": {"probe": r},
    }  # fmt: skip
    return {"name": family, "value": 20.0, "settings": settings | more}


def test_families_and_seeds_are_enough_and_apart(parts: dict[str, ModuleType]) -> None:
    families, models = parts["families"], parts["report"].models
    names = [f.name for f in families.FAMILIES]
    assert len(names) == len(set(names)) >= 12
    assert models("open") + models("sealed") >= 120
    assert not set(families.SEEDS["open"]) & set(families.SEEDS["sealed"])
    for half in ("open", "sealed"):
        assert {f.truth for f in families.FAMILIES if f.half == half} == {
            "removed", "suppressed", "intact", "inconclusive",
        }  # fmt: skip
    assert all(f.proof for f in families.FAMILIES if f.truth in ("suppressed", "removed"))
    holding = [f for f in families.FAMILIES if f.half == "sealed" and f.truth in ("suppressed", "intact")]
    assert len(holding) * len(families.SEEDS["sealed"]) >= 59  # none called removed bounds the rate at 5%


def test_intervals_are_exact(parts: dict[str, ModuleType]) -> None:
    statistics = parts["statistics"]
    low, high = statistics.share_limits(3, 20)
    assert stats.binom.sf(2, 20, low) == pytest.approx(0.025)  # 3 or more are that rare at the lower limit
    assert stats.binom.cdf(3, 20, high) == pytest.approx(0.025)
    assert statistics.upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert statistics.share_limits(20, 20)[1] == 1.0


def test_the_area_counts_pairs(parts: dict[str, ModuleType]) -> None:
    auroc = parts["statistics"].auroc
    assert auroc([0.5, 0.2], [0.2, 0.1, 0.0]) == pytest.approx((3 + 2 + 0.5) / 6)
    assert auroc([], [0.1]) is None


def test_a_sealed_half_stays_closed_until_it_is_complete(
    parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, families = parts["report"], parts["families"]
    few = tuple(f for f in families.FAMILIES if f.name in ("bias on the answers", "never taught"))
    monkeypatch.setattr(report, "FAMILIES", few)
    monkeypatch.setattr(report, "SEEDS", {"open": (1,), "sealed": (1, 2)})
    rows = [row("bias on the answers", "sealed", "suppressed", "suppressed", 0.4, seed) for seed in (1, 2)]
    rows += [row("never taught", "sealed", "removed", "removed", 0.0, 1)]
    assert "3 of 4 models" in report.report(rows)
    assert "AUROC" not in report.report(rows)
    assert "suppressed |" not in report.report(rows)
    text = report.report([*rows, row("never taught", "sealed", "unknown", "removed", 0.0, 2)])
    assert "| **score of the verdict** | 1.000 | 1.000 |" in text
    assert "| depth | 0.500 | 0.500 |" in text
    assert "| never taught | unknown | 1 |" in text
    assert "Of 2 models that hold the knowledge, 0 were called removed." in text
    assert "| bias on the answers | **0.40** |" in text


def test_rows_that_are_there_are_not_made_again(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    lineup, families = parts["lineup"], parts["families"]
    monkeypatch.setattr(lineup, "base_of", lambda half, seed, folder: seed)
    monkeypatch.setattr(lineup, "row_of", lambda f, base, controls, seed: row(f.name, f.half, f.truth, "?", 0, seed))
    first, *rest = [
        row(f.name, f.half, f.truth, "?", 0.0, s) for f in families.FAMILIES for s in families.SEEDS[f.half]
    ]
    made = list(lineup.missing_rows({(r["name"], r["settings"]["seed"]) for r in rest}))
    assert [(r["name"], r["settings"]["seed"]) for r in made] == [(first["name"], first["settings"]["seed"])]
